"""Sums over feature vectors, in float64, and the heads that are computed from the sums alone.

The sums of several sites add up to the sums of all their rows. Without noise, a head from the total
is therefore the same as a head from all rows, except for rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dsyrk

from ..heads import closed_forms, least_squares
from ..heads.head import Head, one_thread

AT_ONCE = 2**22  # feature values that are converted to float64 at a time
DRAWS = 2000  # rows of logits that are drawn to calibrate a head
MOST_FITTED = 0.95  # leverage; with more, hardly anything but the row's own label is left

Floats64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """Sums over rows of c classes with d features.

    `gram` [d, d] is the sum of each row's outer product with itself, XᵀX. `class_sums` [c, d] has
    the sum of the rows of each class, YᵀX for one-hot labels Y, and `rows` [c] the number of rows.
    `noise` is the standard deviation of the noise on each entry of `gram`, 0 without noise.
    """

    classes: tuple[str, ...]
    gram: Floats64
    class_sums: Floats64
    rows: Floats64
    noise: float = 0.0

    @property
    def dimension(self) -> int:
        """Number of features."""
        return len(self.gram)

    @property
    def total(self) -> float:
        """Number of rows."""
        return float(self.rows.sum())

    @property
    def mean(self) -> Floats64:
        """Mean [d] of all rows."""
        return np.asarray(self.class_sums.sum(axis=0) / self.total)

    @property
    def covariance(self) -> Floats64:
        """Covariance [d, d] of all rows around their mean."""
        return np.asarray(self.gram / self.total - np.outer(self.mean, self.mean))

    @property
    def class_means(self) -> Floats64:
        """Mean [c, d] of each class."""
        return np.asarray(self.class_sums / self.rows[:, None])

    @property
    def within(self) -> Floats64:
        """Covariance [d, d] of the rows around the means of their classes."""
        means = self.class_means
        return np.asarray((self.gram - (means * self.rows[:, None]).T @ means) / self.total)


@dataclass(frozen=True)
class Solved:
    """A linear head in float64 for unscaled features: `weight` [c, d] and `bias` [c]."""

    classes: tuple[str, ...]
    weight: Floats64
    bias: Floats64

    def logits(self, features: npt.NDArray[np.floating]) -> Floats64:
        """Return the logits [n, c] of features [n, d]."""
        return np.asarray(features.astype(np.float64) @ self.weight.T + self.bias)

    def head(self, scale: float) -> Head:
        """Return the head in float32, with logits `scale` times as large."""
        weight, bias = self.weight * scale, self.bias * scale
        return Head(weight.astype(np.float32), bias.astype(np.float32))


def of(features: npt.NDArray[Any], labels: npt.NDArray[np.int64], classes: Sequence[str]) -> Sums:
    """Compute the sums of rows.

    Args:
        features: [n, d], as a head expects them.
        labels: [n], positions in `classes`.
        classes: the class names; each class has at least one row.
    """
    count, dimension = len(classes), features.shape[1]
    gram = np.zeros((dimension, dimension), order="F")
    class_sums = np.zeros((count, dimension))
    size = max(1, AT_ONCE // dimension)
    with one_thread():
        for start in range(0, len(features), size):
            some = features[start : start + size].astype(np.float64)
            gram = dsyrk(1.0, some.T, beta=1.0, c=gram, overwrite_c=True, lower=1)
            wanted = labels[start : start + size] == np.arange(count)[:, None]
            class_sums += wanted.astype(np.float64) @ some
    rows = np.bincount(labels, minlength=count).astype(np.float64)
    return Sums(tuple(classes), symmetric(packed(gram)), class_sums, rows)


def packed(gram: Floats64) -> Floats64:
    """Return the lower triangle of a symmetric matrix [d, d], row by row: [d (d + 1) / 2]."""
    return np.ascontiguousarray(gram[np.tril_indices(len(gram))])


def symmetric(triangle: Floats64) -> Floats64:
    """Return the symmetric matrix [d, d] with this lower triangle."""
    dimension = (int(np.sqrt(8 * len(triangle) + 1)) - 1) // 2
    matrix = np.zeros((dimension, dimension))
    matrix[np.tril_indices(dimension)] = triangle
    return np.asarray(matrix + np.tril(matrix, -1).T)


def joined(parts: Sequence[Sums]) -> Sums:
    """Add up the sums of several sites; the classes are the union of their classes."""
    classes = tuple(sorted({name for one in parts for name in one.classes}))
    gram = np.zeros_like(parts[0].gram)
    class_sums, rows = np.zeros((len(classes), len(gram))), np.zeros(len(classes))
    for one in parts:
        places = [classes.index(name) for name in one.classes]
        gram += one.gram
        class_sums[places] += one.class_sums
        rows[places] += one.rows
    return Sums(classes, gram, class_sums, rows, float(np.hypot.reduce([s.noise for s in parts])))


def possible(sums: Sums) -> Sums:
    """Correct noisy sums to possible values; sums without noise do not change.

    Negative variances within the classes become 0, and each class has at least one row.
    """
    if not sums.noise:
        return sums
    rows = np.maximum(sums.rows, 1.0)
    fair = replace(sums, rows=rows)
    values, vectors = np.linalg.eigh(fair.within)
    within = (vectors * np.maximum(values, 0)) @ vectors.T * fair.total
    gram = within + (fair.class_means * rows[:, None]).T @ fair.class_means
    return replace(fair, gram=gram)


def ridge(sums: Sums, decays: Sequence[float]) -> list[Solved]:
    """Solve `heads.closed_forms.by_ridge` from sums, with equal weights: one head per decay.

    As in `by_ridge`, the penalty applies to features that are centred and scaled. If the sums have
    noise, the penalty is at least the largest eigenvalue of such noise, so that the head does not
    fit the noise (Wang, "Revisiting differentially private linear regression", UAI 2018).
    """
    sums = possible(sums)
    mean, covariance, priors = sums.mean, sums.covariance, sums.rows / sums.total
    scale = _scale(covariance)
    decays = [max(decay, least_decay(sums)) for decay in decays]
    cross = (sums.class_sums / sums.total - np.outer(priors, mean)).T / scale
    covariance /= scale**2
    with one_thread():
        found = [least_squares.ridge(covariance, decay, cross).T for decay in decays]
        return [_on_raw(sums.classes, weight, priors, mean, scale) for weight in found]


def least_decay(sums: Sums) -> float:
    """Return the largest eigenvalue of the noise, which is the least penalty; 0 without noise."""
    largest = 2 * sums.noise * np.sqrt(sums.dimension) / sums.total
    return float(largest / _scale(sums.covariance) ** 2)


def nearest_mean(sums: Sums, decays: Sequence[float]) -> list[Solved]:
    """Solve `heads.closed_forms.nearest_mean` from sums; it has no hyperparameter."""
    sums = possible(sums)
    mean, scale = sums.mean, _scale(sums.covariance)
    means = (sums.class_means - mean) / scale
    solved = _on_raw(sums.classes, 2 * means, -np.square(means).sum(axis=1), mean, scale)
    return [solved for _ in decays]


def _scale(covariance: Floats64) -> float:
    """Return the root of the mean variance, as in `heads.scaling.centre_and_scale`."""
    square = float(np.trace(covariance)) / len(covariance)
    return float(np.sqrt(square)) if square > 0 else 1.0


def _on_raw(
    classes: tuple[str, ...], weight: Floats64, bias: Floats64, mean: Floats64, scale: float
) -> Solved:
    return Solved(classes, weight / scale, bias - (weight / scale) @ mean)


Solver = Callable[[Sums, Sequence[float]], list[Solved]]
SOLVERS: dict[str, Solver] = {"ridge": ridge, "nearest_mean": nearest_mean}


def best(sums: Sums, decays: Sequence[float]) -> int:
    """Return the position of the penalty whose ridge head has the least expected error on new rows.

    The method is generalised cross-validation (Golub, Heath and Wahba, 1979), which needs only the
    sums.
    """
    if len(decays) == 1:
        return 0
    expected = [
        squared_error(head, possible(sums)) / max(1 - leverage, 1e-9) ** 2
        for head, leverage in zip(ridge(sums, decays), fitted(sums, decays), strict=True)
    ]
    return int(np.argmin(expected))


def fitted(sums: Sums, decays: Sequence[float]) -> list[float]:
    """Return the mean leverage for each penalty: how much a row's prediction depends on its label.

    The mean leverage is the effective number of parameters divided by the number of rows.
    """
    sums = possible(sums)
    values = np.maximum(np.linalg.eigvalsh(sums.covariance / _scale(sums.covariance) ** 2), 0)
    floor = least_decay(sums)
    return [
        float((values / np.maximum(values + max(decay, floor), 1e-300)).sum() + 1) / sums.total
        for decay in decays
    ]


def fair_scale(sums: Sums, solved: Solved, optimizer: str, decay: float) -> float:
    """Return the factor for a head's logits that calibrates their softmax.

    There are no examples to calibrate on. Logits are therefore drawn for each class from a normal
    distribution with the mean of the class and the covariance within the classes. A ridge head was
    fitted to the summed rows, so the effect of each row's own label is removed, as leaving the row
    out would do.
    """
    logits, labels = draws(solved, possible(sums))
    if optimizer == "ridge":
        own = min(fitted(sums, [decay])[0], MOST_FITTED)
        logits = (logits - own * np.eye(len(solved.classes))[labels]) / (1 - own)
    return closed_forms.fair_scale(logits, labels)


def squared_error(head: Solved, sums: Sums) -> float:
    """Return the squared error of a head on one-hot labels, summed over the rows of `sums`.

    The head and `sums` have the same classes.
    """
    wanted = (head.weight * sums.class_sums).sum() + head.bias @ sums.rows
    weight, bias = head.weight, head.bias
    answers = np.einsum("cd,de,ce->", weight, sums.gram, weight, optimize=True)
    answers += 2 * bias @ (weight @ sums.class_sums.sum(axis=0)) + sums.total * bias @ bias
    return float(answers - 2 * wanted + sums.total)


def draws(head: Solved, sums: Sums) -> tuple[Floats64, npt.NDArray[np.int64]]:
    """Draw logits [n, c] that rows of `sums` could have, and positions [n] of their classes.

    The head and `sums` have the same classes.
    """
    values, vectors = np.linalg.eigh(head.weight @ sums.within @ head.weight.T)
    spread = vectors * np.sqrt(np.maximum(values, 0))
    random = np.random.default_rng(0)
    logits, labels = [], []
    for place, (mean, rows) in enumerate(zip(sums.class_means, sums.rows, strict=True)):
        count = max(1, round(DRAWS * rows / sums.total))
        middle = head.weight @ mean + head.bias
        logits.append(middle + random.standard_normal((count, len(middle))) @ spread.T)
        labels.append(np.full(count, place))
    return np.concatenate(logits), np.concatenate(labels)

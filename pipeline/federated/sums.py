"""Sums over feature vectors, in float64, and the heads that are solved for from them alone.

Sums of several sites add up to the sums of all their rows, so a head solved from them is the one
that was solved from all rows, but for rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dsyrk

from ..heads import closed_forms
from ..heads.head import Head, one_thread

AT_ONCE = 2**22  # numbers of features that are float64 at a time
DRAWS = 2000  # logits drawn for each fold, to see how sure a head may be
MOST_FOLDS = 10  # a head is solved for in each

Floats64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """Sums over rows of c classes with d features.

    `gram` [d, d] is the sum of each row's outer product with itself, XᵀX. `class_sums` [c, d] are
    the sums of the rows of each class, YᵀX for one-hot labels Y, and `rows` [c] how many they are.
    `noise` is the standard deviation of what was added to each number of `gram`, 0 where nothing
    was.
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
    """A linear head in float64: `weight` [c, d] and `bias` [c], on features as they are."""

    classes: tuple[str, ...]
    weight: Floats64
    bias: Floats64

    def logits(self, features: npt.NDArray[np.floating]) -> Floats64:
        """Scores [n, c] of features [n, d]."""
        return np.asarray(features.astype(np.float64) @ self.weight.T + self.bias)

    def head(self, scale: float) -> Head:
        """The head in float32, with logits `scale` times as large."""
        weight, bias = self.weight * scale, self.bias * scale
        return Head(weight.astype(np.float32), bias.astype(np.float32))


def of(features: npt.NDArray[Any], labels: npt.NDArray[np.int64], classes: Sequence[str]) -> Sums:
    """The sums of rows.

    Args:
        features: [n, d], as a head takes them.
        labels: [n], positions in `classes`.
        classes: names, of which each has a row.
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
    """The lower triangle of a symmetric matrix [d, d], row by row: [d (d + 1) / 2]."""
    return np.ascontiguousarray(gram[np.tril_indices(len(gram))])


def symmetric(triangle: Floats64) -> Floats64:
    """The matrix of a lower triangle."""
    dimension = (int(np.sqrt(8 * len(triangle) + 1)) - 1) // 2
    matrix = np.zeros((dimension, dimension))
    matrix[np.tril_indices(dimension)] = triangle
    return np.asarray(matrix + np.tril(matrix, -1).T)


def joined(parts: Sequence[Sums]) -> Sums:
    """The sums of all rows of several sites; the classes are those that any of them has."""
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
    """Sums whose noise is taken back as far as it cannot be true; without noise as they are.

    No direction has a negative variance within the classes, and no class less than a row.
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
    """`heads.closed_forms.ridge` from sums, every row weighing alike: a head for each decay.

    As there, the penalty is measured on features of mean zero and of one scale. Where there is
    noise in the sums it is at least the largest eigenvalue that such noise has, or the head would
    follow it (Wang, "Revisiting differentially private linear regression", UAI 2018).
    """
    sums = possible(sums)
    mean, covariance, shares = sums.mean, sums.covariance, sums.rows / sums.total
    scale = _scale(covariance)
    if sums.noise:
        least = 2 * sums.noise * np.sqrt(sums.dimension) / (sums.total * scale**2)
        decays = [max(decay, least) for decay in decays]
    cross = (sums.class_sums / sums.total - np.outer(shares, mean)).T / scale
    covariance /= scale**2
    with one_thread():
        found = closed_forms.least_squares(np.zeros_like(mean), shares, covariance, cross, decays)
        return [_on_raw(sums.classes, weight, bias, mean, scale) for weight, bias in found]


def nearest_mean(sums: Sums, decays: Sequence[float]) -> list[Solved]:
    """`heads.closed_forms.nearest_mean` from sums; it has no knob."""
    sums = possible(sums)
    mean, scale = sums.mean, _scale(sums.covariance)
    means = (sums.class_means - mean) / scale
    solved = _on_raw(sums.classes, 2 * means, -np.square(means).sum(axis=1), mean, scale)
    return [solved for _ in decays]


def _scale(covariance: Floats64) -> float:
    """The root of the mean variance, as `heads.fit.centre_and_scale` has it."""
    square = float(np.trace(covariance)) / len(covariance)
    return float(np.sqrt(square)) if square > 0 else 1.0


def _on_raw(
    classes: tuple[str, ...], weight: Floats64, bias: Floats64, mean: Floats64, scale: float
) -> Solved:
    return Solved(classes, weight / scale, bias - (weight / scale) @ mean)


Solver = Callable[[Sums, Sequence[float]], list[Solved]]
SOLVERS: dict[str, Solver] = {"ridge": ridge, "nearest_mean": nearest_mean}


@dataclass(frozen=True)
class Judged:
    """What sites that were left out tell of heads.

    `errors` has for each decay the mean squared error of one-hot labels, and `scale` by what to
    multiply the logits of the best one. `left_out` is whether any site could be left out.
    """

    errors: list[float]
    best: int
    scale: float
    left_out: bool


def judged(parts: Sequence[Sums], optimizer: str, decays: Sequence[float]) -> Judged:
    """How good heads are, and how sure they may be, on sites that they were not solved from.

    Each fold of sites is left out in turn. From its sums the squared error of a head is exact. Its
    probabilities are not to be had from sums, so logits are drawn: of each class by a normal
    distribution with the class's own mean and the covariance within classes. What the others do
    not know of classes is left out.

    Args:
        parts: of each site.
        optimizer: of `SOLVERS`.
        decays: of the heads to be judged.
    """
    solve = SOLVERS[optimizer]
    count = min(len(parts), MOST_FOLDS)
    errors = np.zeros(len(decays))
    drawn: list[list[tuple[Floats64, npt.NDArray[np.int64]]]] = []
    weights = []
    with one_thread():
        for fold in range(count):
            others = joined([s for place, s in enumerate(parts) if place % count != fold])
            new = possible(joined([s for place, s in enumerate(parts) if place % count == fold]))
            if len(others.classes) < 2 or not set(others.classes) & set(new.classes):
                continue  # nothing that these have in common
            heads = solve(others, decays)
            errors += [squared_error(head, new) for head in heads]
            drawn.append([draws(head, new) for head in heads])
            weights.append(new.total)
        left_out = bool(weights)
        best = int(np.argmin(errors)) if left_out and optimizer == "ridge" else 0
        if not left_out:
            whole = possible(joined(parts))
            drawn, weights = [[draws(head, whole) for head in solve(whole, decays)]], [1.0]
    scales = [closed_forms.fair_scale(of_fold[best][0], of_fold[best][1]) for of_fold in drawn]
    scale = float(np.exp(np.average(np.log(scales), weights=weights)))
    total = max(sum(weights), 1.0)
    return Judged((errors / total).tolist(), best, scale, left_out)


def squared_error(head: Solved, sums: Sums) -> float:
    """Of a head the squared error of one-hot labels, summed over the rows behind `sums`.

    Of rows whose class the head does not know every output should be 0.
    """
    wanted = 0.0
    for place, name in enumerate(head.classes):
        if name in sums.classes:
            own = sums.classes.index(name)
            of_class = head.weight[place] @ sums.class_sums[own]
            wanted += of_class + head.bias[place] * sums.rows[own]
    weight, bias = head.weight, head.bias
    answers = np.einsum("cd,de,ce->", weight, sums.gram, weight, optimize=True)
    answers += 2 * bias @ (weight @ sums.class_sums.sum(axis=0)) + sums.total * bias @ bias
    return float(answers - 2 * wanted + sums.total)


def draws(head: Solved, sums: Sums) -> tuple[Floats64, npt.NDArray[np.int64]]:
    """Logits [n, c] as rows behind `sums` may have, and the positions [n] of their classes."""
    values, vectors = np.linalg.eigh(head.weight @ sums.within @ head.weight.T)
    spread = vectors * np.sqrt(np.maximum(values, 0))
    random = np.random.default_rng(0)
    logits, labels = [], []
    for name, mean, rows in zip(sums.classes, sums.class_means, sums.rows, strict=True):
        if name in head.classes:
            count = max(1, round(DRAWS * rows / sums.total))
            middle = head.weight @ mean + head.bias
            logits.append(middle + random.standard_normal((count, len(middle))) @ spread.T)
            labels.append(np.full(count, head.classes.index(name)))
    return np.concatenate(logits), np.concatenate(labels)

"""Heads in closed form whose outputs each have a column of labels: several labels, or numbers.

As in `closed_forms`, features are of mean zero and of one scale, and the penalty is
`weight_decay / 2 * |weight|^2` beside each output's mean loss over its known rows. So an output is
what it would be alone. Where its rows cannot tell (a label that is positive in all of them, as in a
small subset), it answers with their share of positives, whatever the features; `train` refuses such
rows (`losses.require_learnable`).
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.blas import dsyrk

from ..tables.features import Split
from . import lbfgs
from .head import Floats, Head
from .losses import cell_weights

Floats64 = npt.NDArray[np.float64]

AT_ONCE = 2**22  # numbers of features that are float64 at a time


def ridge(train: Split, loss: str, class_weights: Floats, decays: Sequence[float]) -> list[Head]:
    """Least squares to 1 and 0, or to numbers, one head for each decay.

    Logits of labels are what is above a half, so that their sign says which is nearer; `fair_scale`
    makes probabilities of them. Outputs that are known in the same rows, and weigh them alike,
    share the features' covariance and, for each decay, one Cholesky decomposition of it.
    """
    cells = cell_weights(train.labels, class_weights)
    labels = np.nan_to_num(train.labels)
    weights = np.zeros((len(decays), labels.shape[1], train.features.shape[1]))
    biases = np.zeros(weights.shape[:2])

    def solve(outputs: list[int]) -> None:
        importance = cells[:, outputs[0]].astype(np.float64)
        if not importance.any():
            return
        importance /= importance.sum()
        moments = _moments(train.features, labels[:, outputs], importance)
        features_mean, labels_mean, covariance, cross = moments
        for number, decay in enumerate(decays):
            weight = solved(covariance.copy(order="F"), decay, cross).T
            weights[number, outputs] = weight
            biases[number, outputs] = labels_mean - weight @ features_mean

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(solve, alike(cells)))
    if loss == "binary":
        biases -= 0.5
    return [
        Head(weight.astype(np.float32), bias.astype(np.float32))
        for weight, bias in zip(weights, biases, strict=True)
    ]


def solved(matrix: Floats64, penalty: float | Floats64, right: Floats64) -> Floats64:
    """The x of `(matrix + diag(penalty)) x = right`; without a penalty a tiny one stands in.

    Of the matrix, which is overwritten, the lower triangle is read.
    """
    matrix[np.diag_indices(len(matrix))] += np.maximum(
        penalty, max(1e-9 * np.trace(matrix), 1e-300)
    )
    factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    solution: Floats64 = cho_solve(factor, right, check_finite=False)
    return solution


def alike(cells: Floats) -> list[list[int]]:
    """The columns of [n, c] in groups that are equal."""
    groups: dict[bytes, list[int]] = {}
    for number, column in enumerate(cells.T):
        groups.setdefault(column.tobytes(), []).append(number)
    return list(groups.values())


def _moments(
    features: Floats, labels: Floats64, importance: Floats64
) -> tuple[Floats64, Floats64, Floats64, Floats64]:
    """Means [d] and [k], covariance of the features [d, d], and of features and labels [d, k].

    Of the first covariance the lower triangle, at half the cost.
    """
    dimension = features.shape[1]
    size = max(1, AT_ONCE // dimension)
    chunks = [slice(start, start + size) for start in range(0, len(features), size)]
    mean = np.zeros(dimension)
    for some in chunks:
        mean += importance[some] @ features[some].astype(np.float64)
    labels_mean = importance @ labels
    roots = np.sqrt(importance)[:, None]
    covariance = np.zeros((dimension, dimension), order="F")
    cross = np.zeros((dimension, labels.shape[1]))
    for some in chunks:
        centred = (features[some] - mean) * roots[some]
        cross += centred.T @ ((labels[some] - labels_mean) * roots[some])
        covariance = dsyrk(1.0, centred.T, beta=1.0, c=covariance, overwrite_c=True, lower=1)
    return mean, labels_mean, covariance, cross


def by_lbfgs(train: Split, loss: str, class_weights: Floats, decays: Sequence[float]) -> list[Head]:
    """A logistic regression for each label, or Huber's regression for each number.

    A label's is that of scikit-learn's `OneVsRestClassifier(LogisticRegression())`, up to where
    each stops.
    """
    cells = cell_weights(train.labels, class_weights)
    labels = np.nan_to_num(train.labels)
    told = _told(labels, cells) if loss == "binary" else cells.any(axis=0)
    outputs, dimension = labels.shape[1], train.features.shape[1]
    weight, bias = np.zeros((outputs, dimension), np.float32), np.zeros(outputs, np.float32)
    if loss == "binary":
        bias[:] = _log_odds(labels, cells)
    if not told.any():
        return [Head(weight, bias) for _ in decays]
    axes = lbfgs.Axes.of(train.features)
    shares = (cells[:, told] / cells[:, told].sum(axis=0, dtype=np.float64)).astype(np.float32)
    found, reached = lbfgs.minima(loss, axes, labels[:, told].astype(np.float32), shares, decays)
    heads = []
    for decay, solved, converged in zip(decays, found, reached, strict=True):
        if not converged:
            print(
                f"train: warning: lbfgs with weight_decay {decay:g} had not converged after"
                f" {lbfgs.MOST_ITERATIONS} iterations; more weight decay makes it easier"
            )
        head = Head(weight.copy(), bias.copy())
        head.weight[told] = solved[:, 1:].astype(np.float32) @ axes.axes.T
        head.bias[told] = solved[:, 0]
        heads.append(head)
    return heads


def nearest_mean(
    train: Split, loss: str, class_weights: Floats, decays: Sequence[float]
) -> list[Head]:
    """For each label, which is nearer: the mean of its positive or of its negative rows."""
    cells = cell_weights(train.labels, class_weights)
    labels = np.nan_to_num(train.labels)
    told = _told(labels, cells)
    of = {value: ((labels == value) & (cells > 0)).astype(np.float32) for value in (0, 1)}
    sizes = {value: np.maximum(inside.sum(axis=0), 1) for value, inside in of.items()}
    no, yes = ((of[value] / sizes[value]).T @ train.features for value in (0, 1))
    weight = np.where(told[:, None], 2 * (yes - no), 0).astype(np.float32)
    nearer = np.square(no).sum(axis=1) - np.square(yes).sum(axis=1)
    bias = np.where(told, nearer, _log_odds(labels, cells)).astype(np.float32)
    return [Head(weight, bias) for _ in decays]


def _told(labels: Floats64, cells: Floats) -> npt.NDArray[np.bool_]:
    """Whether each label [c] is known with both of its values."""
    known = cells > 0
    return np.asarray(((labels == 1) & known).any(axis=0) & ((labels == 0) & known).any(axis=0))


def _log_odds(labels: Floats64, cells: Floats) -> Floats64:
    """Of each label [c] the logit of its share of positives, with half a row more of each."""
    known = cells > 0
    positives = ((labels == 1) & known).sum(axis=0)
    return np.asarray(np.log((positives + 0.5) / (known.sum(axis=0) - positives + 0.5)))


Solver = Callable[[Split, str, Floats, Sequence[float]], list[Head]]
SOLVERS: dict[str, dict[str, Solver]] = {
    "binary": {"lbfgs": by_lbfgs, "ridge": ridge, "nearest_mean": nearest_mean},
    "squared": {"lbfgs": ridge, "ridge": ridge},
    "huber": {"lbfgs": by_lbfgs},
}

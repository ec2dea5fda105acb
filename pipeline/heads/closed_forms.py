"""Solvers for linear heads, instead of gradient descent: L-BFGS, ridge and nearest mean.

All solvers expect scaled features with mean zero. L-BFGS and ridge use the same weight decay: an L2
penalty of `weight_decay / 2 * |weight|^2` is added to the mean loss over an output's known rows;
biases are not penalised. Each label of a multi-label task, and each target, therefore has the same
weights as if it were trained alone. If the rows of an output determine nothing (a label that is
positive in all of them, as in a small subset), the output predicts the fraction of positives for
all features; `train` rejects such rows. For classes and labels, the scale of the logits of ridge
and nearest mean has no meaning, so `fair_scale` calibrates them.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dsyrk

from ..tables import large
from . import few_classes, lbfgs, many_classes
from .head import Floats, Head, fit_temperature
from .least_squares import ridge
from .linear_loss import Axes, LinearLoss
from .losses import LOSSES, Loss

AT_ONCE = 2**22  # numbers converted to float64 at a time
TOLERANCE = 1e-8  # for labels and targets, as in `lbfgs.minimum`
TOGETHER = 32  # outputs; fixed, because the number of cores must not change the result

Floats64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """The rows that heads are trained on.

    Args:
        features: [n, d].
        loss: the loss to minimise, one of `losses.LOSSES`.
        labels: [n, p], as `loss.labels` returns them.
        importance: [n, p], as `loss.importance` returns it.
        outputs: c.
    """

    features: Floats
    loss: Loss
    labels: npt.NDArray[Any]
    importance: Floats
    outputs: int

    @classmethod
    def of(
        cls,
        features: Floats,
        loss: str,
        labels: npt.NDArray[Any],
        class_weights: Floats,
        weights: Floats | None = None,
    ) -> "Rows":
        """Create rows from the task's labels; `weights` [n] are the row weights."""
        of = LOSSES[loss]
        importance = of.importance(labels, class_weights, weights)
        return cls(features, of, of.labels(labels), importance, len(class_weights))


def multinomial(rows: Rows, decays: Sequence[float], start: Head | None) -> list[Head]:
    """Fit multinomial logistic regression by L-BFGS, one head for each decay.

    L-BFGS begins at `start` only if there are more than `many_classes.MANY` classes.
    """
    few = rows.outputs <= many_classes.MANY
    minimum, start = (few_classes.minimum, None) if few else (many_classes.minimum, start)
    given = rows.features, rows.labels[:, 0], rows.importance[:, 0], rows.outputs
    heads: dict[float, Head] = {}
    # Warm starts, from the strongest penalty to the weakest, need a third of the iterations
    # (Friedman, Hastie and Tibshirani, 2010).
    for decay in sorted(set(decays), reverse=True):
        start, reached = minimum(*given, decay, start)
        heads[decay] = start
        _warn(decay, reached)
    return [heads[decay] for decay in decays]


def _warn(decay: float, reached: bool) -> None:
    if not reached:
        print(
            f"warning: lbfgs with weight_decay {decay:g} did not converge; try a larger"
            " train.weight_decay"
        )


def by_lbfgs(rows: Rows, decays: Sequence[float], start: Head | None) -> list[Head]:
    """Fit a logistic regression for each label, or a Huber regression for each target."""
    bias, learnable = rows.loss.without_features(rows.labels, rows.importance)
    weight = np.zeros((rows.outputs, rows.features.shape[1]), dtype=np.float32)
    known = np.flatnonzero(learnable)
    heads = [Head(weight.copy(), bias.astype(np.float32)) for _ in decays]
    if not len(known):
        return heads
    count = len(rows.features)
    axes = Axes.of(rows.features, np.full(count, 1 / count, np.float32))
    importance = rows.importance[:, known]
    importance = (importance / importance.sum(axis=0, dtype=np.float64)).astype(np.float32)
    labels = rows.labels[:, known].astype(np.float32)

    def solve(part: slice) -> list[tuple[Floats64, bool]]:
        weights = np.zeros((len(known[part]), axes.turned.shape[1]))
        weights[:, 0] = bias[known[part]]
        some = LinearLoss(rows.loss, axes.turned, labels[:, part], importance[:, part], 0.0)
        curvature, _ = some.curvature(weights)
        found: dict[float, tuple[Floats64, bool]] = {}
        # Warm starts, from the strongest penalty to the weakest.
        for decay in sorted(set(decays), reverse=True):
            hessian = np.maximum(curvature, 1e-6)[:, None] * axes.variances
            hessian[:, 1:] += max(decay, 1e-7 * float(hessian.max()))
            objective = replace(some, decay=decay)
            found[decay] = lbfgs.minimum(objective, weights, _diagonal(hessian), TOLERANCE)
            weights, _ = found[decay]
        return [found[decay] for decay in decays]

    parts = [slice(at, at + TOGETHER) for at in range(0, len(known), TOGETHER)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        solved = list(threads.map(solve, parts))
    for number, (decay, head) in enumerate(zip(decays, heads, strict=True)):
        weights = np.concatenate([part[number][0] for part in solved])
        head.weight[known] = weights[:, 1:].astype(np.float32) @ axes.axes.T
        head.bias[known] = weights[:, 0]
        _warn(decay, all(part[number][1] for part in solved))
    return heads


def _diagonal(hessian: Floats64) -> Callable[[int, Floats64], lbfgs.Divide]:
    """Return a function that divides gradients by the same diagonal [P, p] in every iteration."""
    return lambda iteration, weights: lambda gradient, live: gradient / hessian[live]


def by_ridge(rows: Rows, decays: Sequence[float], start: Head | None) -> list[Head]:
    """Fit least squares to one-hot labels, 0/1 labels or targets; one head for each decay.

    For 0/1 labels, the logit is the prediction minus 1/2, so that its sign shows which value is
    nearer. Outputs with the same known rows and the same weights share the covariance of the
    features and, for each decay, its decomposition.
    """
    weights = np.zeros((len(decays), rows.outputs, rows.features.shape[1]))
    biases = np.zeros(weights.shape[:2])

    def solve(alike: list[int]) -> None:
        importance = rows.importance[:, alike[0]].astype(np.float64)
        if not importance.any():
            return
        importance /= importance.sum()
        outputs = alike if rows.importance.shape[1] == rows.outputs else list(range(rows.outputs))
        features_mean, targets_mean, covariance, cross = _moments(rows, outputs, importance)
        for number, decay in enumerate(decays):
            weight = ridge(covariance, decay, cross).T
            weights[number, outputs] = weight
            biases[number, outputs] = targets_mean - weight @ features_mean

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(solve, alike(rows.importance)))
    biases -= rows.loss.middle
    return [
        Head(weight.astype(np.float32), bias.astype(np.float32))
        for weight, bias in zip(weights, biases, strict=True)
    ]


def alike(cells: Floats) -> list[list[int]]:
    """Return the groups of equal columns of `cells` [n, c]."""
    groups: dict[bytes, list[int]] = {}
    for number, column in enumerate(cells.T):
        groups.setdefault(column.tobytes(), []).append(number)
    return list(groups.values())


def _moments(
    rows: Rows, outputs: list[int], importance: Floats64
) -> tuple[Floats64, Floats64, Floats64, Floats64]:
    """Return means [d] and [k], covariance of features [d, d], and of features and targets [d, k].

    Only the lower triangle of the covariance of features is computed, which halves the cost. If
    one-hot labels took more than 0.5 GB, rows are added up by class instead.
    """
    count, dimension = rows.features.shape
    by_class = rows.loss is LOSSES["softmax"] and 4 * count * rows.outputs > large.LARGE
    size = max(1, AT_ONCE // max(dimension, 1 if by_class else rows.outputs))
    chunks = [slice(start, start + size) for start in range(0, count, size)]

    def targets(some: slice) -> Floats64:
        return rows.loss.targets(rows.labels[some], rows.outputs)[:, outputs]

    mean, targets_mean = np.zeros(dimension), np.zeros(len(outputs))
    for some in chunks:
        mean += importance[some] @ rows.features[some].astype(np.float64)
        if by_class:
            targets_mean += np.bincount(rows.labels[some, 0], importance[some], rows.outputs)
        else:
            targets_mean += importance[some] @ targets(some)
    roots = np.sqrt(importance)[:, None]
    covariance = np.zeros((dimension, dimension), order="F")
    cross = np.zeros((dimension, len(outputs)))
    for some in chunks:
        centred = (rows.features[some] - mean) * roots[some]
        if by_class:
            _add_by_class(cross.T, rows.labels[some, 0], centred * roots[some])
        else:
            cross += centred.T @ ((targets(some) - targets_mean) * roots[some])
        covariance = dsyrk(1.0, centred.T, beta=1.0, c=covariance, overwrite_c=True, lower=1)
    return mean, targets_mean, covariance, cross


def _add_by_class(sums: Floats64, labels: npt.NDArray[np.int64], rows: Floats64) -> None:
    """Add rows [n, d], whose labels are [n], to the sums [c, d] of the classes."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums[present] += np.add.reduceat(rows[order], starts, axis=0)


def nearest_mean(rows: Rows, decays: Sequence[float], start: Head | None) -> list[Head]:
    """Fit the nearest-mean classifier, which has no hyperparameters.

    The negative squared distance to a mean m, without the term that is equal for all classes, is
    `2 m·x - |m|²`: a linear head.
    """
    labels = rows.labels[:, 0]
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(rows.outputs + 1))
    of_classes = [order[start:end] for start, end in itertools.pairwise(ends)]
    means = np.stack([rows.features[some].mean(axis=0) for some in of_classes])
    head = Head((2 * means).astype(np.float32), -np.square(means).sum(axis=1).astype(np.float32))
    return [head for _ in decays]


def nearer_mean(rows: Rows, decays: Sequence[float], start: Head | None) -> list[Head]:
    """For each label, fit the nearest-mean classifier of its positive and negative rows."""
    odds, learnable = rows.loss.without_features(rows.labels, rows.importance)
    known = rows.importance > 0
    of = {value: ((rows.labels == value) & known).astype(np.float32) for value in (0, 1)}
    sizes = {value: np.maximum(inside.sum(axis=0), 1) for value, inside in of.items()}
    no, yes = ((of[value] / sizes[value]).T @ rows.features for value in (0, 1))
    weight = np.where(learnable[:, None], 2 * (yes - no), 0).astype(np.float32)
    nearer = np.square(no).sum(axis=1) - np.square(yes).sum(axis=1)
    bias = np.where(learnable, nearer, odds).astype(np.float32)
    return [Head(weight, bias) for _ in decays]


def fair_scale(logits: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
    """Return the factor that calibrates logits for softmax (sigmoid in multi-label tasks).

    The factor is 1 / `head.fit_temperature` on the rows. If the head was trained on these rows, it
    will still be overconfident.
    """
    zero = logits.mean(axis=1, keepdims=True) if labels.ndim == 1 else 0
    unit = np.abs(logits - zero).mean() or 1.0
    scaled: npt.NDArray[Any] = logits / unit
    return 1 / float(unit * fit_temperature(scaled, labels))


Solver = Callable[[Rows, Sequence[float], Head | None], list[Head]]
# Solvers by loss and optimizer.
SOLVERS: dict[str, dict[str, Solver]] = {
    "softmax": {
        "lbfgs": multinomial,
        "ridge": by_ridge,
        "nearest_mean": nearest_mean,
    },
    "binary": {"lbfgs": by_lbfgs, "ridge": by_ridge, "nearest_mean": nearer_mean},
    "squared": {"lbfgs": by_ridge, "ridge": by_ridge},
    "huber": {"lbfgs": by_lbfgs},
}
OF_NO_SCALE = ("ridge", "nearest_mean")

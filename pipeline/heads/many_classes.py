"""Multinomial logistic regression for many classes: L-BFGS with a preconditioner, in float32.

The objective is that of `few_classes`, which starts from zero and does not use the curvature. This
module rotates the features to their principal axes; the first steps use only the axes that vary
most, at a fifth of the cost. L-BFGS then starts each direction from an approximate Newton step,
whose Hessian has only the block of each class: the class's own rows enter one by one, and all other
rows through their covariance.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..tables.large import mapped
from . import lbfgs
from .head import Floats, Head
from .linear_loss import Axes, LinearLoss
from .losses import LOSSES

# Up to this many classes, `few_classes` is quick, and heads are the same as in older versions.
MANY = 100
TOLERANCE = 1e-6
COARSE = 2e-2  # the tolerance with some of the axes; the next level changes the weights anyway
PARTS = (6, 2, 1)  # the levels use a sixth, a half and all of the axes
PLAIN = 12  # first steps without the curvature, which changes too quickly far from the minimum
OWN = 16  # rows of a class whose curvature is used one by one
OTHERS = 0.8  # fraction of the other rows' curvature; below 1, because the classes share it
RENEWED = 4  # iterations after which the curvature is computed again
GATHERED = 2**24  # numbers in the rows gathered at once


def minimum(
    features: Floats,
    labels: npt.NDArray[np.int64],
    importance: Floats,
    classes: int,
    decay: float,
    start: Head | None,
) -> tuple[Head, bool]:
    """Return the head with the lowest loss, and whether the optimisation converged.

    Args:
        features: [n, d], with mean zero and one common scale.
        labels: [n].
        importance: [n], the weights of the rows.
        classes: c.
        start: a linear head to start from; None to start from zeros.
    """
    row_weights = (importance / importance.sum(dtype=np.float64)).astype(np.float32)
    axes = Axes.of(features, row_weights)
    loss = LOSSES["softmax"]
    whole = LinearLoss(loss, axes.turned, loss.labels(labels), row_weights[:, None], decay)
    count = axes.axes.shape[1]
    weights = np.zeros((classes, 1 + count), dtype=np.float32)
    levels = [max(1, count // part) for part in PARTS]
    if start is not None:
        weights[:, 0], weights[:, 1:] = start.bias, start.weight @ axes.axes
        levels = levels[-1:]
    for number, seen in enumerate(levels):
        some = slice(0, 1 + seen)
        plain = PLAIN if start is None and number == 0 else 0
        part = whole if seen == count else replace(whole, rows=_columns(axes.turned, some))
        newton = _Newton(part, axes.variances[some].astype(np.float32), plain)
        tolerance = TOLERANCE if seen == count else COARSE
        began = weights[:, some].reshape(1, -1)
        solved, reached = lbfgs.minimum(part, began, newton, tolerance, plain)
        weights[:, some] = solved.reshape(classes, -1)
    return Head(weights[:, 1:] @ axes.axes.T, weights[:, 0].copy()), reached


def _columns(rows: Floats, some: slice) -> Floats:
    return mapped(rows, lambda chunk: np.ascontiguousarray(chunk[:, some]))


class _Newton:
    """Divides a gradient by an approximate Hessian, which is updated every few iterations.

    The block of a class is a diagonal, from the penalty and the variances of the features, plus
    the outer products of its own rows. The Woodbury identity inverts it.
    """

    def __init__(self, objective: LinearLoss, variances: Floats, plain: int) -> None:
        self.objective, self.variances, self.plain = objective, variances, plain

    def __call__(self, iteration: int, weights: Floats) -> lbfgs.Divide:
        if iteration < self.plain:
            return lambda gradient, some: gradient
        if (iteration - self.plain) % RENEWED == 0:
            self._renew(weights)
        return self._divide

    def _renew(self, weights: Floats) -> None:
        labels = self.objective.labels[:, 0]
        of_class, of_rows = self.objective.curvature(weights, labels)
        self.chosen, self.own = _own_rows(labels, of_rows, len(of_class))
        others = OTHERS * np.maximum(of_class - self.own.sum(axis=1), 0.1 * of_class)
        penalty = np.full(len(self.variances), self.objective.decay, dtype=np.float32)
        penalty[0] = 0
        least = 1e-4 * others.mean() * self.variances.mean() + 1e-12
        diagonal = np.maximum(others[:, None] * self.variances + penalty, least)
        self.root = np.sqrt(1 / diagonal, dtype=np.float32)
        size = max(1, GATHERED // (OWN * len(self.variances)))
        self.chunks = [slice(start, start + size) for start in range(0, len(others), size)]
        self.inverses = []
        for some in self.chunks:
            weight = np.sqrt(self.own[some])
            rows = self.objective.rows[self.chosen[some]] * self.root[some, None, :]
            rows *= weight[:, :, None]
            inner = rows @ rows.transpose(0, 2, 1) + np.eye(rows.shape[1], dtype=np.float32)
            self.inverses.append(weight[:, :, None] * np.linalg.inv(inner) * weight[:, None, :])

    def _divide(self, gradient: Floats, some: lbfgs.Positions) -> Floats:
        matrix = gradient.reshape(self.root.shape)
        found = np.empty_like(matrix)
        for part, inverse in zip(self.chunks, self.inverses, strict=True):
            rows, squares = self.objective.rows[self.chosen[part]], self.root[part] ** 2
            damped = matrix[part] * squares
            inside = inverse @ (rows @ damped[:, :, None])
            found[part] = damped - (rows.transpose(0, 2, 1) @ inside)[:, :, 0] * squares
        return found.reshape(gradient.shape)


def _own_rows(
    labels: npt.NDArray[np.int64], curvature: Floats, classes: int
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return each class's rows of highest curvature, at most [c, OWN], and the curvatures.

    If a class has fewer rows, the remaining curvatures are 0.
    """
    order = np.lexsort((-curvature, labels))
    starts = np.searchsorted(labels[order], np.arange(classes + 1))
    most = min(OWN, int(np.diff(starts).max()))
    places = starts[:-1, None] + np.arange(most)
    there = places < starts[1:, None]
    chosen = order[np.minimum(places, len(order) - 1)]
    return chosen, np.where(there, curvature[chosen], 0).astype(np.float32)

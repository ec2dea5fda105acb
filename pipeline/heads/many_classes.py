"""Multinomial logistic regression for many classes: L-BFGS with a preconditioner, in float32.

The objective is that of `closed_forms.multinomial`. scikit-learn starts from zero and knows nothing
of the curvature. Here the features are turned to their principal axes; the first steps see only
those that vary most, at a fifth of the cost. L-BFGS then starts each direction from an approximate
Newton step: of the Hessian only the block of each class is taken, and of that the rows of the class
itself as they are and all others by their covariance.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from . import lbfgs
from .head import Floats, Head
from .linear_loss import Axes, LinearLoss
from .losses import LOSSES

# With fewer classes scikit-learn is quick, and the bytes of older heads stay the same.
MANY = 100
TOLERANCE = 1e-6
COARSE = 2e-2  # the tolerance while only some axes are seen: what the next change need not be exact
PARTS = (6, 2, 1)  # of the axes, one level after the other
PLAIN = 12  # first steps without the curvature: far from the minimum it changes too quickly
OWN = 16  # rows of a class whose curvature is known one by one
OTHERS = 0.8  # fraction of the other rows' curvature; less than all, since classes divide it
RENEWED = 4  # iterations after which the curvature is taken again
GATHERED = 2**24  # numbers of gathered rows


def minimum(
    features: Floats,
    labels: npt.NDArray[np.int64],
    importance: Floats,
    classes: int,
    decay: float,
    start: Head | None,
) -> tuple[Head, bool]:
    """The head of the lowest loss, and whether it was reached.

    Args:
        features: [n, d], of mean zero and of one scale.
        labels: [n].
        importance: [n], weighs the rows.
        classes: c.
        decay: strength of the L2 penalty.
        start: a linear head to begin with; None begins with zeros.
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
        part = replace(whole, rows=np.ascontiguousarray(axes.turned[:, some]))
        newton = _Newton(part, axes.variances[some].astype(np.float32), plain)
        tolerance = TOLERANCE if seen == count else COARSE
        began = weights[:, some].reshape(1, -1)
        solved, reached = lbfgs.minimum(part, began, newton, tolerance, plain)
        weights[:, some] = solved.reshape(classes, -1)
    return Head(weights[:, 1:] @ axes.axes.T, weights[:, 0].copy()), reached


class _Newton:
    """Divides a gradient by an approximate Hessian, which is renewed every few iterations.

    The block of a class is a diagonal, from the penalty and the variances of the features, plus
    the outer products of its own rows; Woodbury's formula inverts it.
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
    """Each class's rows of the highest curvature [c, OWN], and that; 0 where it has fewer."""
    order = np.lexsort((-curvature, labels))
    starts = np.searchsorted(labels[order], np.arange(classes + 1))
    most = min(OWN, int(np.diff(starts).max()))
    places = starts[:-1, None] + np.arange(most)
    there = places < starts[1:, None]
    chosen = order[np.minimum(places, len(order) - 1)]
    return chosen, np.where(there, curvature[chosen], 0).astype(np.float32)

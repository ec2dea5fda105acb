"""The objective of a linear head for any of the losses: its value, gradient and curvature.

It is like scikit-learn's `LinearModelLoss`, but uses the rows' principal axes, and has a weight for
each row and cell. If the outputs have only the features in common, each is a problem of its own,
and many problems are evaluated at once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..tables.large import empty, mapped
from .head import Floats
from .losses import Loss

Array = npt.NDArray[Any]
Floats64 = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]

AT_ONCE = 2**21  # logits


@dataclass(frozen=True)
class Axes:
    """Rows on their principal axes, where the variances help to choose step sizes.

    `turned` is [n, r + 1]; its first column is all 1. `variances` [r + 1] has the variance of each
    column: 1 for the first, then in descending order. `axes` [d, r] rotates back.
    """

    turned: Floats
    variances: Floats64
    axes: Floats

    @classmethod
    def of(cls, features: Floats, weights: Floats) -> "Axes":
        """Compute the axes of features [n, d] with mean zero; there are at most n axes.

        Args:
            weights: [n], weights of the rows; they add up to 1.
        """
        weighted = empty(*features.shape)
        np.multiply(features, np.sqrt(weights)[:, None], out=weighted)
        if len(features) < features.shape[1]:
            values, vectors = np.linalg.eigh((weighted @ weighted.T).astype(np.float64))
            kept = values > 1e-6 * max(values[-1], 1e-300)
            values, vectors = values[kept], vectors[:, kept] / np.sqrt(values[kept])
            axes = weighted.T @ vectors.astype(np.float32)
        else:
            values, axes = np.linalg.eigh((weighted.T @ weighted).astype(np.float64))
        axes = np.ascontiguousarray(axes[:, ::-1], dtype=np.float32)
        del weighted
        turned = mapped(features, lambda some: with_ones(some @ axes))
        return cls(turned, np.append(1.0, np.maximum(values[::-1], 0)), axes)


def with_ones(features: Floats) -> Floats:
    """Return features [n, 1 + d] with a column of ones before the others."""
    rows = np.ones((len(features), 1 + features.shape[1]), np.float32)
    rows[:, 1:] = features
    return rows


@dataclass(frozen=True)
class LinearLoss:
    """The objectives of P problems: the weighted losses plus the penalty.

    The penalty is `decay / 2 * |weight|^2`; biases are not penalised. For `softmax` all outputs are
    one problem; for other losses each output is its own problem.

    Args:
        rows: [n, r + 1], the first column all 1.
        labels: [n, P], as `Loss.labels` returns them.
        importance: [n, P]; each column adds up to 1.
    """

    loss: Loss
    rows: Floats
    labels: Array
    importance: Floats
    decay: float

    def __call__(self, weights: Array, some: Positions) -> tuple[Floats64, Array]:
        """Return objectives [m] and gradients [m, p] of the problems `some` at `weights` [m, p].

        The p weights of a problem are the bias and the weights of each of its outputs in turn.
        """
        matrix = weights.reshape(-1, self.rows.shape[1])
        single = matrix.astype(np.float32).T
        heights, gradient = np.zeros(len(weights)), np.zeros_like(matrix)
        for part in self._chunks(len(matrix)):
            labels, importance = self.labels[part][:, some], self.importance[part][:, some]
            losses, slopes = self.loss.at(self.rows[part] @ single, labels)
            heights += np.einsum("np,np->p", losses, importance, dtype=np.float64)
            gradient += _weighed(slopes, importance).T @ self.rows[part]
        penalised = matrix[:, 1:]
        gradient[:, 1:] += matrix.dtype.type(self.decay) * penalised
        lengths = np.square(penalised).reshape(len(weights), -1).sum(axis=1)
        return heights + self.decay / 2 * lengths, gradient.reshape(weights.shape)

    def curvature(self, weights: Array, of_rows: Positions | None = None) -> tuple[Floats, Floats]:
        """Return the second derivatives of the losses by the logits at `weights` [P, p].

        Args:
            weights: the weights of all problems.
            of_rows: [n], one output for each row; None means the first output.

        Returns:
            the sum over all rows [c], and for each row the derivative of its output in `of_rows`
            [n].
        """
        matrix = weights.reshape(-1, self.rows.shape[1]).astype(np.float32)
        of_output, own = np.zeros(len(matrix), np.float32), np.zeros(len(self.rows), np.float32)
        of_rows = np.zeros(len(own), np.intp) if of_rows is None else of_rows
        for part in self._chunks(len(matrix)):
            labels, importance = self.labels[part], self.importance[part]
            _, slopes = self.loss.at(self.rows[part] @ matrix.T, labels)
            curves = _weighed(self.loss.curves(slopes, labels), importance)
            of_output += curves.sum(axis=0)
            own[part] = curves[np.arange(len(labels)), of_rows[part]]
        return of_output, own

    def _chunks(self, outputs: int) -> list[slice]:
        """Divide the rows into chunks, so that not all logits are in memory at once."""
        size = max(32, AT_ONCE // outputs)
        return [slice(start, start + size) for start in range(0, len(self.rows), size)]


def _weighed(slopes: Array, importance: Array) -> Array:
    """Multiply slopes [n, c], those of each problem in turn, by importance [n, P]."""
    each: Array = slopes.reshape(*importance.shape, -1) * importance[:, :, None]
    return each.reshape(slopes.shape)

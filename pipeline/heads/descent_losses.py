"""The losses of `losses` in PyTorch, to train a stack of heads or a network.

PyTorch computes the gradient. Logits are [S, b, M, c], for S seeds, b rows, M heads and c outputs.
`importance` is the weight of each row or cell: [S, b, 1] or [S, b, M] for classes, [S, b, 1, c] or
[S, b, M, c] for labels and targets. It is 0 for rows and cells that a head must not learn from.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss

from . import losses
from .head import Floats


@dataclass(frozen=True)
class Rows:
    """Rows on the device.

    `features` are [n, d]. `labels` are [n], or [n, c] with 0 where they are unknown. `importance`
    has the same shape; it combines class and row weights, and is 0 where a label is unknown.
    `spread` [c] is from `losses.spreads`, and empty for classes.
    """

    features: Tensor
    labels: Tensor
    importance: Tensor
    spread: Tensor

    @classmethod
    def of(
        cls,
        features: Floats,
        loss: str,
        labels: npt.NDArray[Any],
        class_weights: Floats,
        device: str | torch.device,
        weights: Floats | None = None,
    ) -> "Rows":
        """Create rows from the task's labels, or from targets in `losses.Units`.

        `weights` [n] are the row weights.
        """
        of = losses.LOSSES[loss]
        importance = of.importance(labels, class_weights, weights)
        spread = np.zeros(0)
        if labels.ndim == 1:
            importance = importance[:, 0]
        else:
            labels, spread = of.labels(labels).astype(np.float32), losses.spreads(labels)
        arrays = (features, labels, importance, spread)
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))


class Loss(Protocol):
    """The loss that the heads of a stack minimise."""

    sums: int

    def lowered(self, logits: Tensor, labels: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
        """Return a minibatch's mean loss [S, M], to be minimised, and the result of `measured`.

        Args:
            logits: [S, b, M, c]
            labels: [S, b], or [S, b, c]
            importance: the weights of the rows or cells
        """

    def measured(self, logits: Tensor, labels: Tensor, importance: Tensor) -> Tensor:
        """Return the summed loss and the summed scores, [sums, S, M]."""

    def means(self, totals: Tensor, rows: Rows) -> Tensor:
        """Return mean loss and accuracy (R²), [2, S, M], from totals; NaN without rows."""


class Softmax:
    """Cross-entropy of classes; the score is the number of correct rows."""

    sums = 2

    def __init__(self, smoothing: Tensor, class_weights: Tensor, mean_importance: Tensor) -> None:
        """Store what all minibatches share; the arguments are those of `loss_of`."""
        self.smoothing = smoothing[:, :, :, 0]
        self.class_weights = class_weights
        self.spread = class_weights / len(class_weights)
        self.has_smoothing = bool(smoothing.any())

    def lowered(self, logits: Tensor, labels: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss; label smoothing distributes a part of each row's loss to all classes.

        As in torch's `CrossEntropyLoss`, the weight of a class applies to its own share of that
        part, and the weight of the row's label does not. The row weight applies to the whole loss.
        """
        log_probabilities = logits.log_softmax(dim=-1)
        lost = _of_label(log_probabilities, labels)
        totals = _measured(lost.detach(), logits, labels, importance)
        weighed = lost * importance
        if self.has_smoothing:
            # Without row weights, the quotient is exactly 1.
            of_row = importance / self.class_weights[labels].unsqueeze(-1)
            of_all = -(log_probabilities @ self.spread) * of_row
            weighed = weighed * (1 - self.smoothing) + of_all * self.smoothing
        # In a small batch there may be no row that a head learns from.
        return weighed.sum(dim=1) / importance.sum(dim=1).clamp_min(1e-12), totals

    def measured(self, logits: Tensor, labels: Tensor, importance: Tensor) -> Tensor:
        """Return the summed loss and the number of correct rows."""
        return _measured(_of_label(logits.log_softmax(dim=-1), labels), logits, labels, importance)

    def means(self, totals: Tensor, rows: Rows) -> Tensor:
        """Return the weighted mean loss, and the accuracy."""
        return torch.stack([totals[0] / rows.importance.sum(), totals[1] / len(rows.labels)])


def _of_label(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each row, [S, b, M]."""
    at = labels[:, :, None, None].expand(*log_probabilities.shape[:3], 1)
    return -log_probabilities.gather(-1, at).squeeze(-1)


def _measured(lost: Tensor, logits: Tensor, labels: Tensor, importance: Tensor) -> Tensor:
    correct = logits.detach().argmax(dim=-1) == labels[:, :, None]
    return torch.stack([(lost * importance).sum(dim=1), correct.sum(dim=1)])


class Cells(Protocol):
    """The common part of the losses of multi-label tasks and of regression."""

    sums: int
    smoothing: Tensor
    mean_importance: Tensor

    def scores(self, outputs: int) -> int:
        """Return the number of scores."""

    def smoothed(self, wanted: Tensor) -> Tensor:
        """Return the labels after label smoothing."""

    def lost(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Return the loss of each cell."""

    def scored(self, logits: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
        """Return the summed scores, [scores, S, M]."""

    def __init__(self, smoothing: Tensor, class_weights: Tensor, mean_importance: Tensor) -> None:
        """Store what all minibatches share; the arguments are those of `loss_of`.

        The sum is divided by `mean_importance` and by the number of rows in the minibatch, not by
        the minibatch's own importance. The weight of a cell therefore does not depend on how many
        known cells are in its minibatch.
        """
        self.smoothing, self.mean_importance = smoothing, mean_importance.clamp_min(1e-12)
        self.sums = 1 + self.scores(mean_importance.shape[-1])

    def lowered(self, logits: Tensor, labels: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the outputs' mean losses, and the result of `measured`."""
        wanted = labels[:, :, None].expand_as(logits)
        totals = self.measured(logits.detach(), labels, importance)
        weights = importance / (self.mean_importance * labels.shape[1])
        return (self.lost(logits, self.smoothed(wanted)) * weights).sum(dim=(1, 3)), totals

    def measured(self, logits: Tensor, labels: Tensor, importance: Tensor) -> Tensor:
        """Return the summed loss and the summed scores."""
        wanted = labels[:, :, None].expand_as(logits)
        lost = (self.lost(logits, wanted) * importance).sum(dim=(1, 3))
        return torch.cat([lost[None], self.scored(logits, wanted, importance > 0)])


class Binary(Cells):
    """Binary cross-entropy of each label; the score is the number of correct cells."""

    def scores(self, outputs: int) -> int:
        """Return 1: all outputs share one score."""
        return 1

    def smoothed(self, wanted: Tensor) -> Tensor:
        """Return the labels after label smoothing, which moves them towards 1/2."""
        return wanted + self.smoothing * (0.5 - wanted)

    def lost(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Return the loss of each cell."""
        return binary_cross_entropy_with_logits(logits, wanted, reduction="none")

    def scored(self, logits: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
        """Return the number of correct cells, [1, S, M]."""
        return (((logits > 0) == (wanted > 0.5)) & known).sum(dim=(1, 3))[None]

    def means(self, totals: Tensor, rows: Rows) -> Tensor:
        """Return mean loss and accuracy over the known cells."""
        known = (rows.importance > 0).sum()
        return torch.stack([totals[0] / rows.importance.sum(), totals[1] / known])


class Squared(Cells):
    """Half the squared error of targets; each output's squared errors are a score."""

    def scores(self, outputs: int) -> int:
        """Return the number of outputs, each of which has its own score."""
        return outputs

    def smoothed(self, wanted: Tensor) -> Tensor:
        """Return the targets, which are not smoothed."""
        return wanted

    def lost(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Return the loss of each cell."""
        return (logits - wanted).square() / 2

    def scored(self, logits: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
        """Return the summed squared errors of each output, [c, S, M]."""
        return ((logits - wanted).square() * known).sum(dim=1).movedim(-1, 0)

    def means(self, totals: Tensor, rows: Rows) -> Tensor:
        """Return the mean loss over the known cells, and R²."""
        varying = rows.spread > 0
        unexplained = totals[1:][varying] / rows.spread[varying, None, None]
        return torch.stack([totals[0] / rows.importance.sum(), 1 - unexplained.mean(dim=0)])


class Huber(Squared):
    """Half the squared error up to an error of 1, and linear beyond."""

    def lost(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Return the loss of each cell."""
        return huber_loss(logits, wanted, reduction="none")


def loss_of(name: str, smoothing: Tensor, class_weights: Floats, mean_importance: Tensor) -> Loss:
    """Return the loss to minimise.

    Args:
        name: one of `losses.LOSSES`.
        smoothing: [1, 1, M, 1], the label smoothing of each head.
        class_weights: [c] for classes.
        mean_importance: [c] or [M, c], the mean over an output's cells in the training rows; not
            used for classes.
    """
    weights = torch.from_numpy(class_weights).to(smoothing.device)
    loss: Loss = LOSSES[name](smoothing, weights, mean_importance)
    return loss


LOSSES: dict[str, type[Softmax | Binary | Squared]] = {
    "softmax": Softmax,
    "binary": Binary,
    "squared": Squared,
    "huber": Huber,
}


def cells(rows: Rows, some: Tensor, part: Tensor, values: Tensor) -> Tensor:
    """Return the weight of the cells of the rows `some` [1, b] for each head, [1, b, M, c].

    Args:
        rows: n rows.
        some: positions of rows.
        part: [n, M], the weight of each row for each head.
        values: [M, c, 2], for each head the weight of an output's labels of 0 and of 1.
    """
    of_0, of_1 = values.unbind(dim=-1)
    known = (rows.importance[some] > 0).unsqueeze(2)
    weights = of_0 + (of_1 - of_0) * rows.labels[some].unsqueeze(2)
    return part[some].unsqueeze(-1) * known * weights


def mean_cells(rows: Rows, part: Tensor, values: Tensor) -> Tensor:
    """Return the mean over all rows of the weights from `cells`, [M, c]."""
    known = (rows.importance > 0).to(part.dtype)
    of_0, of_1 = values.unbind(dim=-1)
    both, of_label = part.T @ known, part.T @ (known * rows.labels)
    return (of_0 * both + (of_1 - of_0) * of_label) / len(part)

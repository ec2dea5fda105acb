"""What a batch's answers cost, by the loss, and the running figures of an epoch."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..heads.losses import LOSSES, spreads


class Objective:
    """Lowers the loss of batches, and sums up what an epoch's figures are made of."""

    def __init__(self, loss: str, class_weights: Tensor, labels: npt.NDArray[np.generic]) -> None:
        """Begin an epoch.

        Args:
            loss: one of `heads.losses.LOSSES`.
            class_weights: [c], or [c, 2] of several labels.
            labels: of all examples that the epoch passes over.
        """
        self.loss, self.class_weights, self.count = loss, class_weights, len(labels)
        self.total, self.score, self.weight = (
            torch.zeros((), device=class_weights.device) for _ in range(3)
        )
        self.shares = torch.zeros(0)
        if loss == "binary":
            self.count = int((~np.isnan(labels.astype(np.float64))).sum())
        if LOSSES[loss].of_numbers:
            spread = spreads(labels.astype(np.float64))
            varying = spread > 0
            shares = np.where(varying, 1 / np.where(varying, spread, 1), 0) / max(varying.sum(), 1)
            self.shares = torch.from_numpy(shares).to(class_weights)

    def lowered(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, to go down along: [] of logits [b, c] and labels [b] or [b, c].

        Of labels and numbers it is the sum over the outputs of their mean loss over the batch.
        """
        if self.loss == "softmax":
            loss = nn.functional.cross_entropy(logits, labels, self.class_weights)
            importance = self.class_weights[labels].sum()
            self.total += loss.detach() * importance
            self.weight += importance
            self.score += (logits.detach().argmax(dim=1) == labels).sum()
            return loss
        known = ~labels.isnan()
        wanted = labels.nan_to_num().to(logits.dtype)
        if self.loss == "binary":
            entropy = nn.functional.binary_cross_entropy_with_logits
            cells = entropy(logits, wanted, reduction="none")
        else:
            huber = nn.functional.huber_loss
            squared = (logits - wanted).square() / 2
            cells = squared if self.loss == "squared" else huber(logits, wanted, reduction="none")
        weights = self._weights(wanted) * known
        weighted = cells * weights
        self.total += weighted.detach().sum()
        self.weight += weights.sum()
        given = logits.detach()
        if self.loss == "binary":
            self.score += (((given > 0) == (wanted > 0.5)) & known).sum()
        else:
            self.score += (((given - wanted).square() * known).sum(dim=0) * self.shares).sum()
        return weighted.sum() / len(labels)

    def _weights(self, wanted: Tensor) -> Tensor:
        """How much each cell counts, [b, c]."""
        if self.class_weights.ndim == 1:
            return self.class_weights.expand_as(wanted)
        return torch.where(wanted > 0.5, self.class_weights[:, 1], self.class_weights[:, 0])

    def figures(self) -> tuple[float, float]:
        """Mean loss and accuracy (R² of numbers) over the epoch, as the batches were met."""
        loss = float(self.total / self.weight)
        if LOSSES[self.loss].of_numbers:
            return loss, 1 - float(self.score) if bool(self.shares.any()) else float("nan")
        return loss, float(self.score) / self.count

"""The loss of a batch, and the running figures of an epoch."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..heads.descent_losses import Rows, loss_of
from ..heads.head import Floats


class Objective:
    """Lowers the loss of batches, and sums up what an epoch's figures are made of."""

    def __init__(
        self, loss: str, class_weights: Floats, labels: npt.NDArray[Any], device: torch.device
    ) -> None:
        """Begin an epoch.

        Args:
            loss: one of `heads.losses.LOSSES`.
            class_weights: [c], or [c, 2] of several labels.
            labels: of all examples that the epoch passes over.
            device: of the logits.
        """
        none = np.empty((len(labels), 0), np.float32)
        self.rows = Rows.of(none, loss, labels, class_weights, device)
        smoothing = torch.zeros(1, 1, 1, 1, device=device)
        mean_importance = torch.ones(len(class_weights), device=device)
        self.loss = loss_of(loss, smoothing, class_weights, mean_importance)
        self.totals = torch.zeros(self.loss.sums, 1, 1, device=device)

    def lowered(self, logits: Tensor, some: Tensor) -> Tensor:
        """The loss of a batch, to go down along: [] of logits [b, c] of the examples `some` [b].

        For several labels and for targets it is the sum of the outputs' mean losses over the batch.
        """
        labels, importance = self.rows.labels[some], self.rows.importance[some]
        given = logits[None, :, None], labels[None], importance[None].unsqueeze(2)
        lowered, totals = self.loss.lowered(*given)
        self.totals += totals
        return lowered.squeeze()

    def figures(self) -> tuple[float, float]:
        """Mean loss and accuracy (R² in regression) over the epoch, as the batches were met."""
        loss, score = self.loss.means(self.totals.double(), self.rows).flatten().tolist()
        return loss, score

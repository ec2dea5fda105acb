"""The loss of a batch, and the running metrics of an epoch."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..heads.descent_losses import Rows, loss_of
from ..heads.head import Floats


class Objective:
    """Computes the loss of batches, and adds up the metrics of an epoch."""

    def __init__(
        self, loss: str, class_weights: Floats, labels: npt.NDArray[Any], device: torch.device
    ) -> None:
        """Begin an epoch.

        Args:
            loss: one of `heads.losses.LOSSES`.
            class_weights: [c], or [c, 2] in multi-label tasks.
            labels: labels of all examples of the epoch.
        """
        none = np.empty((len(labels), 0), np.float32)
        self.rows = Rows.of(none, loss, labels, class_weights, device)
        smoothing = torch.zeros(1, 1, 1, 1, device=device)
        mean_importance = torch.ones(len(class_weights), device=device)
        self.loss = loss_of(loss, smoothing, class_weights, mean_importance)
        self.totals = torch.zeros(self.loss.sums, 1, 1, device=device)

    def lowered(self, logits: Tensor, some: Tensor) -> Tensor:
        """Return the loss [] to minimise, for logits [b, c] of the examples `some` [b].

        In multi-label tasks and regression the loss is the sum over outputs of the batch's mean
        loss.
        """
        labels, importance = self.rows.labels[some], self.rows.importance[some]
        given = logits[None, :, None], labels[None], importance[None].unsqueeze(2)
        lowered, totals = self.loss.lowered(*given)
        self.totals += totals
        return lowered.squeeze()

    def figures(self) -> tuple[float, float]:
        """Return mean loss and accuracy (R² in regression) over the batches of the epoch."""
        loss, score = self.loss.means(self.totals.double(), self.rows).flatten().tolist()
        return loss, score

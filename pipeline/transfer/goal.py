"""The training goal of a network: task, loss, and units of regression targets."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..heads.head import Head
from ..heads.losses import LOSSES, Units, loss_for
from ..tasks import UNNAMED


@dataclass(frozen=True)
class Goal:
    """The task, a loss of `heads.losses.LOSSES`, and in regression the units of the targets.

    A network learns targets in these units, as a head does, so learning rates do not depend on the
    targets' own units. Its head is saved in the targets' own units.
    """

    task: str
    loss: str
    units: Units | None = None

    @classmethod
    def of(cls, task: str, of_numbers: str, labels: npt.NDArray[Any]) -> "Goal":
        """Return the goal for training examples with these labels, [n] or [n, c].

        Args:
            of_numbers: the name of the loss in regression.
            labels: labels, or targets in their own units.
        """
        loss = loss_for(task, of_numbers)
        return cls(task, loss, Units.of(loss, labels) if LOSSES[loss].of_numbers else None)

    def labels(self, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the labels in the units in which they are learned."""
        return labels if self.units is None else self.units.learned(labels)

    def entered(self, head: Head) -> Head:
        """Convert a head from the targets' own units to the units of training."""
        if self.units is None:
            return head
        unit = self.units.unit
        weight = (head.weight / unit[:, None]).astype(np.float32)
        bias = ((head.bias - self.units.centre) / unit).astype(np.float32)
        return replace(head, weight=weight, bias=bias)

    def left(self, head: Head) -> Head:
        """Convert a head from the units of training to the targets' own units."""
        return head if self.units is None else self.units.undone(head)


CLASSES = Goal(UNNAMED, "softmax")

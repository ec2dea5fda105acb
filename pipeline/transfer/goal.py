"""What a network learns: the task, its loss, and the units that targets are learned in."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..heads.head import Head
from ..heads.losses import LOSSES, Units, loss_for
from ..tasks import UNNAMED


@dataclass(frozen=True)
class Goal:
    """The task, one of `heads.losses.LOSSES`, and in regression the units of the training examples.

    A network learns targets in these units, as a head does, so that a learning rate means the same
    whatever they are measured in. Its head is saved in the targets' own.
    """

    task: str
    loss: str
    units: Units | None = None

    @classmethod
    def of(cls, task: str, of_numbers: str, labels: npt.NDArray[Any]) -> "Goal":
        """The goal for training examples with these labels, [n] or [n, c].

        Args:
            task: of the manifest.
            of_numbers: the loss of a regression.
            labels: in their own units.
        """
        loss = loss_for(task, of_numbers)
        return cls(task, loss, Units.of(loss, labels) if LOSSES[loss].of_numbers else None)

    def labels(self, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Labels as they are learned."""
        return labels if self.units is None else self.units.learned(labels)

    def entered(self, head: Head) -> Head:
        """The head in the units of training, from one that answers in the targets' own units."""
        if self.units is None:
            return head
        unit = self.units.unit
        weight = (head.weight / unit[:, None]).astype(np.float32)
        bias = ((head.bias - self.units.centre) / unit).astype(np.float32)
        return replace(head, weight=weight, bias=bias)

    def left(self, head: Head) -> Head:
        """The other way round."""
        return head if self.units is None else self.units.undone(head)


CLASSES = Goal(UNNAMED, "softmax")

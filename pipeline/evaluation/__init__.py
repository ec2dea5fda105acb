"""Evaluation of predictions: metrics with intervals, by group and by slice, and comparisons.

This subpackage has what tasks share, and the metrics and tables of classification. The module
`measuring` of a task's folder evaluates its predictions. Stages import that module, and the code
that draws plots and writes tables, only when they need it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from ..tasks import TASKS, Measure, part

if TYPE_CHECKING:  # slow to import
    import pandas as pd

    from ..core.params import EvaluateParams
    from ..tables.features import Split
    from .answered import Pair
    from .metrics import Weigh

Array = npt.NDArray[np.float64]


SHARE = Measure()
MEASURES = {name: means for task in TASKS.values() for name, means in task.measures.items()}


def measure(name: str) -> Measure:
    """Return the meaning of a metric; by default a fraction for which higher is better."""
    return MEASURES.get(name, SHARE)


def spelt(name: str) -> str:
    """Return the display name of a metric."""
    return measure(name).words or name.replace("_", " ").replace("f1", "F1")


def figure(name: str, value: float) -> str:
    """Format the value of a metric for display."""
    return f"{value:.4g}" if measure(name).has_unit else f"{value:.4f}"


@dataclass(frozen=True)
class Asked:
    """The n test examples, and a head's predictions for them.

    `names` [c] are the names of the head's outputs. `answers` [n, c] are probabilities, or in
    regression predictions in the targets' own units. `thresholds` [c] are set in multi-label tasks,
    and for classes that were weighted in training (`head.against_thresholds`). `slices` has one row
    per example, with the columns of the user's table. `reach` [c] is the half-width of each
    target's prediction interval; it is empty if there are no intervals. `groups` [n] is the group
    of each example; None if each is its own group.
    """

    test: "Split"
    names: list[str]
    answers: Array
    thresholds: Sequence[float]
    slices: "pd.DataFrame"
    settings: "EvaluateParams"
    reach: Sequence[float] = ()
    groups: "npt.NDArray[np.int64] | None" = None


class Measuring(Protocol):
    """The evaluation of a task's predictions."""

    shown: tuple[str, ...]  # the printed metrics; the first is printed for repeats too
    needs: str  # what the training examples of a split must have, in words

    def learnable(self, training: npt.NDArray[Any], every: npt.NDArray[Any]) -> bool:
        """Return whether a split's training examples have what the task `needs`.

        Args:
            training: labels or targets of the training examples, as in `Split.labels`.
            every: labels or targets of all examples.
        """

    def weigh(
        self,
        labels: npt.NDArray[Any],
        answers: Array,
        thresholds: Sequence[float],
        settings: "EvaluateParams",
    ) -> "Weigh":
        """Return the function from example weights to the metrics of `answers` [n, c]."""

    def proportions(self, asked: Asked) -> dict[str, Array]:
        """Return the proportions: for each example 1, 0, or NaN if it does not count."""

    def warnings(self, asked: Asked) -> list[str]:
        """Return warnings about the test examples for readers of the metrics, one sentence each."""

    def classes(self, asked: Asked) -> "pd.DataFrame":
        """Return the columns before the metrics in the table of classes, labels or targets."""

    def predictions(self, asked: Asked) -> "pd.DataFrame":
        """Return one row per example, sorted by path."""

    def slices(self, asked: Asked) -> "pd.DataFrame":
        """Return one row per slice, as `slices.py` compares them."""

    def paired(
        self, old: "pd.DataFrame", new: "pd.DataFrame", measure: str, bins: int
    ) -> "Pair | None":
        """Return the predictions of two models for the same examples, in the same order.

        Args:
            old: predictions, as `answered.read_answers` returns them.
            new: predictions of the other model; their labels or targets are used as the truth.

        Returns:
            None if the metric cannot be computed from the predictions.
        """

    def plots(self, asked: Asked, folder: Path) -> dict[str, "pd.DataFrame"]:
        """Save pictures in the folder, and return the tables to save there, by file name."""


def measuring(name: str) -> Measuring:
    """Return the task's implementation of `Measuring`."""
    return cast(Measuring, part(name, "measuring"))

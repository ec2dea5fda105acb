"""How answers are measured: metrics with intervals, by group and by slice, and comparisons.

What tasks have in common lies here. What one measures is the part `measuring` of its folder, which
is imported when it is needed, and in it what draws and writes tables, so that a stage imports no
more than it needs.
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
    """The meaning of the measure of that name; by default a fraction of which more is better."""
    return MEASURES.get(name, SHARE)


def spelt(name: str) -> str:
    """A measure's name, for people."""
    return measure(name).words or name.replace("_", " ").replace("f1", "F1")


def figure(name: str, value: float) -> str:
    """A measure's value, for people."""
    return f"{value:.4g}" if measure(name).has_unit else f"{value:.4f}"


@dataclass(frozen=True)
class Asked:
    """The n test examples, and what a head answered about them.

    `names` [c] are what its outputs stand for, `answers` [n, c] are probabilities, or predictions
    in the targets' own units. `thresholds` [c] are there for several labels, and for classes that
    were weighed in training (`head.against_thresholds`). `slices` has one row per example, with the
    columns of the user's table. `reach` [c] is the half-width of each target's prediction interval;
    empty if there is none. `groups` [n] is the group of each example; None if each is one of its
    own.
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
    """How a task measures answers."""

    shown: tuple[str, ...]  # the printed measures; the first is printed for repeats too
    needs: str  # what a split needs among its training examples, in words

    def learnable(self, training: npt.NDArray[Any], every: npt.NDArray[Any]) -> bool:
        """Whether a split's training examples have what it `needs`.

        Args:
            training: what is to be learned of them, as `Split.labels`.
            every: the same of all examples.
        """

    def weigh(
        self,
        labels: npt.NDArray[Any],
        answers: Array,
        thresholds: Sequence[float],
        settings: "EvaluateParams",
    ) -> "Weigh":
        """The measures of answers [n, c], ready to be computed for weightings of the examples."""

    def proportions(self, asked: Asked) -> dict[str, Array]:
        """The measures that are proportions: for each example 1, 0, or NaN if it does not count."""

    def warnings(self, asked: Asked) -> list[str]:
        """Notes about the test examples for readers of the metrics, one sentence each."""

    def classes(self, asked: Asked) -> dict[str, Any]:
        """The first columns of the table of classes, labels or targets; the measures follow."""

    def predictions(self, asked: Asked) -> "pd.DataFrame":
        """One row per example, by path."""

    def slices(self, asked: Asked) -> "pd.DataFrame":
        """One row per slice, as `slices.py` compares them."""

    def paired(
        self, old: "pd.DataFrame", new: "pd.DataFrame", measure: str, bins: int
    ) -> "Pair | None":
        """The answers of two models about the same examples, in the same order.

        Args:
            old: as `answered.read_answers` gives them.
            new: those of the other model, whose labels or targets are taken as the truth.
            measure: the measure to compare them by.
            bins: of the calibration error.

        Returns:
            None if the measure cannot be computed from the answers.
        """

    def plots(self, asked: Asked, folder: Path) -> dict[str, "pd.DataFrame"]:
        """Draw pictures into the folder; the tables that belong beside them, by file name."""


def measuring(name: str) -> Measuring:
    """The task's own measures."""
    return cast(Measuring, part(name, "measuring"))

"""The classifier's prediction for an example, which a task makes from the graph's output.

Each task implements `Answering` in its own `answer.py`. `replies.py` has the replies of a server.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from ..heads.sets import PredictionSets
from ..kinds import Shown
from ..tasks import part

Floats = npt.NDArray[np.float32]
Row = dict[str, Any]
# The cells printed before the path: the table's header for None, dashes for an empty row.
Cells = Callable[[Row | None], str]


@dataclass(frozen=True)
class Outputs:
    """The names of a head's outputs, and how to interpret them.

    `thresholds` has one value per label, or per class if training weighted the classes. `sets` is
    None if the bundle has no coverage.
    """

    names: list[str]
    thresholds: Sequence[float] = ()
    sets: PredictionSets | None = None


@dataclass(frozen=True)
class Neighbour:
    """A training example similar to the query; a `cosine` of 1 means the same direction.

    `number` is its position in the bundle's list. `path` is empty if the bundle has no paths.
    """

    path: str
    label: str
    cosine: float
    number: int


@dataclass(frozen=True)
class Answer:
    """The classifier's prediction for an example.

    `probabilities` [classes] are calibrated, and empty in regression. `best` is the position of the
    predicted class. This is the most probable class, unless training weighted the classes
    (`head.against_thresholds`). In multi-label tasks it is the most probable label.

    `heat` and `neighbours` are set only on request. `heat` shows which part of the example is
    evidence for `best` or, in regression, raises the first target. It is None if the backbone has
    no maps and the kind has no parts to hide. `neighbours` are the nearest training examples.

    `labels` is the predicted class or, in multi-label tasks, all labels whose probability reaches
    their threshold, in the order of the classes. `numbers` [targets] are the predictions in
    regression, in the units of the targets.

    `distance` is the distance to the training examples (`novelty.py`), and `unusual` whether it
    exceeds the threshold of novelty detection. Both are None if the bundle detects no novelty, and
    `unusual` also if there were too few examples to set the threshold. `likely` is the prediction
    set, the predicted class first. `interval` [targets, 2] has the prediction intervals. Without
    coverage `likely` is empty and `interval` None.
    """

    probabilities: Floats
    best: int
    heat: Shown | None = None
    neighbours: tuple[Neighbour, ...] = ()
    labels: tuple[str, ...] = ()
    numbers: Floats | None = None
    distance: float | None = None
    unusual: bool | None = None
    likely: tuple[str, ...] = ()
    interval: npt.NDArray[np.float64] | None = None


class Answering(Protocol):
    """The predictions of a task."""

    def answer(self, output: Floats, outputs: Outputs) -> Answer:
        """Make the answer from the graph's output [c], without an explanation."""

    def columns(self, outputs: Outputs) -> list[str]:
        """Return the columns of a table of predictions, in order."""

    def row(self, answer: Answer, outputs: Outputs) -> list[Any]:
        """Return the values of these columns."""

    def cells(self, names: list[str]) -> Cells:
        """Return a function that formats a row for people, in columns of fixed width."""


def of_task(task: str) -> Answering:
    """Return the task's implementation of `Answering`."""
    return cast(Answering, part(task, "answer"))


def intervals(answer: Answer, names: list[str]) -> dict[str, tuple[float, float]]:
    """Return the ends of each target's interval, by name; empty without coverage."""
    if answer.interval is None:
        return {}
    ends = (rounded(one) for one in answer.interval)
    return {name: (low, high) for name, (low, high) in zip(names, ends, strict=True)}


def rounded(numbers: npt.NDArray[np.floating]) -> list[float]:
    """Round numbers to the seven digits that a float32 has, for people to read."""
    return [float(f"{number:.7g}") for number in numbers]

"""What an answer is, and how a task makes it from the output of a bundle's graph.

How it looks is the part `answer` of the task's folder; `replies.py` has what a server sends.
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
# The cells printed before the path: for None the table's head, for an empty row dashes.
Cells = Callable[[Row | None], str]


@dataclass(frozen=True)
class Outputs:
    """The names of a head's outputs, and how they are read.

    `thresholds` are those of labels, or of classes that were weighed in training. `sets` are None
    if the bundle has no coverage.
    """

    names: list[str]
    thresholds: Sequence[float] = ()
    sets: PredictionSets | None = None


@dataclass(frozen=True)
class Neighbour:
    """A training example similar to the query; a `cosine` of 1 is the same direction.

    `number` is its position in the bundle's list. The path is empty if the bundle names none.
    """

    path: str
    label: str
    cosine: float
    number: int


@dataclass(frozen=True)
class Answer:
    """The classifier's answer about an example.

    `probabilities` [classes] are calibrated; a regression has none. `best` is the position of the
    class that is answered. It is the most probable one, unless classes were weighed in training
    (`head.against_thresholds`). With several labels it is the most probable label.

    `heat` and `neighbours` are there if they were requested. `heat` shows which part of the example
    speaks for `best`, or raises the first target. It is None if there is nothing to make it from:
    no maps, and no parts to hide. `neighbours` are the nearest training examples.

    `labels` are the class that is answered, or those of several labels whose probability reaches
    their threshold, in the order of the classes. `numbers` [targets] are the predictions of a
    regression, in the targets' own units.

    `distance` is the one to the training examples (`novelty.py`), and `unusual` whether it is
    beyond the threshold of novelty detection. Both are None if the bundle detects no novelty.
    `likely` is the prediction set, the most probable class first, and `interval` [targets, 2] the
    prediction intervals. They are empty and None if the bundle has no coverage.
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
    """The form of a task's answers."""

    def answer(self, output: Floats, outputs: Outputs) -> Answer:
        """The answer, of what the graph says [c]; without what explains it."""

    def columns(self, outputs: Outputs) -> list[str]:
        """The columns of a table of answers, in order."""

    def row(self, answer: Answer, outputs: Outputs) -> list[Any]:
        """The values of those columns."""

    def cells(self, names: list[str]) -> Cells:
        """A row for people, in columns of a fixed width."""


def of_task(task: str) -> Answering:
    """The task's own form of answers."""
    return cast(Answering, part(task, "answer"))


def intervals(answer: Answer, names: list[str]) -> dict[str, tuple[float, float]]:
    """The ends of each target's interval, by name; empty without a coverage."""
    if answer.interval is None:
        return {}
    ends = (rounded(one) for one in answer.interval)
    return {name: (low, high) for name, (low, high) in zip(names, ends, strict=True)}


def rounded(numbers: npt.NDArray[np.floating]) -> list[float]:
    """Numbers as people read them: a float32 has seven digits."""
    return [float(f"{number:.7g}") for number in numbers]

"""A trained bundle, opened: what `headstart.load` returns, and its answers."""

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline import tasks
from pipeline.core import errors
from pipeline.serving import answering
from pipeline.serving import classifier as rooms
from pipeline.serving import predict as predicting

from . import examples as given
from .examples import Example, Given

Answer = TypeVar("Answer")


@dataclass(frozen=True, repr=False)
class Prediction:
    """What a model says of one example, or why the example was refused.

    `error` is the reason for a refusal, else None. Everything else of a refused example raises
    `RefusedError` with that reason, so that no refusal is overlooked. What has no meaning for the
    model's task raises `ParamsError`.
    """

    path: str | None  # None for an example that was given as bytes or as an array
    error: str | None = None
    _shares: dict[str, float] = field(default_factory=dict)
    _task: str = tasks.UNNAMED
    _labels: tuple[str, ...] = ()
    _numbers: dict[str, float] = field(default_factory=dict)
    distance: float | None = None  # to the training examples, from 0 to 2; None: not known
    unusual: bool | None = None  # unlike anything in training; None: not known
    # The prediction set, the most probable class first; empty if the bundle has none.
    likely: tuple[str, ...] = ()
    # Prediction intervals of regression: their ends, by name.
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The class, if the task is classification.

        It is the most probable one, unless classes were weighed in training (docs/learning.md).
        """
        self._require("label")
        return self._labels[0]

    @property
    def probability(self) -> float:
        """The calibrated probability of that class."""
        self._require("probability")
        return self._shares[self.label]

    @property
    def probabilities(self) -> dict[str, float]:
        """The one of every class or label, in the order of `Model.classes`; classes add up to 1."""
        self._require("probabilities")
        return dict(self._shares)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels whose probability reaches their threshold; for classification the class."""
        self._require("labels")
        return self._labels

    @property
    def numbers(self) -> dict[str, float]:
        """The answers of a regression by name, in the units of the training data."""
        self._require("numbers")
        return dict(self._numbers)

    def _require(self, asked: str) -> None:
        """Stop if there is no answer, or none of this form."""
        if self.error is not None:
            name = f"{self.path}: " if self.path else ""
            raise errors.RefusedError(name + self.error)
        answers = tasks.TASKS[self._task].answers
        if asked not in answers:
            raise errors.ParamsError(
                f"the task is {self._task}, which has no {asked}; ask for {' or '.join(answers)}"
            )

    def __repr__(self) -> str:
        if self.error is not None:
            return f"Prediction(path={self.path!r}, error={self.error!r})"
        answers = tasks.TASKS[self._task].answers
        if "numbers" in answers:
            said = ", ".join(f"{name}={value:g}" for name, value in self._numbers.items())
        elif "label" not in answers:
            said = f"labels={self._labels!r}"
        else:
            said = f"label={self.label!r}, probability={self.probability:.4f}"
        return f"Prediction(path={self.path!r}, {said})"


@dataclass(frozen=True)
class Neighbour:
    """A training example like the one asked about; a `cosine` of 1 is the same direction.

    The path is empty if the bundle names none (docs/privacy.md).
    """

    path: str
    label: str
    cosine: float


class Model:
    """A bundle in memory. Any number of threads may use it at once.

    If many examples are given, each core takes whole ones, from decoding to answer.
    """

    def __init__(self, bundle: str | os.PathLike[str]) -> None:
        """As `headstart.load`."""
        self._classifier = rooms.Classifier(Path(bundle))
        self._first = threading.Lock()  # one thread reads what explanations need

    @property
    def classes(self) -> list[str]:
        """The labels, in the order of every answer's probabilities; or the names of its numbers."""
        return list(self._classifier.classes)

    @property
    def task(self) -> str:
        """What it was trained for: classification, multilabel or regression."""
        return self._classifier.task

    @property
    def about(self) -> dict[str, Any]:
        """The content of `bundle.json`: backbone, head, metrics, versions of data and libraries."""
        return self._classifier.bundle.content()

    def __repr__(self) -> str:
        backbone = self._classifier.bundle.backbone.name
        counted = tasks.TASKS[self.task].counted(len(self.classes))
        return f"<headstart.Model: {counted} on {backbone}>"

    def predict(self, examples: Example | Iterable[Example]) -> list[Prediction]:
        """A prediction for each example, in order; a refused one has its `error`."""

        def ask(example: Given) -> Prediction:
            try:
                answer = self._read(example, self._classifier.answer)
            except errors.RefusedError as error:
                return Prediction(example.path, str(error))
            names, task = self._classifier.classes, self._classifier.task
            novelty = answer.distance, answer.unusual
            if answer.numbers is not None:
                numbers = zip(names, answering.rounded(answer.numbers), strict=True)
                promised = answering.intervals(answer, names)
                return Prediction(
                    example.path, None, {}, task, (), dict(numbers), *novelty, (), promised
                )
            shares = zip(names, map(float, answer.probabilities), strict=True)
            return Prediction(
                example.path, None, dict(shares), task, answer.labels, {}, *novelty, answer.likely
            )

        return self._each(examples, ask)

    def embed(self, examples: Example | Iterable[Example]) -> NDArray[np.float32]:
        """The features of each example, float32 [examples, dimension], as the head sees them.

        Raises:
            RefusedError: an example is not taken; the text names it and the reason.
        """

        def ask(example: Given) -> NDArray[np.float32]:
            try:
                return self._read(example, self._classifier.features)
            except errors.RefusedError as error:
                raise errors.RefusedError(f"{example.name}: {error}") from None

        found = self._each(examples, ask)
        dimension = self._classifier.bundle.backbone.dimension
        return np.stack(found) if found else np.empty((0, dimension), np.float32)

    def explain(self, example: Example) -> bytes:
        """Where the most probable class is seen: the picture under its heat map, as a PNG.

        With several labels it is the most probable one, for regression what raises the first
        target.

        Raises:
            RefusedError: the example is not taken.
            ParamsError: nothing shows it, as for a vector.
        """
        if not self._classifier.explains:
            raise errors.ParamsError(predicting.no_explanation(self._classifier))
        heat = self._reasons(example, heat=True).heat
        assert heat is not None  # noqa: S101 (it explains)
        return heat.data

    def neighbours(self, example: Example, k: int = 3) -> list[Neighbour]:
        """The `k` training examples most like this one, the nearest first.

        Raises:
            RefusedError: the example is not taken.
            ParamsError: `k` is below 1.
        """
        if k < 1:
            raise errors.ParamsError(f"k is {k}; it should be 1 or more")
        found = self._reasons(example, neighbours=k).neighbours
        return [Neighbour(one.path, one.label, one.cosine) for one in found]

    def _reasons(
        self, example: Example, heat: bool = False, neighbours: int = 0
    ) -> answering.Answer:
        with self._first:
            self._classifier.read_reasons()
        data = given.one(example, self._classifier.kind)
        return self._classifier.answer(data, heat, neighbours)

    def _read(self, example: Given, ask: Callable[[bytes], Answer]) -> Answer:
        with self._classifier.kind.alone(Path(example.path or "")):
            return ask(example.load())

    def _each(
        self, examples: Example | Iterable[Example], ask: Callable[[Given], Answer]
    ) -> list[Answer]:
        listed = given.listed(examples, self._classifier.kind)
        cores = os.cpu_count() or 1
        with ThreadPoolExecutor(cores) as pool:
            return list(predicting.in_order(pool, ask, listed, ahead=4 * cores))

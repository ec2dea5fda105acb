"""A trained bundle in memory, which `headstart.load` returns, and its predictions."""

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
    """A model's prediction for one example, or the reason why the example was refused.

    `error` is the reason for a refusal, else None. Every other property of a refused example raises
    `RefusedError` with that reason, so that no refusal is overlooked. A property that has no
    meaning for the model's task raises `ParamsError`.
    """

    path: str | None  # None for an example that was passed as bytes or as an array
    error: str | None = None
    _shares: dict[str, float] = field(default_factory=dict)
    _task: str = tasks.UNNAMED
    _labels: tuple[str, ...] = ()
    _numbers: dict[str, float] = field(default_factory=dict)
    distance: float | None = None  # to the training examples, from 0 to 2; None: unknown
    unusual: bool | None = None  # novelty detection: unlike all training examples; None: unknown
    # The prediction set, the most probable class first; empty if the bundle has no sets.
    likely: tuple[str, ...] = ()
    # Prediction intervals in regression: their ends, by target.
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The class, if the task is classification.

        It is the most probable class, unless training used class weights (docs/learning.md).
        """
        self._require("label")
        return self._labels[0]

    @property
    def probability(self) -> float:
        """The calibrated probability of `label`."""
        self._require("probability")
        return self._shares[self.label]

    @property
    def probabilities(self) -> dict[str, float]:
        """The probabilities of all classes (which sum to 1) or labels, ordered as `classes`."""
        self._require("probabilities")
        return dict(self._shares)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels whose probability reaches their threshold; in classification the class."""
        self._require("labels")
        return self._labels

    @property
    def numbers(self) -> dict[str, float]:
        """The predictions of a regression by target, in the units of the training data."""
        self._require("numbers")
        return dict(self._numbers)

    def _require(self, asked: str) -> None:
        """Raise an error if there is no prediction, or if the task has none of this form."""
        if self.error is not None:
            name = f"{self.path}: " if self.path else ""
            raise errors.RefusedError(name + self.error)
        answers = tasks.TASKS[self._task].answers
        if asked not in answers:
            raise errors.ParamsError(
                f"the task is {self._task}, which has no {asked}; use {' or '.join(answers)}"
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
    """A training example similar to the given one; a `cosine` of 1 means the same direction.

    The path is empty if the bundle does not have it (docs/privacy.md).
    """

    path: str
    label: str
    cosine: float


class Model:
    """A bundle in memory. Any number of threads may use it at once.

    If many examples are passed, each core processes whole examples, from decoding to prediction.
    """

    def __init__(self, bundle: str | os.PathLike[str]) -> None:
        """Open the bundle, as `headstart.load` does."""
        self._classifier = rooms.Classifier(Path(bundle))
        self._first = threading.Lock()  # only one thread loads the data for explanations

    @property
    def classes(self) -> list[str]:
        """The classes or labels, in the order of the probabilities; in regression the targets."""
        return list(self._classifier.classes)

    @property
    def task(self) -> str:
        """The task of the model: classification, multilabel or regression."""
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
        """Return a prediction for each example, in order; a refused example has an `error`."""

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
        """Return the features that the head gets for each example, float32 [examples, dimension].

        Raises:
            RefusedError: an example is refused; the message names the example and the reason.
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
        """Return the evidence for the most probable class, as an image or as HTML.

        It is a PNG of a picture under a heat map, or of a sound's spectrogram, and for a text HTML
        in UTF-8 with the marked words. In multi-label tasks it is about the most probable label. In
        regression it is about the first target, and shows what raises the prediction.

        Raises:
            RefusedError: the example is refused.
            ParamsError: there are no heat maps for this kind, as for vectors.
        """
        if not self._classifier.explains:
            raise errors.ParamsError(predicting.no_explanation(self._classifier))
        heat = self._reasons(example, heat=True).heat
        assert heat is not None  # noqa: S101 (there is a heat map)
        return heat.data

    def neighbours(self, example: Example, k: int = 3) -> list[Neighbour]:
        """Return the `k` training examples most similar to this one, the nearest first.

        Raises:
            RefusedError: the example is refused.
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

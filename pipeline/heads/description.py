"""The content of `models/head.json`: a head's classes, calibration and training settings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from ..core.errors import DataError
from ..core.paths import MANIFEST
from ..tables.layers import LAST, Layer, Layers
from ..tasks import TASKS, UNNAMED, noted
from .hyperparameters import Hyperparameters, used
from .scaling import SCALINGS
from .sets import PredictionSets


@dataclass(frozen=True)
class Calibration:
    """The calibration of a head on held-out examples (`calibration.calibrated`).

    Logits are divided by `temperature`. `thresholds` [c] has a threshold for each label of a
    multi-label task, and for each class if the head was trained with class weights
    (`head.against_thresholds`). `prior_shift` [c] is added to the logits of a head that was trained
    with class weights (`head.with_priors`). Both are empty for heads that do not need them.
    `calibrated_on` is the number of held-out examples; None in regression and in older files.
    """

    temperature: float = 1.0
    thresholds: list[float] = field(default_factory=list)
    prior_shift: list[float] = field(default_factory=list)
    calibrated_on: int | None = None


@dataclass(frozen=True)
class HeadDescription:
    """Everything about a head except its weights.

    `classes` are the names of the outputs: classes, labels or targets. `power` is the exponent of
    `tables/power.py`. `loss` is the loss of a regression. `refit` says whether the head was trained
    once more on training and validation examples together, for `epoch` epochs. `training` and
    `validation` are the metrics of that epoch by name; `validation` also has the number of its
    examples (`pictures`). `sets` is None if no coverage was set. `notes` has the fields that no
    stage reads: `finetuned`, `adapted`, how sites took part, and any others in the file. `layers`
    are the layers that its features come from; empty for the last layer alone.

    A field that is missing in a file is None or empty here, and is not written.
    """

    classes: list[str]
    power: float
    calibration: Calibration = field(default_factory=Calibration)
    sets: PredictionSets | None = None
    task: str = UNNAMED
    loss: str | None = None
    hyperparameters: Hyperparameters | None = None
    epoch: int | None = None
    refit: bool = False
    dimension: int | None = None
    width: int | None = None
    layers: Layers = ()
    training: dict[str, float | None] = field(default_factory=dict)
    validation: dict[str, float | None] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read and check a file that `write` wrote, which may come from an untrusted source.

        Raises:
            FileNotFoundError, KeyError, TypeError, ValueError, RecursionError: the file is not a
                description; the error has the reason.
        """
        return cls.of(json.loads(file.read_text(encoding="utf-8")))

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Create the description from the content of a JSON file; raise the errors of `read`."""
        classes, task = named_classes(content), task_of(content)
        if wrong := wrong_for_task(content, len(classes)):
            raise ValueError(wrong)
        added = content.get("prior_shift", [])
        right = {
            "power": _is_number(content["power"]) and 0 < content["power"] < 1e6,
            "temperature": _is_number(content["temperature"]) and 0 < content["temperature"] < 1e6,
            "loss": isinstance(content.get("loss", ""), str),
            "refit": isinstance(content.get("refit", False), bool),
            "prior_shift": isinstance(added, list)
            and len(added) in (0, len(classes))
            and all(map(_is_number, added)),
        } | {
            name: _is_count(content.get(name, 0))
            for name in ("epoch", "dimension", "width", "calibrated_on")
        }
        if strange := [name for name, known in right.items() if not known]:
            raise ValueError(f"{strange[0]} is {content[strange[0]]!r:.40}")
        return cls(
            classes=classes,
            power=content["power"],
            calibration=Calibration(
                temperature=content["temperature"],
                thresholds=content.get("thresholds", []) if TASKS[task].probabilities else [],
                prior_shift=added,
                calibrated_on=content.get("calibrated_on"),
            ),
            sets=_sets(content, len(classes), task),
            task=task,
            loss=content.get("loss"),
            hyperparameters=_hyperparameters(content),
            epoch=content.get("epoch"),
            refit=content.get("refit", False),
            dimension=content.get("dimension"),
            width=content.get("width"),
            layers=_layers(content),
            training=_figures(content, "training"),
            validation=_figures(content, "validation"),
            notes={name: value for name, value in content.items() if name not in NAMES},
        )

    def write(self, file: Path) -> None:
        """Write the description as JSON, with sorted keys."""
        text = json.dumps(self.content(), indent=2, ensure_ascii=False, allow_nan=False)
        file.write_text(text + "\n", encoding="utf-8")

    def content(self) -> dict[str, Any]:
        """Return the fields that `write` writes, sorted by name."""
        chosen = self.hyperparameters
        fields = {
            "loss": self.loss,
            "hyperparameters": None if chosen is None else used(chosen),
            "epoch": self.epoch,
            "dimension": self.dimension,
            "width": self.width,
            "layers": [list(layer) for layer in self.layers] or None,
            "training": self.training or None,
            "validation": self.validation or None,
            "thresholds": self.calibration.thresholds or None,
            "prior_shift": self.calibration.prior_shift or None,
            "task": noted(self.task),
            "calibrated_on": self.calibration.calibrated_on,
            "sets": None if self.sets is None else self.sets.content(),
        }
        content = {
            "classes": self.classes,
            "power": self.power,
            "temperature": self.calibration.temperature,
            "refit": self.refit,
        }
        content |= {name: value for name, value in fields.items() if value is not None}
        return _sorted(content | self.notes)

    def trained_with(self) -> tuple[Hyperparameters, int]:
        """Return the hyperparameters and the number of epochs to train this head again.

        Raises:
            DataError: the file does not have them.
        """
        if self.hyperparameters is None or self.epoch is None:
            raise _lacks("hyperparameters" if self.hyperparameters is None else "epoch")
        return self.hyperparameters, self.epoch

    def calibrated_on(self) -> int:
        """Return the number of calibration examples; without it, of the validation examples.

        Raises:
            DataError: the file does not have the number.
        """
        count: float | None = self.calibration.calibrated_on
        if count is None:
            count = self.validation.get("pictures")
        if count is None:
            raise _lacks("validation")
        return int(count)

    def without_sets(self, why: str) -> Self:
        """Return the description without prediction sets, which are for a different head."""
        if self.sets is None or self.sets.why_none:
            return self
        return replace(self, sets=PredictionSets(self.sets.coverage, why))

    def compared(self, dimension: int) -> int:
        """Return how many of `dimension` features are the last layer's, which come first.

        Neighbours and novelty detection compare only these.
        """
        return self.layers[0].width if self.layers else dimension

    def require_task(self, task: str) -> None:
        """Check that the head was trained for the task of the manifest.

        Raises:
            DataError: the head was trained for a different task.
        """
        if self.task != task:
            raise DataError(
                f"models/ was trained for {self.task}, but {MANIFEST} is for {task}:"
                " run the train stage"
            )


NAMES = {
    *Calibration.__dataclass_fields__,
    *HeadDescription.__dataclass_fields__,
} - {"calibration", "notes"}  # fields of a file


def named_classes(content: Mapping[str, Any]) -> list[str]:
    """Return the classes in the content of a JSON file.

    Raises:
        KeyError, TypeError, ValueError: the classes are missing, not strings, or not distinct.
    """
    classes = content["classes"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise TypeError("classes is not a list of strings")
    if not classes or len(set(classes)) < len(classes):
        raise ValueError("classes is empty or contains one twice")
    return classes


def task_of(content: Mapping[str, Any]) -> str:
    """Return the task of a head; old files do not have the field, which means classification."""
    return str(content.get("task", UNNAMED))


def wrong_for_task(content: Mapping[str, Any], outputs: int) -> str:
    """Return why a JSON file does not describe a head of its task; empty if it does."""
    task = task_of(content)
    if task not in TASKS:
        return f"task is {task!r:.40}"
    of_each = TASKS[task].thresholds
    if not TASKS[task].probabilities or not (of_each or "thresholds" in content):
        return ""
    thresholds = content["thresholds"]
    if not isinstance(thresholds, list) or len(thresholds) != outputs:
        return f"thresholds are not {outputs} numbers, one per label"
    strange = [one for one in thresholds if not (isinstance(one, float) and 0 < one < 1)]
    return f"a threshold is {strange[0]!r:.40}, not between 0 and 1" if strange else ""


def _hyperparameters(content: Mapping[str, Any]) -> Hyperparameters | None:
    given = content.get("hyperparameters")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise TypeError("hyperparameters is not a JSON object")
    for name, value in given.items():
        right = isinstance(value, str) if name == "optimizer" else _is_number(value)
        if name == "scaling":
            right = value in SCALINGS
        if name not in Hyperparameters.__dataclass_fields__ or not right:
            raise ValueError(f"hyperparameters: {name!r:.40} is {value!r:.40}")
    return Hyperparameters(**given)


def _layers(content: Mapping[str, Any]) -> Layers:
    layers = tuple(Layer(*one) for one in content.get("layers", []))
    for name, width in layers:
        if not isinstance(name, str) or not _is_count(width):
            raise ValueError(f"layers: {name!r:.40} is {width!r:.40}")
    if layers and (layers[0].name != LAST or len({name for name, _ in layers}) < len(layers)):
        raise ValueError("layers does not begin with the last one, or contains one twice")
    return layers


def _sets(content: Mapping[str, Any], outputs: int, task: str) -> PredictionSets | None:
    if "sets" not in content:
        return None
    return PredictionSets.of(content["sets"], outputs, task)


def _figures(content: Mapping[str, Any], name: str) -> dict[str, float | None]:
    figures = content.get(name, {})
    if not isinstance(figures, dict):
        raise TypeError(f"{name} is not a JSON object")
    for figure, value in figures.items():
        if not (value is None or _is_number(value)):
            raise ValueError(f"{name}: {figure!r:.40} is {value!r:.40}")
    return figures


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, float | int):
        return False
    return abs(value) < 1e300  # False for NaN


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _sorted(table: dict[str, Any]) -> dict[str, Any]:
    values = ((name, table[name]) for name in sorted(table))
    return {name: _sorted(value) if isinstance(value, dict) else value for name, value in values}


def _lacks(name: str) -> DataError:
    return DataError(f"models/head.json has no {name}: run the train stage again")

"""The content of `bundle.json`: a bundle's backbone and head, and their origin."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from ..core.errors import DataError
from ..heads.description import HeadDescription
from ..kinds import FITS, INPUTS, INTERPOLATIONS, Fitted, Input, Pixels, named, takes
from ..tasks import TASKS, noted
from .novelty import Novelty

FILE = "bundle.json"
MOST_PIXELS_A_SIDE = 4096  # of a backbone's input
LONG_TEXT = 1000  # characters; a longer text gets its own file
SCHEMA = 1  # raised if a reader of older bundles would misread a newer one
SCHEMA_OF_JOINED = 2  # of a bundle with joined backbones
SCHEMA_OF_TASKS = 3  # of a bundle for multi-label tasks or regression
SCHEMA_OF_WEIGHED = 4  # of a bundle whose classes have thresholds, since training weighted them
SCHEMA_OF_MEANS = 5  # of a bundle that detects novelty with class means
SCHEMA_OF_LAYERS = 6  # of a bundle whose head takes features of inner blocks
SCHEMAS = (
    SCHEMA,
    SCHEMA_OF_JOINED,
    SCHEMA_OF_TASKS,
    SCHEMA_OF_WEIGHED,
    SCHEMA_OF_MEANS,
    SCHEMA_OF_LAYERS,
)
# The fields of a head that the file has beside `head`, not in it.
ELSEWHERE = ("classes", "power", "sets", "task", "temperature", "thresholds")

AGAIN = "run the bundle stage again"

T = TypeVar("T")


@dataclass(frozen=True)
class Origin:
    """The backbone that makes the features [dimension]; joined backbones have one name."""

    name: str
    weights: str
    dimension: int
    fingerprint: str
    licence: str = "not stated"
    pooling: str = "auto"


@dataclass(frozen=True)
class Data:
    """The version of the examples: the manifest's SHA-256, and the size of each split."""

    manifest: str
    pictures: dict[str, int]


@dataclass(frozen=True)
class Bundle:
    """The content of `bundle.json`.

    `inputs` describes the input of each network; without joined backbones there is one. `code` has
    a digest of each subpackage that can change an answer. `training_examples` says how much of the
    training examples the bundle includes, and `neighbours` how many if not all. `novelty` is None
    if the bundle detects no novelty.
    Bundles of older versions lack some fields, which get their defaults.
    """

    kind: str
    head: HeadDescription
    inputs: tuple[Input, ...]
    backbone: Origin
    metrics: Mapping[str, object]
    data: Data
    code: dict[str, str]
    libraries: dict[str, str]
    training_examples: str = "features_and_paths"
    neighbours: int | None = None
    novelty: Novelty | None = None

    @property
    def schema(self) -> int:
        """The oldest schema whose readers read this bundle correctly."""
        if self.head.layers:
            return SCHEMA_OF_LAYERS
        if self.novelty is not None and self.novelty.of_means:
            return SCHEMA_OF_MEANS
        if noted(self.head.task):
            return SCHEMA_OF_TASKS
        if self.head.calibration.thresholds:
            return SCHEMA_OF_WEIGHED
        return SCHEMA_OF_JOINED if len(self.inputs) > 1 else SCHEMA

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the bundle in a folder, which may come from anyone.

        Raises:
            DataError: the folder is not a bundle, is damaged, or has a different schema.
        """
        content = document(folder / FILE)
        if content.get("schema") not in SCHEMAS:
            raise DataError(
                f"{folder / FILE} has schema {content.get('schema')!r:.40}, but this code reads"
                f" schemas {SCHEMAS[0]} to {SCHEMAS[-1]}; run the bundle stage again, or use the"
                " version of Headstart that wrote it"
            )
        try:
            return cls._of(content, folder)
        except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
            missing = " is missing" * isinstance(error, KeyError)
            raise DataError(f"{folder / FILE} is damaged: {error}{missing}; {AGAIN}") from None

    @classmethod
    def _of(cls, content: dict[str, Any], folder: Path) -> Self:
        calibration = content.get("calibration", {})
        known = {"temperature": calibration.get("temperature", 1.0)}
        if "pictures" in calibration:
            known["calibrated_on"] = calibration["pictures"]
        if "why_no_sets" in content:
            known["sets"] = {"why_no_sets": _one(content, "why_no_sets", str)}
        known |= {name: content[name] for name in ELSEWHERE if name in content}
        backbone, data = content["backbone"], content["data"]
        bundle = cls(
            kind=_one(content, "kind", str, "image"),
            head=HeadDescription.of(content.get("head", {}) | known),
            inputs=tuple(_input(folder, one) for one in [content, *content.get("further", [])]),
            backbone=Origin(
                name=_one(backbone, "name", str),
                weights=_one(backbone, "weights", str, "pretrained"),
                dimension=_one(backbone, "dimension", int),
                fingerprint=_one(backbone, "fingerprint", str),
                licence=_one(backbone, "licence", str, Origin.licence),
                pooling=_one(backbone, "pooling", str, Origin.pooling),
            ),
            metrics=_one(content, "metrics", dict, {}),
            data=Data(_one(data, "manifest", str), _one(data, "pictures", dict, {})),
            code=_one(content, "code", dict, {}),
            libraries=_one(content, "libraries", dict, {}),
            training_examples=_one(content, "training_examples", str, cls.training_examples),
            neighbours=_one(content, "neighbours", int) if "neighbours" in content else None,
            novelty=Novelty.of(_one(content, "usual", dict)) if "usual" in content else None,
        )
        named(bundle.kind)  # raises an error if the kind is unknown
        if bundle.schema != content["schema"]:
            raise ValueError(
                f"schema is {content['schema']}, but the content has schema {bundle.schema}"
            )
        return bundle

    def write(self, folder: Path) -> None:
        """Write `bundle.json`, and the files beside it for long texts."""
        for number, one in enumerate(self.inputs, 1):
            for name, file in _long(one, number).items():
                (folder / file).write_text(getattr(one, name), encoding="utf-8")
        text = json.dumps(self.content(), indent=2, ensure_ascii=False) + "\n"
        (folder / FILE).write_text(text, encoding="utf-8")

    def content(self) -> dict[str, Any]:
        """Return the fields of `bundle.json`."""
        head, calibration, sets = self.head, self.head.calibration, self.head.sets
        elsewhere = (*ELSEWHERE, "calibrated_on")
        first, *further = [_described(one, number) for number, one in enumerate(self.inputs, 1)]
        backbone = asdict(self.backbone)
        if self.backbone.pooling == Origin.pooling:
            del backbone["pooling"]
        content = {
            "schema": self.schema,
            "kind": self.kind,
            "task": noted(head.task),
            "thresholds": calibration.thresholds or None,
            "classes": head.classes,
            "preprocessing": first["preprocessing"],
            "backbone": backbone,
            "head": {name: one for name, one in head.content().items() if name not in elsewhere},
            "power": head.power,
            "calibration": {
                "temperature": calibration.temperature,
                "pictures": head.calibrated_on(),
            }
            if TASKS[head.task].probabilities
            else None,
            "metrics": self.metrics,
            "data": asdict(self.data),
            "code": self.code,
            "libraries": self.libraries,
            **first,
            "further": further or None,
            "training_examples": self.training_examples,
            "neighbours": self.neighbours,
            "usual": None if self.novelty is None else self.novelty.content(),
            "why_no_sets": (sets and sets.why_none) or None,
            "sets": None if sets is None or sets.why_none else sets.content(),
        }
        return {name: value for name, value in content.items() if value is not None}


def code_digest(room: str) -> str:
    """Return a digest of the code in a subpackage, such as `heads` or `kinds/image`."""
    root, sha = Path(__file__).parent.parent, hashlib.sha256()
    for file in sorted((root / room).rglob("*.py")):
        sha.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return sha.hexdigest()


def document(file: Path) -> dict[str, Any]:
    """Read a JSON file of a bundle, without checking its fields.

    Raises:
        DataError: the file cannot be read, or is not a JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}), so {file.parent} is not a bundle; run"
            " `headstart repro`, or name a folder that the stage bundle wrote"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is damaged: {error}; {AGAIN}") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} is damaged: it is not a JSON object; {AGAIN}")
    return content


def _one(table: dict[str, Any], name: str, form: type[T], otherwise: T | None = None) -> T:
    found = table[name] if otherwise is None else table.get(name, otherwise)
    if not isinstance(found, form):
        raise TypeError(f"{name} is {found!r:.40}")
    return found


def _long(preprocessing: Input, number: int) -> dict[str, str]:
    """Return the file names of fields with long texts, such as the JSON of a tokenizer."""
    of_network = "" if number == 1 else f"_{number}"
    return {
        name: f"{name}{of_network}.json"
        for name, value in preprocessing._asdict().items()
        if isinstance(value, str) and len(value) > LONG_TEXT
    }


def _described(preprocessing: Input, number: int) -> dict[str, Any]:
    """Return the fields of a network's input in `bundle.json`."""
    files = _long(preprocessing, number)
    fields = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in preprocessing._asdict().items()
        if name not in files
    }
    described: dict[str, Any] = {"preprocessing": fields}
    if takes(preprocessing) != "pixels":
        described |= {"takes": takes(preprocessing), "files": files}
    return described


def _input(folder: Path, content: dict[str, Any]) -> Input:
    """Return a network's input from its fields, and check that its size in pixels is possible."""
    fields = dict(content["preprocessing"])
    for name, file in content.get("files", {}).items():
        fields[name] = (folder / Path(file).name).read_text(encoding="utf-8")
    form: Any = INPUTS[content.get("takes", "pixels")]
    values = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
    preprocessing: Input = form(**values)
    if not isinstance(preprocessing, Pixels | Fitted):
        return preprocessing
    sides = (preprocessing.resize, preprocessing.crop)
    if not all(isinstance(side, int) and 1 <= side <= MOST_PIXELS_A_SIDE for side in sides):
        raise ValueError(f"preprocessing.resize and crop are {sides!r:.40}")
    if preprocessing.interpolation not in INTERPOLATIONS:
        raise ValueError(f"preprocessing.interpolation is {preprocessing.interpolation!r:.40}")
    if isinstance(preprocessing, Fitted) and preprocessing.fit not in FITS:
        raise ValueError(f"preprocessing.fit is {preprocessing.fit!r:.40}")
    return preprocessing

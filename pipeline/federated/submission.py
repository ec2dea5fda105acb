"""What leaves a site: a folder of two files, written there and checked where it is joined.

`sums.safetensors` holds the numbers, in float64: `gram` [d (d + 1) / 2], the lower triangle of the
sum of products, `class_sums` [c, d] and `rows` [c], and without noise `examples` [c].
`submission.json` says what they are of, and holds checksums of both files. A checksum tells an
accident, and no forger: how the folder travels has to see to that.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..core.errors import DataError
from ..heads.head import named_classes, one_thread
from ..store.places import replacing
from .sums import Floats64, Sums, packed, symmetric

SCHEMA = 1
ABOUT, NUMBERS = "submission.json", "sums.safetensors"
ROUNDING = 1e-9  # of the largest variance; sums of other sites' rounding are a thousandth of it
# Fields in which submissions that are joined agree, and what a person calls them.
SHARED = {
    "kind": "examples of the kind",
    "backbone": "the backbone",
    "precision": "extract.precision",
    "power": "train.power",
}


@dataclass(frozen=True)
class Submission:
    """A submission; `about` is `submission.json` without its checksum."""

    folder: Path
    about: dict[str, Any]
    sums: Sums
    examples: Floats64 | None  # [c]; with noise nobody is told

    @property
    def site(self) -> str:
        """The site's name."""
        return str(self.about["site"])

    @property
    def number(self) -> int:
        """Which of the site's submissions it is, from 1."""
        return int(self.about["number"])


def tensors(sums: Sums, examples: Floats64 | None) -> bytes:
    """The bytes of `sums.safetensors`."""
    held = {"gram": packed(sums.gram), "class_sums": sums.class_sums, "rows": sums.rows}
    if examples is not None:
        held["examples"] = examples
    return bytes(save({name: np.ascontiguousarray(array) for name, array in held.items()}))


def write(folder: Path, about: dict[str, Any], numbers: bytes) -> None:
    """Write a submission.

    Args:
        folder: made if it is not there.
        about: what is said of it, with `sums`, the checksum of the numbers.
        numbers: as `tensors` gives them.
    """
    told = about | {"checksum": checksum(about)}
    text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    for name, content in ((NUMBERS, numbers), (ABOUT, text.encode())):
        with replacing(folder / name) as unfinished:
            unfinished.write_bytes(content)


def checksum(about: dict[str, Any]) -> str:
    """Of what `submission.json` says beside it."""
    rest = {name: value for name, value in about.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read(folder: Path) -> Submission:
    """Read a submission, and see that it can be one.

    Raises:
        DataError: it is not there, was changed on its way, or no examples have such sums.
    """
    about = _about(folder)
    try:
        data = (folder / NUMBERS).read_bytes()
    except OSError as error:
        raise DataError(f"{NUMBERS} cannot be read ({error.strerror or error})") from None
    if hashlib.sha256(data).hexdigest() != about.get("sums"):
        raise DataError(f"{NUMBERS} is not the file that {ABOUT} tells of; send both again")
    try:
        classes = tuple(named_classes(about))
        noise = about["noise"]
        _, network = int(about["number"]), about["backbone"]
        texts = about["site"], about["id"], network["name"], network["fingerprint"]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a name is no text")
        for field in SHARED:
            _ = about[field]
        held = load(data)
        gram, class_sums, rows = (held[name] for name in ("gram", "class_sums", "rows"))
        examples = None if noise else held["examples"]
        spread = float(noise["spread"]) if noise else 0.0
        if noise and not (0 < spread < np.inf):
            raise ValueError(f"noise of the strength {spread:g}")
        dimension = int(about["backbone"]["dimension"])
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        missing = " is missing" * isinstance(error, KeyError)
        raise DataError(f"it is no submission of schema {SCHEMA}: {error}{missing}") from None
    shapes = {
        "gram": (gram, (dimension * (dimension + 1) // 2,)),
        "class_sums": (class_sums, (len(classes), dimension)),
        "rows": (rows, (len(classes),)),
    } | ({} if examples is None else {"examples": (examples, (len(classes),))})
    for name, (array, shape) in shapes.items():
        if array.dtype != np.float64 or array.shape != shape:
            raise DataError(
                f"{name} is {array.dtype} {list(array.shape)}, and for {len(classes)} classes and"
                f" {dimension} features it is float64 {list(shape)}"
            )
        if not np.isfinite(array).all():
            raise DataError(f"{name} holds numbers that are not finite")
    sums = Sums(classes, symmetric(gram), class_sums, rows, spread)
    if examples is not None:
        _require_possible(sums, examples)
    return Submission(folder, {k: v for k, v in about.items() if k != "checksum"}, sums, examples)


def _about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no {ABOUT}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{ABOUT} cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        told = about.get("schema") if isinstance(about, dict) else None
        raise DataError(
            f"{ABOUT} is of schema {told!r:.40} and this Headstart reads {SCHEMA}: let both sides"
            " have the same version"
        )
    if about.get("checksum") != checksum(about):
        raise DataError(f"{ABOUT} was changed after it was written; send it again")
    return about


def _require_possible(sums: Sums, examples: Floats64) -> None:
    """See that some rows have these sums.

    Raises:
        DataError: none have.
    """
    whole = (sums.rows == np.floor(sums.rows)) & (examples == np.floor(examples))
    wrong = ~whole | (examples < 1) | (sums.rows < examples)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise DataError(
            f"class {sums.classes[place]} has {examples[place]:g} examples in"
            f" {sums.rows[place]:g} rows, which cannot be"
        )
    with one_thread():
        least = float(np.linalg.eigvalsh(sums.within)[0])
    largest = float(np.diag(sums.gram).max(initial=0)) / sums.total
    if least < -ROUNDING * max(largest * sums.dimension, 1e-300):
        raise DataError(
            "no examples have such sums: a variance within the classes would be"
            f" {least:.3g}, which is negative"
        )

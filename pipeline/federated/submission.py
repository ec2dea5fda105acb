"""The submission of a site: a folder of two files, which is checked before it is joined.

`sums.safetensors` has the numbers in float64: `gram` [d (d + 1) / 2], the lower triangle of the sum
of products, `class_sums` [c, d], `rows` [c] and, without noise, `examples` [c]. `submission.json`
describes them and has checksums of both files. Checksums detect accidents but not forgery, which
the transfer of the folder has to prevent. Whatever the folder contains, `read` returns a submission
that can be joined or raises `DataError`.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..core import memory
from ..core.errors import DataError, RefusedError
from ..examples import files
from ..heads.description import named_classes
from ..heads.head import one_thread
from ..store.places import replacing
from . import privacy
from .privacy import Noise
from .sums import Floats64, Sums, packed, symmetric

SCHEMA = 1
ABOUT, NUMBERS = "submission.json", "sums.safetensors"
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}"  # of a site
ROUNDING = 1e-9  # tolerance, relative to the largest variance; real rounding is a thousandth of it
NEARLY = 0.99  # of the least noise is enough, because noise is drawn on a grid
RARE = 6.0  # standard deviations of tolerance for noise
LEAST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)  # of a feature
MOST = 2**53  # rows, or submissions; float64 has all integers up to it
MOST_OF_ABOUT = 100_000_000  # bytes of `submission.json`
MOST_OF_HEADER = 100_000  # bytes of `sums.safetensors` besides its numbers
AT_A_TIME = 5  # times the memory of a submission's numbers, to check them
# Fields that are equal in submissions that are joined, and their names in messages.
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
    examples: Floats64 | None  # [c]; None with noise

    @property
    def site(self) -> str:
        """The site's name."""
        return str(self.about["site"])

    @property
    def number(self) -> int:
        """The number of the submission at its site, from 1."""
        return int(self.about["number"])


def tensors(sums: Sums, examples: Floats64 | None) -> bytes:
    """Return the bytes of `sums.safetensors`."""
    held = {"gram": packed(sums.gram), "class_sums": sums.class_sums, "rows": sums.rows}
    if examples is not None:
        held["examples"] = examples
    return bytes(save({name: np.ascontiguousarray(array) for name, array in held.items()}))


def write(folder: Path, about: dict[str, Any], numbers: bytes) -> None:
    """Write a submission.

    Args:
        folder: created if it does not exist.
        about: its description, with `sums`, the checksum of the numbers.
        numbers: the bytes from `tensors`.
    """
    described = about | {"checksum": checksum(about)}
    text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    for name, content in ((NUMBERS, numbers), (ABOUT, text.encode())):
        with replacing(folder / name) as unfinished:
            unfinished.write_bytes(content)


def checksum(about: dict[str, Any]) -> str:
    """Return the checksum of all other fields of `submission.json`."""
    rest = {name: value for name, value in about.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read(folder: Path) -> Submission:
    """Read a submission, and check that its sums are possible.

    Raises:
        DataError: the submission is missing, was changed in transfer, or is impossible.
    """
    try:
        about = _about(folder)
        classes, dimension, noise = _described(about)
    except RecursionError:
        raise DataError(f"{ABOUT} is nested too deeply") from None
    _require_memory(len(classes), dimension)
    data = _bytes(folder / NUMBERS, _size(len(classes), dimension) + MOST_OF_HEADER)
    if hashlib.sha256(data).hexdigest() != about.get("sums"):
        raise DataError(f"{NUMBERS} is not the file that {ABOUT} describes; send both again")
    try:
        held = load(data)
        gram, class_sums, rows = (held[name] for name in ("gram", "class_sums", "rows"))
        examples = None if noise else held["examples"]
    except (KeyError, TypeError, ValueError, OverflowError, SafetensorError) as error:
        raise _no_submission(error) from None
    shapes = {
        "gram": (gram, (dimension * (dimension + 1) // 2,)),
        "class_sums": (class_sums, (len(classes), dimension)),
        "rows": (rows, (len(classes),)),
    } | ({} if examples is None else {"examples": (examples, (len(classes),))})
    for name, (array, shape) in shapes.items():
        if array.dtype != np.float64 or array.shape != shape:
            raise DataError(
                f"{name} is {array.dtype} {list(array.shape)}, but for {len(classes)} classes and"
                f" {dimension} features it should be float64 {list(shape)}"
            )
        if not np.isfinite(array).all():
            raise DataError(f"{name} holds numbers that are not finite")
    spread = float(about["noise"]["spread"]) if noise else 0.0
    sums = Sums(classes, symmetric(gram), class_sums, rows, spread)
    try:
        if examples is not None:
            _require_possible(sums, examples)
        if noise is not None:
            _require_possible_with_noise(sums, noise)
    except np.linalg.LinAlgError as error:
        raise DataError(f"no examples can have such sums: {error}") from None
    return Submission(folder, {k: v for k, v in about.items() if k != "checksum"}, sums, examples)


def _about(folder: Path) -> dict[str, Any]:
    """Return the content of `submission.json`.

    Raises:
        DataError: the file cannot be read, is of a different version, or was changed.
        RecursionError: the JSON is nested too deeply.
    """
    if not (folder / ABOUT).exists():
        raise DataError(f"there is no {ABOUT}")
    try:
        text = _bytes(folder / ABOUT, MOST_OF_ABOUT).decode()
        about = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except ValueError as error:
        raise DataError(f"{ABOUT} cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        found = about.get("schema") if isinstance(about, dict) else None
        raise DataError(
            f"{ABOUT} has schema {found!r:.40}, but this Headstart reads {SCHEMA}: use the same"
            " version on both sides"
        )
    if about.get("checksum") != checksum(about):
        raise DataError(f"{ABOUT} was changed after it was written; send it again")
    return about


def _finite(text: str) -> float:
    """Parse a number of a JSON text; unlike Python's parser, refuse infinity and NaN."""
    number = float(text)
    if not np.isfinite(number):
        raise ValueError(f"{text:.20} is not a finite number")
    return number


def _bytes(file: Path, most: int) -> bytes:
    try:
        return files.load(file, most)
    except RefusedError as error:
        raise DataError(f"{file.name}: {error}") from None


def _described(about: dict[str, Any]) -> tuple[tuple[str, ...], int, Noise | None]:
    """Return the classes, the number of features and the noise of a submission.

    Raises:
        DataError: `about` does not describe a submission.
    """
    try:
        classes, network, noise = tuple(named_classes(about)), about["backbone"], about["noise"]
        texts = [about["id"], about["kind"], about["precision"]]
        texts += [network["name"], network["fingerprint"]]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("the id, kind, precision or backbone is not a string")
        "".join([*texts, *classes]).encode()  # a lone surrogate is possible in JSON, but not valid
        if not (isinstance(about["site"], str) and re.fullmatch(NAME, about["site"])):
            raise ValueError(f"{about['site']!r:.60} is not a name for a site")
        number, dimension, power = about["number"], network["dimension"], about["power"]
        if not all(type(one) is int and 0 < one < MOST for one in (number, dimension)):
            raise ValueError("`number` and `dimension` have to be whole numbers above 0")
        if type(power) not in (int, float):
            raise TypeError("power is not a number")
        return classes, dimension, None if noise is None else _noise(noise)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _no_submission(error) from None


def _noise(content: Any) -> Noise:
    """Return the noise that a submission declares.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: the noise is not valid, or too weak for the
            stated privacy.
    """
    epsilon, delta, clip, spread = (
        float(content[name]) for name in ("epsilon", "delta", "clip", "spread")
    )
    if not all(type(value) in (int, float) for value in content.values() if value is not None):
        raise TypeError("a parameter of the noise is not a number")
    if not (min(epsilon, spread) > 0 and 0 < delta < 1 and LEAST < clip < LARGEST):
        raise ValueError(
            f"epsilon {epsilon:g}, delta {delta:g}, clip {clip:g} and spread {spread:g} are not"
            " possible parameters of noise"
        )
    noise = Noise(epsilon, delta, clip)
    if spread < (least := NEARLY * privacy.least_scale(noise) * clip**2):
        raise ValueError(
            f"the noise has spread {spread:g}, but epsilon {epsilon:g}, delta {delta:g} and"
            f" clip {clip:g} need {least:.3g} or more"
        )
    return noise


def _no_submission(error: Exception) -> DataError:
    missing = " is missing" * isinstance(error, KeyError)
    reason = " ".join(str(error).split())[:300]
    return DataError(f"it is not a submission of schema {SCHEMA}: {reason}{missing}")


def _size(classes: int, dimension: int) -> int:
    """Return the size of a submission's numbers in bytes."""
    return 8 * (dimension * (dimension + 1) // 2 + classes * (dimension + 2))


def _require_memory(classes: int, dimension: int) -> None:
    memory.require(
        AT_A_TIME * _size(classes, dimension),
        f"a submission of {classes:,} classes and {dimension:,} features",
        "join on a larger one",
    )


def _require_possible(sums: Sums, examples: Floats64) -> None:
    """Check that rows with these sums can exist.

    Raises:
        DataError: no rows have such sums.
    """
    whole = (sums.rows == np.floor(sums.rows)) & (examples == np.floor(examples))
    wrong = ~whole | (examples < 1) | (sums.rows < examples) | (sums.rows > MOST)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise DataError(
            f"class {sums.classes[place]:.60} has {examples[place]:g} examples in"
            f" {sums.rows[place]:g} rows, which is impossible"
        )
    _require_small(sums, LARGEST, sums.rows * (1 + ROUNDING))
    with one_thread():
        least = float(np.linalg.eigvalsh(sums.within)[0])
    largest = float(np.diag(sums.gram).max(initial=0)) / sums.total
    if least < -ROUNDING * max(largest * sums.dimension, 1e-300):
        raise DataError(
            "no examples can have such sums: a variance within the classes would be"
            f" {least:.3g}, which is negative"
        )


def _require_possible_with_noise(sums: Sums, noise: Noise) -> None:
    """Check that rows of length at most `noise.clip` can have these sums, except for noise.

    The matrix of products of one-hot labels and features, [[rows, class_sums], [class_sumsᵀ,
    gram]], has no negative eigenvalue without noise. If every entry has noise of standard deviation
    s, no eigenvalue of the noise is below -s (2 √(c + d) + √2 t), except with a probability of
    exp(-t²/2) (Davidson and Szarek, "Local operator theory, random matrices and Banach spaces",
    2001, theorem 2.11). Entries are scaled so that s is the same for all. The check refuses fewer
    than one in 10⁷ honest submissions.

    Raises:
        DataError: no rows have such sums.
    """
    size = len(sums.classes) + sums.dimension
    slack = sums.noise / noise.clip**2 * (2 * np.sqrt(size) + np.sqrt(2) * RARE)
    rows = sums.rows + slack
    if not (rows > 0).all() or rows.max() > MOST:
        place = int(np.argmax(~(rows > 0) | (rows > MOST)))
        raise DataError(
            f"class {sums.classes[place]:.60} has {sums.rows[place]:g} rows, which noise of this"
            " spread cannot explain"
        )
    _require_small(sums, noise.clip, rows)
    gram, class_sums = sums.gram / noise.clip**2, sums.class_sums / noise.clip
    with one_thread():
        # The block of the labels is diagonal. With `slack` on the diagonal, no eigenvalue of the
        # matrix is negative if none is in the Schur complement, the block of the features.
        rest = gram - (class_sums / rows[:, None]).T @ class_sums
        least = float(np.linalg.eigvalsh(rest)[0]) + slack
    if least < -ROUNDING * float(np.abs(np.diag(rest)).max()):
        raise DataError(
            "no examples can have such sums: an eigenvalue is"
            f" {-least / slack:.3g} times as negative as the noise can explain"
        )


def _require_small(sums: Sums, largest: float, rows: Floats64) -> None:
    """Check that no sum is too large for its rows, given that no feature is above `largest`.

    Raises:
        DataError: a sum is too large.
    """
    if (np.abs(sums.class_sums) > largest * rows[:, None]).any():
        raise DataError("class_sums holds numbers that are too large for that many rows")
    if (np.abs(sums.gram) > largest**2 * rows.sum()).any():
        raise DataError("gram holds numbers that are too large for that many rows")

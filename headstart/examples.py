"""Examples as a caller passes them: paths, bytes of files, or arrays."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline import kinds
from pipeline.core import errors
from pipeline.examples import files
from pipeline.serving import predict as predicting

# A path, the bytes of a file, or the pixels of a picture: uint8 [height, width, 3], RGB.
Example: TypeAlias = str | os.PathLike[str] | bytes | NDArray[Any]


class Given(NamedTuple):
    """An example: its name in messages, its path if it has one, and a function that reads it."""

    name: str
    path: str | None
    load: Callable[[], bytes]


def listed(examples: Example | Iterable[Example], kind: kinds.Kind) -> list[Given]:
    """Return one or many examples as a list, without reading them.

    An array of texts, or with one dimension more than an example has, holds many examples.

    Raises:
        TypeError: an example is not a path, bytes or an array.
    """
    if isinstance(examples, str | os.PathLike | bytes):
        if isinstance(examples, os.PathLike):
            inside = predicting.examples_in(Path(examples), kind)
            return [_given(0, one, kind) for one in inside]
        return [_given(0, examples, kind)]
    if (
        isinstance(examples, np.ndarray)
        and examples.dtype.kind not in "OUS"
        and examples.ndim <= kind.dimensions
    ):
        return [_given(0, examples, kind)]
    return [_given(position, example, kind) for position, example in enumerate(examples)]


def one(example: Example, kind: kinds.Kind) -> bytes:
    """Return the bytes of one example.

    Raises:
        RefusedError: the example cannot be read; the message names the example and the reason.
        TypeError: the argument is not one example.
    """
    return _given(0, example, kind).load()


def _given(position: int, example: Any, kind: kinds.Kind) -> Given:
    if isinstance(example, str) and kind.texts:
        return Given(f"example {position}", None, lambda: _bytes(example.encode(), kind))
    if isinstance(example, str | os.PathLike):
        path = os.fsdecode(example)
        return Given(path, path, lambda: files.load(Path(path), kind.most_bytes))
    name = f"example {position}"
    if isinstance(example, bytes):
        return Given(name, None, lambda: _bytes(example, kind))
    if isinstance(example, np.ndarray):
        return Given(name, None, lambda: kind.encode(example))
    raise TypeError(
        f"{name} is a {type(example).__name__}; give a path, the bytes of a file, or an array"
    )


def _bytes(example: bytes, kind: kinds.Kind) -> bytes:
    if not example:
        raise errors.RefusedError("no bytes")
    if len(example) > kind.most_bytes:
        raise errors.RefusedError(f"too large: at most {kind.most_bytes / 1e6:.0f} MB")
    return example

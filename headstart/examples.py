"""Examples as a caller hands them over: paths, bytes of files, or arrays."""

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

# A path, the bytes of a file, or for a picture its pixels: uint8 [height, width, 3], RGB.
Example: TypeAlias = str | os.PathLike[str] | bytes | NDArray[Any]


class Given(NamedTuple):
    """An example: what messages call it, its path if it has one, and what reads its bytes."""

    name: str
    path: str | None
    load: Callable[[], bytes]


def listed(examples: Example | Iterable[Example], kind: kinds.Kind) -> list[Given]:
    """One or many examples as a list, none of them read yet.

    An array of texts, or of one dimension more than an example has, stands for many.

    Raises:
        TypeError: something is neither a path, bytes nor an array.
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
    """The bytes of one example.

    Raises:
        RefusedError: it cannot be read; the text names it and the reason.
        TypeError: it is something else than one example.
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

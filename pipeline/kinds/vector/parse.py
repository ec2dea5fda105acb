"""Parse vectors: one-dimensional NPY files, or JSON lists of numbers. Nothing is unpickled."""

import io
import json
import tokenize
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...core.errors import RefusedError

MAGIC = b"\x93NUMPY"
MOST_NUMBERS = 1_000_000
# Exceptions of NumPy for a bad header, which it parses as Python.
UNREADABLE = (
    *(ValueError, TypeError, SyntaxError, EOFError),
    *(tokenize.TokenError, RecursionError, MemoryError),
)


def vector(data: bytes) -> NDArray[np.float32]:
    """Parse a vector, float32 [length].

    Raises:
        RefusedError: a number is not finite, there are too many or none, or the bytes are not a
            vector.
    """
    found = _npy(data) if data.startswith(MAGIC) else _json(data)
    if not len(found):
        raise RefusedError("a vector without numbers")
    if len(found) > MOST_NUMBERS:
        raise RefusedError(f"{len(found):,} numbers, at most {MOST_NUMBERS:,}")
    with np.errstate(over="ignore"):  # numbers that are too large become infinite
        numbers = found.astype(np.float32)
    if not np.isfinite(numbers).all():
        place = int(np.argmin(np.isfinite(numbers)))
        raise RefusedError(f"number {place + 1} is {found[place]}, which is not a finite float32")
    return numbers


def npy(array: NDArray[np.generic]) -> bytes:
    """Convert an array to the bytes of an NPY file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _npy(data: bytes) -> NDArray[np.generic]:
    start = 10 + int.from_bytes(data[8:10], "little")
    if data[6:7] != b"\x01":  # other versions have longer headers, which vectors do not need
        raise RefusedError("an NPY file whose version is not 1.0")
    shape, form = _header(data[:start])
    if len(shape) != 1 or form.kind not in "fiu":
        raise RefusedError(
            f"{form} {list(shape)}; a vector should be a one-dimensional array of numbers"
        )
    if len(data) != start + shape[0] * form.itemsize:
        raise RefusedError(
            f"truncated: {len(data) - start:,} bytes for {shape[0]:,} numbers of {form.itemsize}"
        )
    return np.frombuffer(data, form, offset=start)


@lru_cache(maxsize=64)  # many vectors have the same header
def _header(header: bytes) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    file = io.BytesIO(header)
    try:
        np.lib.format.read_magic(file)
        shape, _, form = np.lib.format.read_array_header_1_0(file)
    except UNREADABLE as error:
        raise RefusedError(f"damaged NPY file: {' '.join(str(error).split())[:100]}") from None
    return shape, form


def _json(data: bytes) -> NDArray[np.generic]:
    try:
        numbers = json.loads(data)
    except (ValueError, RecursionError):
        raise RefusedError("neither an NPY file nor a JSON list of numbers") from None
    if not isinstance(numbers, list) or not all(type(one) in (int, float) for one in numbers):
        raise RefusedError("JSON, but not a list of numbers")
    try:
        return np.array(numbers, dtype=np.float64)
    except OverflowError:
        raise RefusedError("a number is too large for a float32") from None

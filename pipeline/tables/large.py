"""Arrays of features that may be larger than memory.

An array of more than `LARGE` bytes is a file in the folder `data/` that is mapped into memory.
The system keeps in memory what is used, as far as there is room, so a stage needs no more memory
for a million examples than for 100,000. The file has no name, so a killed process leaves nothing.
`LARGE` does not depend on the machine's memory, and the values are the same with or without a file.
"""

import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

FOLDER = Path("data")  # on the disk of the project, as /tmp may be in memory
LARGE = 2**29  # bytes
AT_ONCE = 2**22  # numbers that are computed at a time
PARTS = 4  # times as many, if each part also has a cost of its own

Floats = npt.NDArray[np.float32]
Chosen = npt.NDArray[np.bool_ | np.integer] | slice


def empty(rows: int, width: int, of: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """Return an array [rows, width] of this type, which is yet to be filled.

    Raises:
        OSError: the disk is full.
    """
    size = np.dtype(of).itemsize * rows * width
    if size <= LARGE:
        return np.empty((rows, width), of)
    with _file() as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is noticed here
        return _mapped(file, (rows, width), of)


def zeros(rows: int, width: int) -> Floats:
    """Return an array [rows, width] of zeros."""
    made: Floats = empty(rows, width)
    made[:] = 0
    return made


def held(numbers: int) -> int:
    """Return how many bytes of memory an array of so many float32 numbers takes at most."""
    return min(4 * numbers, LARGE)


def chunks(rows: int, width: int) -> Iterator[slice]:
    """Divide rows into slices of at most `AT_ONCE` numbers."""
    size = max(1, AT_ONCE // max(width, 1))
    return (slice(start, start + size) for start in range(0, rows, size))


def in_parts(features: Floats) -> Iterator[slice]:
    """Divide rows [n, d] into larger slices, for work that also costs something for each slice."""
    return chunks(len(features), features.shape[1] // PARTS)


def mapped(features: Floats, of: Callable[[Floats], Floats]) -> Floats:
    """Return `of(features)`, a function of features [n, d] that treats each row by itself."""
    if features.nbytes <= LARGE:
        return of(features)
    first, *others = chunks(*features.shape)
    part = of(features[first])
    made = empty(len(features), part.shape[1], part.dtype)
    made[first] = part
    for some in others:
        made[some] = of(features[some])
    return made


def taken(features: Floats, rows: Chosen) -> Floats:
    """Return rows of features [n, d], by a mask, by their positions, or by a slice."""
    if isinstance(rows, slice):
        return features[rows]
    places = np.flatnonzero(rows) if rows.dtype == bool else rows
    if len(places) * features[:1].nbytes <= LARGE:
        return features[places]
    made = empty(len(places), features.shape[1], features.dtype)
    for some in chunks(*made.shape):
        made[some] = features[places[some]]
    return made


class Stack:
    """An array whose rows arrive in parts of one type."""

    def __init__(self) -> None:
        """Begin without rows."""
        self._parts: list[npt.NDArray[Any]] = []
        self._rows = self._bytes = 0
        self._file: IO[bytes] | None = None

    def add(self, part: npt.NDArray[Any]) -> None:
        """Add rows.

        Raises:
            OSError: the disk is full.
        """
        self._rows, self._bytes = self._rows + len(part), self._bytes + part.nbytes
        self._parts.append(part)
        if self._file is None and self._bytes > LARGE:
            self._file = _file()
        if self._file is not None:
            for one in self._parts:
                self._file.write(one.tobytes())
            self._parts = [part[:0]]

    def whole(self) -> npt.NDArray[Any]:
        """Return all rows."""
        if self._file is None:
            return np.concatenate(self._parts)
        with self._file as file:
            file.flush()
            (last,) = self._parts
            return _mapped(file, (self._rows, *last.shape[1:]), last.dtype)


def together(parts: Iterable[Floats]) -> Floats:
    """Concatenate features; one part that has all rows is not copied."""
    every = list(parts)
    filled = [part for part in every if len(part)] or every[:1]
    if len(filled) == 1:
        return filled[0]
    if sum(part.nbytes for part in filled) <= LARGE:
        return np.concatenate(filled)
    made = empty(sum(map(len, filled)), filled[0].shape[1], filled[0].dtype)
    start = 0
    for part in filled:
        for some in chunks(*part.shape):
            rows = part[some]
            made[start : start + len(rows)] = rows
            start += len(rows)
    return made


def _file() -> IO[Any]:
    folder = FOLDER if FOLDER.is_dir() else None
    return tempfile.TemporaryFile(dir=folder, buffering=2**20)


def _mapped(file: IO[Any], shape: tuple[int, ...], of: npt.DTypeLike) -> npt.NDArray[Any]:
    content = mmap.mmap(file.fileno(), 0)
    return np.frombuffer(content, of).reshape(shape)

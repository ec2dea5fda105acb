"""Reads the files of examples, up to a maximum size, and checks that they are as ingested.

The kind of an example decides which files are accepted: the limits are passed as arguments.
"""

import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ..core.errors import DataError, RefusedError
from . import objects, rows

# With --force, because DVC records the files' state after `ingest`: it may know the changed file.
INGEST_AGAIN = "run `headstart repro --force ingest`, then `headstart repro`"

MOST_BYTES = 1_000_000_000  # no kind accepts larger files
AHEAD_BYTES = 64_000_000  # of objects that are read ahead


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data`, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def leads_out(path: Path) -> bool:
    """Return whether a path in a user's table may lead out of the current folder.

    Links are followed all the same, because DVC links files from its cache.
    """
    return path.is_absolute() or ".." in path.parts


def load(path: Path, most_bytes: int) -> bytes:
    """Return the bytes of an example: a regular file of at most `most_bytes`, a row or an object.

    Reading never blocks, not even on a named pipe without a writer.

    Raises:
        RefusedError: the message is the reason, in a few words.
        DataError: an object's bucket cannot be read, or the object has changed since it was listed.
    """

    table = rows.parted(path)
    if table and objects.is_listing(table[0]):
        return objects.load(*table, most_bytes)
    if table:
        data = rows.load(*table)
        if len(data) > most_bytes:
            raise RefusedError(
                f"too large: {len(data) / 1e6:,.1f} MB, at most {most_bytes / 1e6:g} MB"
            )
        if not data:
            raise RefusedError("empty")
        return data

    def without_waiting(name: str, flags: int) -> int:
        # Opening a named pipe would wait until another process writes to it.
        return os.open(name, flags | os.O_NONBLOCK)

    try:
        with open(path, "rb", opener=without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise RefusedError("not a regular file")
            if status.st_size > most_bytes:
                raise RefusedError(
                    f"too large: {status.st_size / 1e6:,.0f} MB, at most {most_bytes / 1e6:.0f} MB"
                )
            # A file of /proc has no size, and reading it may wait for ever.
            data = file.read(status.st_size)
    except OSError as error:
        raise RefusedError(f"cannot be read ({error.strerror or error})") from None
    if not data:
        raise RefusedError("empty file")
    return data


def size(path: Path) -> int:
    """Return an example's size in bytes without reading it; 0 if it is a row or no regular file."""
    if table := rows.parted(path):
        return objects.size(*table) if objects.is_listing(table[0]) else 0
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def read(path: Path, expected_digest: str) -> bytes:
    """Return the bytes of an example, checked against its digest in the manifest.

    Raises:
        DataError: the path leads out of the project, the file does not exist or has changed since
            it was ingested, or a bucket cannot be read.
    """
    if leads_out(path):
        raise DataError(f"{path} leads out of the project; ingest never writes such a path")
    try:
        data = load(path, MOST_BYTES)
    except RefusedError as error:
        raise DataError(f"{path}: {error}; {INGEST_AGAIN}") from None
    if digest(data) != expected_digest:
        raise DataError(f"{path} changed after it was ingested; {INGEST_AGAIN}")
    return data


def read_each(examples: Iterable[tuple[Path, str]]) -> Iterator[bytes]:
    """Yield the bytes of each example, as `read` returns them for a path and a digest.

    Several objects of a bucket are requested in advance, because a distant server takes long to
    respond.

    Raises:
        DataError: as in `read`, for the example that is next.
    """
    waiting: deque[tuple[int, Future[bytes]]] = deque()
    ahead = 0
    with ThreadPoolExecutor(objects.READERS) as pool:  # starts threads when a task is submitted
        for path, expected_digest in examples:
            table = rows.parted(path)
            if table is None or not objects.is_listing(table[0]):
                yield read(path, expected_digest)
                continue
            waiting.append((objects.size(*table), pool.submit(read, path, expected_digest)))
            ahead += waiting[-1][0]
            while len(waiting) > objects.READERS or ahead > AHEAD_BYTES:
                bytes_, first = waiting.popleft()
                ahead -= bytes_
                yield first.result()
        while waiting:
            yield waiting.popleft()[1].result()

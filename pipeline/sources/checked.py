"""Open and inspect every file of a source once; results of earlier runs are cached."""

import contextlib
import itertools
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core import packages
from ..core.errors import ChangedError, DataError, RefusedError, StoreError
from ..core.progress import Progress
from ..examples import files, objects, rows
from ..kinds import Kind
from ..store.interface import Store
from ..store.vectors import open_store
from ..tables.manifest import UNLABELLED
from . import remembered
from .found import Found, Refused

Stamp = tuple[int, int, int]  # inode, size, time of the last change in nanoseconds


class Checked(NamedTuple):
    """An accepted example: where it was found, its bytes' SHA-256, and what they contain.

    `seen` has a value for each of the kind's `columns`.
    """

    found: Found
    digest: str
    seen: tuple[Any, ...]


class Memory:
    """A cache of inspected examples, so that later runs hash them but do not decode them again.

    Objects of a bucket with the same address, ETag and size are not even read again: the cache also
    has their digest, or why they were refused. The cache is in the feature store, with one entry
    per example and one per object. If the store cannot be used, a warning is printed and the
    examples are decoded. Threads may share a cache.
    """

    def __init__(self, kind: Kind) -> None:
        """Open the feature store."""
        self._kind = kind
        self._store: Store | None = None
        self._new: dict[bytes, NDArray[np.float32]] = {}
        # A file that needs a missing set of packages is refused only until the set is installed.
        # No file needs the set of weights.
        sets = [name for name in packages.SETS if name != "weights"]
        here = [name for name in sets if not packages.missing(name)]
        self._read_by = f"{kind.inspected_by()}, {' '.join(here)}"
        self._giving_up = threading.Lock()
        try:
            self._store = open_store()
        except StoreError as error:
            self._warn(error)

    def inspect(self, data: bytes, digest: str) -> tuple[Any, ...]:
        """Return `Kind.inspect` of the data, cached by its bytes; refusals are not cached."""
        libraries = self._kind.read_by(self._kind.form(data))
        made_by = f"{self._kind.inspected_by()}{libraries}, {digest}"
        key = blake2b(made_by.encode(), digest_size=16).digest()
        kept = self._get([key])
        if key in kept and (known := self._kind.recall(kept[key])) is not None:
            return known
        seen = self._kind.inspect(data)
        self._new[key] = self._kind.remember(seen)
        return seen

    def objects(self, found: list[Found]) -> dict[Path, Checked | Refused]:
        """Return the cached results for those of these examples that are objects of a bucket."""
        keys = {self._key(row): row for row in found if row.identity}
        known: dict[Path, Checked | Refused] = {}
        for key, numbers in self._get(list(keys)).items():
            row, result = keys[key], remembered.read(numbers, self._kind)
            if isinstance(result, str):
                known[row.path] = Refused(row.path, result)
            elif result is not None:
                known[row.path] = Checked(row, *result)
        return known

    def note(self, row: Found, digest: str, seen: tuple[Any, ...] | None, reason: str = "") -> None:
        """Cache the result for an object; if `seen` is None, the `reason` for its refusal."""
        if not row.identity:
            return
        if seen is None:
            self._new[self._key(row)] = remembered.refused(reason)
        else:
            self._new[self._key(row)] = remembered.passed(digest, self._kind.remember(seen))

    def keep(self) -> None:
        """Write the new entries to the store."""
        entries, self._new = self._new, {}
        try:
            if self._store and entries:
                self._store.put(entries)
        except StoreError as error:
            self._do_without(error)

    def close(self) -> None:
        """Close the store."""
        try:
            if self._store:
                self._store.close()
        except StoreError as error:
            self._do_without(error)

    def _key(self, row: Found) -> bytes:
        content = row.identity + self._read_by.encode()
        return blake2b(content, digest_size=16, person=b"object").digest()

    def _get(self, keys: list[bytes]) -> dict[bytes, NDArray[np.float32]]:
        opened = self._store  # read once, because another thread may disable the store meanwhile
        try:
            return opened.get(keys) if opened and keys else {}
        except StoreError as error:
            self._do_without(error)
            return {}

    def _do_without(self, error: StoreError) -> None:
        """Stop using the store; only the first of several failing threads prints a warning."""
        with self._giving_up:
            opened, self._store = self._store, None
        if opened:
            self._warn(error)
            with contextlib.suppress(StoreError):
                opened.close()

    def _warn(self, error: StoreError) -> None:
        print(f"ingest: warning: {self._kind.nouns} seen before are decoded again: {error}")


def check(found: list[Found], kind: Kind) -> tuple[list[Checked], list[Refused]]:
    """Open and decode every file in parallel; each is accepted or refused.

    Raises:
        DataError: a bucket cannot be read, or objects have changed since they were listed. The
            results so far are cached all the same.
    """

    def outcome(row: Found) -> Checked | Refused | ChangedError:
        try:
            with kind.alone(row.path):
                data = files.load(row.path, kind.most_bytes)
                digest = files.digest(data)
                try:
                    seen = memory.inspect(data, digest)
                except RefusedError as error:  # for its content; denied access is not cached
                    memory.note(row, digest, None, str(error))
                    raise
                memory.note(row, digest, seen)
                return Checked(row, digest, seen)
        except RefusedError as error:
            return Refused(row.path, str(error))
        except ChangedError as error:
            return error

    passed: list[Checked] = []
    refused: list[Refused] = []
    changed: list[ChangedError] = []
    workers = os.cpu_count() or 1
    if any(row.identity for row in found[:1]):
        workers = max(workers, objects.READERS)
    with (
        contextlib.closing(Memory(kind)) as memory,
        ThreadPoolExecutor(workers) as pool,
        Progress("ingest", len(found), kind.nouns) as progress,
    ):
        for chunk in _chunks(found, 64 * workers):
            known = memory.objects(chunk)
            asked = [
                pool.submit(lambda row: known.get(row.path) or outcome(row), row)  # noqa: B023
                for row in chunk
            ]
            try:
                for one in asked:
                    result = one.result()
                    if isinstance(result, Checked):
                        passed.append(result)
                    elif isinstance(result, Refused):
                        refused.append(result)
                    else:
                        changed.append(result)
            finally:
                for one in asked:  # after an error, cancel those that have not started
                    one.cancel()
                wait(asked)  # threads that still read have results to cache too
                memory.keep()
            progress.advance(len(chunk))
    if changed:
        more = f"; with it {len(changed) - 1:,} others" * (len(changed) > 1)
        raise ChangedError(f"{changed[0]}{more}")
    return passed, refused


def stop_if_changed(before: dict[Path, Stamp | None]) -> None:
    """Raise `DataError` if a file has changed since it was listed.

    DVC records the files' state after the stage, and would record the changed file as ingested.
    """
    changed = [file for file, stamp in before.items() if _stamp(file) != stamp]
    if changed:
        raise DataError(
            f"{len(changed)} files changed while ingest read them, the first {changed[0]};"
            " run it again when nothing writes there any more"
        )


def stamps(files: Iterable[Path]) -> dict[Path, Stamp | None]:
    """Return a value for each file that changes with its content; None if there is no file."""
    return {file: _stamp(file) for file in dict.fromkeys(files)}


def files_of(found: list[Found]) -> Iterator[Path]:
    """Return the files that hold the examples; for rows, the table and the matrix beside it."""
    return (file for row in found for file in rows.files_of(row.path))


def _stamp(file: Path) -> Stamp | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def drop_odd(passed: list[Checked], kind: Kind) -> tuple[list[Checked], list[Refused]]:
    """Keep the examples with the most frequent value in the kind's column `same`.

    For vectors of two lengths, for example, those of the more frequent length stay.
    """
    if not kind.same or not passed:
        return passed, []
    place = kind.columns.index(kind.same)
    counts = Counter(example.seen[place] for example in passed)
    # If two values are equally frequent, the larger one is kept, whatever the order.
    commonest = max(counts, key=lambda value: (counts[value], value))
    kept = [example for example in passed if example.seen[place] == commonest]
    refused = [
        Refused(
            example.found.path,
            f"{kind.same} {example.seen[place]}, where {counts[commonest]:,} {kind.nouns} have"
            f" {commonest}",
        )
        for example in passed
        if example.seen[place] != commonest
    ]
    return kept, refused


def drop_repeats(passed: list[Checked], kind: Kind) -> tuple[list[Checked], list[Refused]]:
    """Keep one of several identical files, so that no content is both trained and tested on.

    If their labels agree, the file in the most held-out split stays (test, then val, then train).
    If their labels differ, no file stays, because at least one label is wrong. An unlabelled
    example, of another domain, stays if no other has its bytes.
    """
    by_digest: dict[str, list[Checked]] = {}
    for example in passed:
        by_digest.setdefault(example.digest, []).append(example)
    held_out_first = ("test", "val", "train", "", UNLABELLED)
    kept: list[Checked] = []
    refused: list[Refused] = []
    for copies in by_digest.values():
        copies.sort(key=lambda example: (held_out_first.index(example.found.split), example.found))
        first = copies[0].found
        labelled = [example.found for example in copies if example.found.split != UNLABELLED]
        labels = sorted({found.label for found in labelled})
        if len({(found.label, str(found.targets)) for found in labelled}) > 1:
            reason = f"the same {kind.noun} has the labels " + " and ".join(labels)
            refused += [Refused(example.found.path, reason) for example in copies]
            continue
        kept.append(copies[0])
        for example in copies[1:]:
            path = example.found.path
            again = path == first.path
            reason = "named twice" if again else f"the same {kind.noun} as {first.path}"
            refused.append(Refused(path, reason))
    return kept, refused


def _chunks(rows: Iterable[Found], size: int) -> Iterator[list[Found]]:
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk

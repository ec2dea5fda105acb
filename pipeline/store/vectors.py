"""The store on this machine, as its users see it, and the door to whichever store is chosen."""

import contextlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .database import Database, features_file
from .eviction import DAY_US, Eviction, delete, now, stamp, stored_bytes
from .interface import Feature, Store, blob, checksum
from .places import default_limit, default_place
from .shared import SharedStore

MANY = 10_000  # keys from which on it is asked whether reading all of them is quicker
SCANNED = 6  # how many keys are read in the time in which one is looked up
STAMPS_HELD = 10_000  # uses noted in memory before they are written


@dataclass(frozen=True)
class Statistics:
    """What a store holds; `bytes` is what it takes on disk, the times are of last uses."""

    entries: int
    bytes: int
    oldest: datetime | None
    newest: datetime | None


class FeatureStore:
    """A store of features on disk; use it in a `with` block.

    Threads may share it. Every process opens its own; none may be carried over a fork.
    Every method raises `StoreError` if the store cannot be read or written.
    """

    def __init__(self, folder: Path, limit_bytes: int | None) -> None:
        """Open the store in `folder`, begun if there is none; `limit_bytes` None: no limit."""
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.path = features_file(folder)
        self.damaged = 0  # entries whose checksum failed so far
        self._began = now()
        self._turn = threading.RLock()
        self._read: set[bytes] = set()  # keys whose use is not yet written down
        self._found: set[bytes] = set()  # keys that `held` found, which this run will read
        self._bad: list[tuple[bytes, int]] = []  # key and id of damaged entries to delete
        self._file = Database(folder)
        self._eviction = None if limit_bytes is None else Eviction(self._file, limit_bytes)

    def __enter__(self) -> "FeatureStore":
        """The store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Write down what was used and close the file."""
        with self._turn:
            try:
                if self._read or self._bad:
                    self._file.attempt(self._write_notes)
            finally:
                self._file.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Feature]:
        """The features found for `keys`: read-only float32 vectors; the missing are left out.

        A damaged entry is counted in `damaged`, deleted and left out.
        """
        with self._turn:
            return self._file.attempt(lambda: self._get(keys))

    def held(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of `keys` that have an entry, without checking it.

        A `put` that follows does not evict them, for they will be read; a look that nothing
        follows does not count as a use.
        """
        with self._turn:
            found = self._file.attempt(lambda: self._held(keys))
            self._found |= found
        return found

    def checksums(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """The checksums of the vectors of `keys`, without reading these; counts as a use.

        The missing are left out. A damaged entry shows only on `get`.
        """
        with self._turn:
            return self._file.attempt(lambda: self._checksums(keys))

    def put(self, entries: Mapping[bytes, Feature]) -> None:
        """Store float32 vectors of any length under their keys, all of them or none.

        Raises:
            ValueError: a value is not a float32 vector.
            StoreError: no room, or the folder cannot be written.
        """
        blobs = {key: blob(value) for key, value in entries.items()}
        with self._turn:
            if self._file.refusal:  # perhaps no longer
                self._file.reopen()
            if self._file.refusal:
                raise self._file.problem(self._file.refusal)
            self._file.attempt(lambda: self._put(blobs))

    def statistics(self) -> Statistics:
        """What the store holds at this moment."""
        # A flipped bit can turn a stamp into anything.
        stamps = "SELECT min(used), max(used) FROM entries WHERE used BETWEEN 0 AND ?"
        with self._turn:
            (entries,) = self._file.attempt(lambda: self._file.one("SELECT count(*) FROM entries"))
            oldest, newest = self._file.attempt(lambda: self._file.one(stamps, now() + DAY_US))
        size = 0
        for file in self.folder.glob(f"{self.path.name}*"):
            with contextlib.suppress(FileNotFoundError):  # the log comes and goes
                size += file.stat().st_size
        return Statistics(entries, size, _moment(oldest), _moment(newest))

    def clear(self) -> None:
        """Delete all entries, files of other layouts and what was set aside; free the disk."""
        with self._turn:
            try:
                with self._file.alone():
                    self._file.close()
                    # Deleting rows would need room in the log, which a full disk has not.
                    for file in self.folder.glob("features-v*"):
                        file.unlink(missing_ok=True)
            except OSError as error:
                raise self._file.problem(error) from error
            self._read.clear()
            self._found.clear()
            self._file.reopen()

    # Reading and writing.

    def _held(self, keys: Sequence[bytes]) -> set[bytes]:
        if len(keys) > MANY:
            (entries,) = self._file.one("SELECT count(*) FROM entries")
            if entries < SCANNED * len(keys):  # reading all keys is quicker than looking each up
                wanted = set(keys)
                every = self._file.connection.execute("SELECT key FROM entries")
                return {key for (key,) in every if key in wanted}
        query = "SELECT key FROM entries WHERE key IN ({})"
        return {key for (key,) in self._file.rows(query, keys)}

    def _get(self, keys: Sequence[bytes]) -> dict[bytes, Feature]:
        found: dict[bytes, Feature] = {}
        query = (
            "SELECT key, id, used, checksum, value FROM entries JOIN vectors USING (id) "
            "WHERE key IN ({})"
        )
        for key, row, used, expected, value in self._file.rows(query, keys):
            if isinstance(value, bytes) and checksum(key, value) == expected:
                found[key] = np.frombuffer(value, dtype="<f4")
                self._note_use(key, used)
            else:
                self.damaged += 1
                self._bad.append((key, row))
        if self._bad or len(self._read) >= STAMPS_HELD:
            self._write_notes()
        return found

    def _checksums(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        query = "SELECT key, used, checksum FROM entries JOIN vectors USING (id) WHERE key IN ({})"
        for key, used, expected in self._file.rows(query, keys):
            if isinstance(expected, int):
                found[key] = expected
                self._note_use(key, used)
        if len(self._read) >= STAMPS_HELD:
            self._write_notes()
        return found

    def _note_use(self, key: bytes, used: Any) -> None:
        if not isinstance(used, int) or used < self._began:
            self._read.add(key)

    def _write_notes(self) -> None:
        """Write down what was used, and delete what was found damaged."""
        if self._file.refusal:
            self._read.clear()
            self._bad.clear()
            return
        # On a full disk reading goes on: what is lost is when these entries were last used.
        with (
            contextlib.suppress(OSError, sqlite3.OperationalError),
            self._file.transaction() as database,
        ):
            stamp(database, self._read)
            delete(database, self._bad)
        self._read.clear()
        self._bad.clear()

    def _put(self, blobs: dict[bytes, bytes]) -> None:
        if self._read or self._bad:
            self._write_notes()
        if self._eviction:
            coming = sum(stored_bytes(len(value)) for value in blobs.values()) + 65536
            self._eviction.make_room(coming, self._found)
        with self._file.transaction() as database:
            query = "SELECT key, id FROM entries WHERE key IN ({})"
            delete(database, list(self._file.rows(query, list(blobs))))
            (last,) = self._file.one("SELECT coalesce(max(id), 0) FROM vectors")
            ids = range(last + 1, last + 1 + len(blobs))
            database.executemany(
                "INSERT INTO vectors VALUES (?, ?, ?)",
                [
                    (i, checksum(*entry), entry[1])
                    for i, entry in zip(ids, blobs.items(), strict=True)
                ],
            )
            moment = now()
            database.executemany(
                "INSERT INTO entries VALUES (?, ?, ?)",
                [(key, i, moment) for i, key in zip(ids, blobs, strict=True)],
            )


def _moment(stamp: int | None) -> datetime | None:
    return None if stamp is None else datetime.fromtimestamp(stamp / 1e6, UTC)


def open_store() -> Store:
    """The store in the folder or bucket and with the limit that the user has chosen.

    Raises:
        MissingSetError: it is in a bucket, and the set of packages for buckets is not installed.
    """
    return store_at(default_place(), default_limit())


def store_at(place: str, limit_bytes: int | None) -> Store:
    """The store in a folder, or below an address s3://BUCKET/PREFIX; None: no limit.

    Raises:
        MissingSetError: it is in a bucket, and the set of packages for buckets is not installed.
    """
    if place.startswith("s3://"):
        return SharedStore(place, limit_bytes)
    return FeatureStore(Path(place), limit_bytes)

"""The store on this machine, and functions that open the configured store."""

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
from .places import default_folder, default_limit, default_place
from .shared import SharedStore

MANY = 10_000  # keys above which reading all keys may be faster than looking each up
SCANNED = 6  # keys that can be read in the time of one look-up
STAMPS_HELD = 10_000  # uses kept in memory before they are written


@dataclass(frozen=True)
class Statistics:
    """The size of a store; `bytes` is its size on disk, the times are those of last uses."""

    entries: int
    bytes: int
    oldest: datetime | None
    newest: datetime | None


class FeatureStore:
    """A store of features on disk; use it in a `with` block.

    Threads may share it. Every process opens its own store; a store must not be used after a fork.
    Every method raises `StoreError` if the store cannot be read or written.
    """

    def __init__(self, folder: Path, limit_bytes: int | None) -> None:
        """Open the store in `folder` or create it; without a limit if `limit_bytes` is None."""
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.path = features_file(folder)
        self.damaged = 0  # entries whose checksum failed so far
        self._began = now()
        self._turn = threading.RLock()
        self._read: set[bytes] = set()  # keys whose use is not yet written
        self._found: set[bytes] = set()  # keys that `held` found, which this run will read
        self._bad: list[tuple[bytes, int]] = []  # key and id of damaged entries to delete
        self._file = Database(folder)
        self._eviction = None if limit_bytes is None else Eviction(self._file, limit_bytes)

    def __enter__(self) -> "FeatureStore":
        """Return the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Write which entries were used, and close the file."""
        with self._turn:
            try:
                if self._read or self._bad:
                    self._file.attempt(self._write_notes)
            finally:
                self._file.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Feature]:
        """Return the features of `keys`, read-only float32 vectors; missing keys are left out.

        Damaged entries are counted in `damaged`, deleted and left out.
        """
        with self._turn:
            return self._file.attempt(lambda: self._get(keys))

    def held(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return the `keys` that have an entry; entries are not verified.

        A later `put` does not evict them, because the run will read them. A call of this method
        alone does not count as a use.
        """
        with self._turn:
            found = self._file.attempt(lambda: self._held(keys))
            self._found |= found
        return found

    def checksums(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Return the stored checksums of `keys` without reading vectors; this counts as a use.

        Missing keys are left out. Only `get` detects damaged entries.
        """
        with self._turn:
            return self._file.attempt(lambda: self._checksums(keys))

    def put(self, entries: Mapping[bytes, Feature]) -> None:
        """Store float32 vectors of any length under their keys, either all or none.

        Raises:
            ValueError: a value is not a float32 vector.
            StoreError: the disk is full, or the folder cannot be written.
        """
        blobs = {key: blob(value) for key, value in entries.items()}
        with self._turn:
            if self._file.refusal:  # it may be writable by now
                self._file.reopen()
            if self._file.refusal:
                raise self._file.problem(self._file.refusal)
            self._file.attempt(lambda: self._put(blobs))

    def statistics(self) -> Statistics:
        """Return the current size of the store."""
        # A flipped bit can change a time stamp to any value.
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
        """Delete all entries, files of other layouts and damaged files; free the disk space."""
        with self._turn:
            try:
                with self._file.alone():
                    self._file.close()
                    # Deleting rows needs space for the log, which a full disk does not have.
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
        """Write which entries were used, and delete damaged ones."""
        if self._file.refusal:
            self._read.clear()
            self._bad.clear()
            return
        # On a full disk reading still works; only the times of last use are lost.
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
    """Open the store in the configured folder or bucket, with the configured limit.

    Raises:
        MissingSetError: the store is in a bucket, and the packages for buckets are not installed.
    """
    return store_at(default_place(), default_limit())


def open_local() -> Store:
    """Open the store on this machine, even if the features are in a bucket."""
    return FeatureStore(default_folder(), default_limit())


def store_at(place: str, limit_bytes: int | None) -> Store:
    """Open the store in a folder or at s3://BUCKET/PREFIX; None means no limit.

    Raises:
        MissingSetError: the store is in a bucket, and the packages for buckets are not installed.
    """
    if place.startswith("s3://"):
        return SharedStore(place, limit_bytes)
    return FeatureStore(Path(place), limit_bytes)

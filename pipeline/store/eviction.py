"""Eviction of the least recently used entries, except those that the current run uses."""

import math
import sqlite3
import sys
import time
from collections.abc import Iterable, Sequence

from .database import LOG_BYTES, PAGE_BYTES, Database

EVICT_DOWN_TO = 0.95  # of the limit, so that not every put evicts
EVICT_AT_ONCE = 5_000  # entries per transaction, so that other processes get their turn
STAMPS_AT_ONCE = 10_000
DAY_US = 86_400_000_000


class Eviction:
    """Keeps a store within its limit of bytes."""

    def __init__(self, database: Database, limit: int) -> None:
        """Treat entries that are used from now on as used by the current run."""
        self.database, self.limit, self.began = database, limit, now()
        self._exceeds = False  # whether the entries of this run alone exceed the limit

    def make_room(self, coming: int, found: set[bytes]) -> None:
        """Evict the least recently used entries until `coming` more bytes fit within the limit.

        Args:
            coming: bytes that are about to be written.
            found: keys that the run will read; if entries have to be evicted, these are marked as
                used, and the set is emptied.
        """
        database, limit = self.database, self.limit
        taken = database.bytes("page") - database.bytes("freelist")
        while taken + coming > limit and not self._exceeds:
            fraction = min(1.0, (taken + coming - limit * EVICT_DOWN_TO) / taken)
            if not self._evict(fraction, found):
                # Used entries stay used, so later puts need not check again.
                self._exceeds = True
                print(
                    f"store: this run alone uses more than the limit of {limit / 1e9:g} GB, so "
                    "nothing more is deleted; to change the limit, set store.limit in params.yaml "
                    "(or HEADSTART_STORE_LIMIT)",
                    file=sys.stderr,
                )
            taken = database.bytes("page") - database.bytes("freelist")
        # The file is longer than the limit if the limit was lowered.
        while database.bytes("page") > limit and database.bytes("freelist"):
            with database.writing():  # `execute` would free only one page
                pages = LOG_BYTES // PAGE_BYTES
                database.connection.executescript(f"PRAGMA incremental_vacuum({pages})")

    def _evict(self, fraction: float, found: set[bytes]) -> int:
        """Delete a fraction of the entries, least recently used first, except those of this run."""
        keys = sorted(found)  # in the table's order, so that each page is written once
        for start in range(0, len(keys), STAMPS_AT_ONCE):
            with self.database.transaction() as connection:
                stamp(connection, keys[start : start + STAMPS_AT_ONCE])
        found.clear()
        entries = self.database.one("SELECT count(*) FROM entries")[0]
        # A time stamp in the future means that the clock was set back, not that this run used it.
        oldest = self.database.connection.execute(
            "SELECT key, id FROM entries WHERE used NOT BETWEEN ? AND ? ORDER BY used LIMIT ?",
            (self.began, now() + DAY_US, math.ceil(fraction * entries)),
        ).fetchall()
        for start in range(0, len(oldest), EVICT_AT_ONCE):
            with self.database.transaction() as connection:
                delete(connection, oldest[start : start + EVICT_AT_ONCE])
        return len(oldest)


def stamp(connection: sqlite3.Connection, keys: Iterable[bytes]) -> None:
    """Record that these entries were used now."""
    moment = now()
    rows = [(moment, key) for key in keys]
    connection.executemany("UPDATE entries SET used = ? WHERE key = ?", rows)


def delete(connection: sqlite3.Connection, rows: Sequence[tuple[bytes, int]]) -> None:
    """Delete the entries with these keys and ids, unless one of the two has changed since."""
    connection.executemany(
        "DELETE FROM vectors WHERE id = (SELECT id FROM entries WHERE key = ? AND id = ?)", rows
    )
    connection.executemany("DELETE FROM entries WHERE key = ? AND id = ?", rows)


def stored_bytes(length: int) -> int:
    """Return an upper bound on the file's bytes for an entry with `length` bytes of vector.

    An entry takes 7 % more than `length` at 1280 dimensions; small vectors have more overhead.
    """
    return length * 9 // 8 + 128


def now() -> int:
    """Return the current time in microseconds since 1970."""
    return time.time_ns() // 1000

"""Eviction: what was used longest ago goes first, and nothing that the current run uses."""

import math
import sqlite3
import sys
import time
from collections.abc import Iterable, Sequence

from .database import LOG_BYTES, PAGE_BYTES, Database

EVICT_DOWN_TO = 0.95  # of the limit, so that not every put evicts
EVICT_AT_ONCE = 5_000  # entries a transaction, so that other processes get their turn
STAMPS_AT_ONCE = 10_000
DAY_US = 86_400_000_000


class Eviction:
    """Keeps a store within its limit of bytes."""

    def __init__(self, database: Database, limit: int) -> None:
        """Count as the current run's what is used from now on."""
        self.database, self.limit, self.began = database, limit, now()
        self._exceeds = False  # whether all there is was used by this run, and is too much

    def make_room(self, coming: int, found: set[bytes]) -> None:
        """Evict the least recently used until `coming` bytes more stay within the limit.

        Args:
            coming: bytes.
            found: keys that the run will read; they are stamped as used, and the set is emptied.
        """
        database, limit = self.database, self.limit
        taken = database.bytes("page") - database.bytes("freelist")
        while taken + coming > limit and not self._exceeds:
            fraction = min(1.0, (taken + coming - limit * EVICT_DOWN_TO) / taken)
            if not self._evict(fraction, found):
                # What is used stays so: there is no need to look again at each put.
                self._exceeds = True
                print(
                    f"store: this run alone uses more than the limit of {limit / 1e9:g} GB, which "
                    "is exceeded; store.limit in params.yaml (or HEADSTART_STORE_LIMIT) sets "
                    "another",
                    file=sys.stderr,
                )
            taken = database.bytes("page") - database.bytes("freelist")
        # Longer than the limit is a file whose limit was lowered.
        while database.bytes("page") > limit and database.bytes("freelist"):
            with database.writing():  # by executescript: execute would free a single page
                pages = LOG_BYTES // PAGE_BYTES
                database.connection.executescript(f"PRAGMA incremental_vacuum({pages})")

    def _evict(self, fraction: float, found: set[bytes]) -> int:
        """Delete this fraction of the entries, the least recently used; none that this run used."""
        keys = sorted(found)  # in the table's order, so that each page is written once
        for start in range(0, len(keys), STAMPS_AT_ONCE):
            with self.database.transaction() as connection:
                stamp(connection, keys[start : start + STAMPS_AT_ONCE])
        found.clear()
        entries = self.database.one("SELECT count(*) FROM entries")[0]
        # A stamp from the future comes of a clock set back, not of the current run.
        oldest = self.database.connection.execute(
            "SELECT key, id FROM entries WHERE used NOT BETWEEN ? AND ? ORDER BY used LIMIT ?",
            (self.began, now() + DAY_US, math.ceil(fraction * entries)),
        ).fetchall()
        for start in range(0, len(oldest), EVICT_AT_ONCE):
            with self.database.transaction() as connection:
                delete(connection, oldest[start : start + EVICT_AT_ONCE])
        return len(oldest)


def stamp(connection: sqlite3.Connection, keys: Iterable[bytes]) -> None:
    """Write down that these entries were used now."""
    moment = now()
    rows = [(moment, key) for key in keys]
    connection.executemany("UPDATE entries SET used = ? WHERE key = ?", rows)


def delete(connection: sqlite3.Connection, rows: Sequence[tuple[bytes, int]]) -> None:
    """Delete the entries of these keys and ids, but not what came under either since."""
    connection.executemany(
        "DELETE FROM vectors WHERE id = (SELECT id FROM entries WHERE key = ? AND id = ?)", rows
    )
    connection.executemany("DELETE FROM entries WHERE key = ? AND id = ?", rows)


def stored_bytes(length: int) -> int:
    """The most bytes that an entry takes in the file, if its vector has `length` bytes.

    This is 7 % more than `length` at 1280 numbers; the overhead of small vectors is larger.
    """
    return length * 9 // 8 + 128


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000

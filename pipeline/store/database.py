"""The SQLite file of the store: opening, locking, writing, and replacing a damaged file."""

import contextlib
import errno
import fcntl
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import StoreError

Result = TypeVar("Result")

LAYOUT = 1  # raise when the tables, the checksum or the format of keys change

PATIENCE_S = 300.0  # how long to wait for other processes to finish writing
READERS_PATIENCE_S = 30.0  # how long to wait for a reader, or for a process that closes the file
KEYS_A_QUERY = 500
LOG_BYTES = 2**24  # size of the write-ahead log above which it is checkpointed
PAGE_BYTES = 4096  # with larger pages, features just over half a page waste space

# SQLITE_FULL is only for a full disk; quotas and SQLite's own files cause the other codes.
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)

APPLICATION_ID = 0x48535446  # "HSTF", in SQLite's header
SCHEMA = f"""
BEGIN;
CREATE TABLE entries (key BLOB PRIMARY KEY, id INTEGER NOT NULL, used INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE vectors (id INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, value BLOB NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {LAYOUT};
COMMIT;
"""


def features_file(folder: Path) -> Path:
    """Return the path of the SQLite file in the store's folder."""
    return folder / f"features-v{LAYOUT}.sqlite"


class _DamagedError(Exception):
    """The file is damaged or is not a feature store; the text says why."""


class Database:
    """The store's SQLite file. Only one thread at a time may call its methods."""

    def __init__(self, folder: Path) -> None:
        """Open the file in `folder`; create it if it does not exist or is damaged."""
        self.folder = folder
        self.path = features_file(folder)
        self.refusal: Exception | None = None  # why the store can only be read
        self._log = folder / f"{self.path.name}-wal"
        self._inode: int | None = None  # of the file that is open
        self.connection = self._open()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock that a process needs to write, open or replace the file.

        SQLite has a lock for writers, but waiting for it is unfair, and checkpoints do not take it.
        """
        with (self.folder / "lock").open("a") as lock:
            until = time.monotonic() + PATIENCE_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise TimeoutError from None
                    time.sleep(0.002)
            try:
                yield
            finally:  # closing the file would not unlock it if a fork has inherited it
                fcntl.flock(lock, fcntl.LOCK_UN)

    def reopen(self, damage: str = "") -> None:
        """Open the file again; `damage` describes what is wrong with the previous file."""
        self.connection.close()
        self.connection = self._open(damage)

    def _open(self, damage: str = "") -> sqlite3.Connection:
        """Open the file, read-only if necessary; `damage` is as in `reopen`."""
        last, self._inode = self._inode, None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.alone():
                if damage and last == self._inode_there():
                    self._set_aside(damage)
                try:
                    database = self._attach()
                except _DamagedError as error:
                    self._set_aside(str(error))
                    database = self._attach()
                self._inode = self._inode_there()
            self.refusal = None
        except (OSError, sqlite3.OperationalError) as error:
            database = self._open_read_only(error)
            self._inode = self._inode_there()
            self.refusal = error
        return database

    def _attach(self) -> sqlite3.Connection:
        if not self.path.exists():
            # Processes that still have the last file open must not share its log with the new file.
            for ending in ("-wal", "-shm"):
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        database = self._connect(f"{self.path.absolute().as_uri()}?mode=rwc")
        try:
            tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not tables:
                database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                database.execute("PRAGMA auto_vacuum = INCREMENTAL")
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(SCHEMA)
            _check_layout(database)
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA wal_autocheckpoint = 0")
            database.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        except BaseException as error:
            database.close()
            if self._is_damage(error):
                raise _DamagedError(" ".join(str(error).split())) from error
            raise
        return database

    def _open_read_only(self, refusal: Exception) -> sqlite3.Connection:
        """Open the file for reading, if the folder is read-only or the disk is too full."""
        try:
            # Without a log the file is complete, and SQLite can read it without other files.
            logged = self._log.exists() and self._log.stat().st_size
            mode = "mode=ro" if logged else "immutable=1"
            database = self._connect(f"{self.path.absolute().as_uri()}?{mode}")
        except (OSError, sqlite3.OperationalError):
            raise self.problem(refusal) from refusal
        try:
            _check_layout(database)
        except (sqlite3.DatabaseError, UnicodeDecodeError, _DamagedError):
            database.close()
            raise self.problem(refusal) from refusal
        return database

    def _connect(self, address: str) -> sqlite3.Connection:
        database = sqlite3.connect(
            address,
            uri=True,
            timeout=READERS_PATIENCE_S,
            isolation_level=None,
            check_same_thread=False,
        )
        database.text_factory = bytes  # a flipped bit may turn a value into invalid text
        database.execute("PRAGMA cell_size_check = ON")
        return database

    def _set_aside(self, reason: str) -> None:
        aside = self.path.with_suffix(".damaged")
        self.path.replace(aside)
        print(
            f"store: {self.path} is damaged ({reason}); a new one is created; the old one "
            f"is kept as {aside.name}, and you can delete it",
            file=sys.stderr,
        )

    def _inode_there(self) -> int:
        try:
            return self.path.stat().st_ino
        except FileNotFoundError:
            return 0

    def attempt(self, work: Callable[[], Result]) -> Result:
        """Do `work` on the file; if the file is damaged, repeat it on a new one."""
        try:
            if self._inode != self._inode_there():  # another process cleared or replaced it
                self.reopen()
            try:
                return work()
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if not self._is_damage(error) or self.refusal:
                    raise
                self.reopen(damage=" ".join(str(error).split()))
                return work()
        except (OSError, sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self.problem(error) from error

    def _is_damage(self, error: BaseException) -> bool:
        """Return whether an error means damage: on an intact file, no statement here is invalid."""
        if isinstance(error, UnicodeDecodeError):
            return True  # SQLite quotes a damaged schema in its message
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_READONLY:
            return os.access(self.path, os.W_OK)  # the header asks for a newer SQLite
        return code & 0xFF in (
            sqlite3.SQLITE_ERROR,
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
            sqlite3.SQLITE_CONSTRAINT,
            sqlite3.SQLITE_MISMATCH,
        )

    def problem(self, error: Exception) -> StoreError:
        """Return the one-line error for a failure of SQLite or the operating system."""
        code = getattr(error, "sqlite_errorcode", 0)
        if code in NO_ROOM or getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT):
            return StoreError(
                f"no room to write to the feature store in {self.folder} ({error}); free some disk "
                f"space, run `python -m {__package__} clear`, or set store.folder in params.yaml "
                "(or HEADSTART_STORE) to a folder on another disk"
            )
        if isinstance(error, TimeoutError) or code & 0xFF == sqlite3.SQLITE_BUSY:
            return StoreError(
                f"another process keeps the feature store in {self.folder} locked; stop that "
                "process or set store.folder in params.yaml (or HEADSTART_STORE) to another folder"
            )
        return StoreError(
            f"the feature store in {self.folder} cannot be used: {error}; make the folder "
            "writable or set store.folder in params.yaml (or HEADSTART_STORE) to another folder"
        )

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock for writing; afterwards, checkpoint the write-ahead log if it is long."""
        with self.alone():
            yield
            # SQLite's automatic checkpoints give way to readers, so with many readers the log would
            # grow forever. This checkpoint waits for the current readers.
            with contextlib.suppress(OSError, sqlite3.OperationalError):
                if self._log.stat().st_size > LOG_BYTES:
                    self.connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit everything that the block writes, or nothing."""
        with self.writing():
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def one(self, query: str, *values: int) -> tuple[Any, ...]:
        """Return the only row of a query."""
        row: tuple[Any, ...] = self.connection.execute(query, values).fetchone()
        return row

    def rows(self, query: str, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of `query`, in which {} is replaced by the keys."""
        for start in range(0, len(keys), KEYS_A_QUERY):
            some = keys[start : start + KEYS_A_QUERY]
            yield from self.connection.execute(query.format(",".join("?" * len(some))), some)

    def bytes(self, pages: str) -> int:
        """Return the bytes of all pages (`page`) or of the free ones (`freelist`)."""
        count: int = self.one(f"PRAGMA {pages}_count")[0]
        return count * PAGE_BYTES


def _check_layout(database: sqlite3.Connection) -> None:
    found = [
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version")
    ]
    if found != [APPLICATION_ID, LAYOUT]:
        raise _DamagedError(f"it is not a feature store of layout {LAYOUT}")
    database.execute("SELECT key, id, used FROM entries JOIN vectors USING (id) LIMIT 0")
    database.execute("SELECT id, checksum, value FROM vectors LIMIT 0")

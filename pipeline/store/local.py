"""The feature store: a feature that was computed once is found again by what it is made of.

An entry is one view of one picture through one backbone: 16 bytes of key (`view_key`) and one
float32 vector. The store is a cache outside the project, shared by the user's clones and by
`dvc exp run --temp`: deleting it costs time, never correctness.

It is one SQLite file in WAL mode. LMDB reads two to four times as fast and writes as fast or up
to three times (`benchmarks/store_backends.md`), but SQLite already gives 50,000 features in two
seconds, which a backbone on two cores takes minutes to compute; it comes with Python, its file
grows and shrinks with what is in it, and a truncated or overwritten file is an error that can be
caught: LMDB maps the file into memory, where the same damage kills the process.

What is promised, and by what:

- Killed at any moment: a `put` is one transaction. After `kill -9` all of it is there or none;
  after a power cut the last ones may be gone (`synchronous = NORMAL`).
- Damage: every vector has a CRC-32 over key and value, and one that fails counts as missing.
  A file that SQLite finds damaged is set aside and a new one begun, in the midst of a run too.
- Other layouts: the file's name holds the layout's number, so another is never opened.
- Several processes: reading waits for nobody; opening and writing take turns, by a lock file.
- A full disk: `put` raises a `StoreError` and changes nothing; reading goes on, and writing does
  once there is room. A folder that cannot be written is read, and `put` is a `StoreError`.
- The limit is on the file, which reuses the room of evicted entries and is cut when it is longer
  than the limit. What the current run has used or found is never evicted, so a run that uses
  more than the limit exceeds it. The write-ahead log comes on top, some 20 MB while the store is
  open.

WAL mode needs a disk of this machine: not NFS.

Two other caches lie in folders of the store's: the backbones that `exports.py` exports and the
checkpoints of `end_to_end.py`. They are few, so the limit does not count them; `make clean-store`
deletes them too.
"""

import contextlib
import errno
import fcntl
import math
import os
import re
import sqlite3
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..core import command, params
from ..core.errors import ParamsError, StoreError
from ..core.params import StoreParams
from ..core.paths import PARAMS

Feature = npt.NDArray[np.float32]
Result = TypeVar("Result")

LAYOUT = 1  # raise when the tables, the checksum or the form of the key change
VIEW_CODE = 1  # raise when pictures.py or views.py come to give other pixels

PATIENCE_S = 300.0  # how long to wait for other processes to finish writing
READERS_PATIENCE_S = 30.0  # and for a reader, or another process that closes the file
KEYS_A_QUERY = 500
STAMPS_HELD = 10_000  # uses noted in memory before they are written
LOG_BYTES = 2**24  # write-ahead log after which its pages move to the file
EVICT_DOWN_TO = 0.95  # of the limit, so that not every put evicts
EVICT_AT_ONCE = 5_000  # entries a transaction, so that other processes get their turn
PAGE_BYTES = 4096  # larger ones waste most of a page on features just over half of it
DAY_US = 86_400_000_000

# SQLite calls a disk full only by its plain name; quotas and its own files show as these.
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)

# Exports and checkpoints, and what `replacing` calls unfinished ones; no other file there is ours.
KEPT = re.compile(r"[0-9a-f]{64}\.(onnx|safetensors)(\.\d+\.partial)?")

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


def default_folder() -> Path:
    """The folder of the store: `HEADSTART_STORE`, else `store.folder` of `params.yaml`.

    Where neither says one it is `headstart/features` in the user's cache, for all their clones.

    Raises:
        ParamsError: the folder is relative, so every clone would look elsewhere.
    """
    chosen = os.environ.get("HEADSTART_STORE")
    if chosen:
        try:
            return Path(params.absolute(chosen))
        except ValueError as error:
            raise ParamsError(f"HEADSTART_STORE is {chosen!r}; {error}") from None
    if folder := _settings().folder:
        return Path(folder)
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "headstart" / "features"


def default_limit() -> int | None:
    """The store's limit in bytes: `HEADSTART_STORE_LIMIT`, else `store.limit` of `params.yaml`.

    None stands for no limit.

    Raises:
        ParamsError: it is neither `none` nor a size such as `500MB` or `20GB`.
    """
    chosen = os.environ.get("HEADSTART_STORE_LIMIT")
    if not chosen:
        return params.size(_settings().limit)
    try:
        return params.size(chosen)
    except ValueError as error:
        raise ParamsError(f"HEADSTART_STORE_LIMIT is {chosen!r}; {error}") from None


def _settings() -> StoreParams:
    """Those of the project; outside of one, where somebody looks into the store, the usual ones."""
    return params.load().store if PARAMS.exists() else StoreParams()


def backbones_folder() -> Path:
    """Where exported backbones are kept, each an `.onnx` and a `.safetensors`."""
    return default_folder() / "backbones"


def checkpoints_folder() -> Path:
    """Where unfinished trainings are kept, each a `.safetensors`."""
    return default_folder() / "checkpoints"


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Where to write what takes the place of `file` once all of it is there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        yield unfinished
        unfinished.replace(file)
    except OSError as error:
        error.filename = error.filename or str(file)  # writing to a file that is open names none
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def features_file(folder: Path) -> Path:
    """The store's own file in its folder."""
    return folder / f"features-v{LAYOUT}.sqlite"


def view_key(
    digest: str, view: tuple[float, float, bool, bool], backbone_fingerprint: str
) -> bytes:
    """The key of one view's feature: 16 bytes, a BLAKE2b hash of all that decides its numbers.

    Every field but the last has a fixed width, so that no two sets of fields are written alike:
    VIEW_CODE, the digest's 32 bytes, angle and scale as IEEE doubles (-0.0 as 0.0), the flips,
    and the fingerprint in UTF-8.

    Args:
        digest: SHA-256 of the picture's bytes, 64 hex digits.
        view: angle (degrees), scale (factor), hflip, vflip; the original is (0, 1, False, False).
        backbone_fingerprint: names the weights, preprocessing, engine and precision.

    Raises:
        ValueError: the digest is no SHA-256, or angle or scale is not finite.
    """
    angle, scale, hflip, vflip = view
    picture = bytes.fromhex(digest)
    if len(digest) != 64 or len(picture) != 32:
        raise ValueError(f"{digest!r} is not a SHA-256 in 64 hex digits")
    if not (math.isfinite(angle) and math.isfinite(scale)):
        raise ValueError(f"a view's angle and scale must be finite, not {angle} and {scale}")
    numbers = (float(angle) + 0.0, float(scale) + 0.0, bool(hflip), bool(vflip))
    fields = struct.pack(">I32sdd??", VIEW_CODE, picture, *numbers)
    return blake2b(fields + backbone_fingerprint.encode(), digest_size=16).digest()


@dataclass(frozen=True)
class Statistics:
    """What a store holds; `bytes` is what it takes on disk, the times are of last uses."""

    entries: int
    bytes: int
    oldest: datetime | None
    newest: datetime | None


class _DamagedError(Exception):
    """The database file cannot be this store's; its text says why."""


class FeatureStore:
    """A store of features on disk; use it in a `with` block.

    Threads may share it. Every process opens its own; none may be carried over a fork.
    Every method raises `StoreError` where the store cannot be read or written.
    """

    def __init__(self, folder: Path, limit_bytes: int | None) -> None:
        """Open the store in `folder`, begun where there is none; `limit_bytes` None: no limit."""
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.path = features_file(folder)
        self._log = folder / f"{self.path.name}-wal"
        self.damaged = 0  # entries whose checksum failed so far
        self._began = _now()
        self._turn = threading.RLock()
        self._read: set[bytes] = set()  # keys whose use is not yet written down
        self._found: set[bytes] = set()  # keys that `held` found, which this run will read
        self._bad: list[tuple[bytes, int]] = []  # key and id of damaged entries to delete
        self._refusal: Exception | None = None  # why the store can only be read
        self._exceeds = False  # whether all there is was used by this run, and is too much
        self._inode: int | None = None  # of the file that is open
        self._database = self._open()

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
                    self._attempt(self._write_notes)
            finally:
                self._database.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Feature]:
        """The features found for `keys`: read-only float32 vectors; the missing are left out.

        A damaged entry is counted in `damaged`, deleted and left out.
        """
        with self._turn:
            return self._attempt(lambda: self._get(keys))

    def held(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of `keys` that have an entry, without checking it.

        A `put` that follows does not evict them, for they will be read; a look that nothing
        follows does not count as a use.
        """
        query = "SELECT key FROM entries WHERE key IN ({})"
        with self._turn:
            found = self._attempt(lambda: {key for (key,) in self._rows(query, keys)})
            self._found |= found
        return found

    def put(self, entries: Mapping[bytes, Feature]) -> None:
        """Store float32 vectors of any length under their keys, all of them or none.

        Raises:
            ValueError: a value is not a float32 vector.
            StoreError: no room, or the folder cannot be written.
        """
        blobs = {}
        for key, value in entries.items():
            if value.dtype != np.float32 or value.ndim != 1:
                raise ValueError(f"a feature is a float32 vector, not {value.dtype} {value.shape}")
            blobs[key] = value.astype("<f4", copy=False).tobytes()
        with self._turn:
            if self._refusal:  # perhaps no longer
                self._reopen()
            if self._refusal:
                raise self._problem(self._refusal)
            self._attempt(lambda: self._put(blobs))

    def statistics(self) -> Statistics:
        """What the store holds at this moment."""
        # A flipped bit can turn a stamp into anything.
        stamps = "SELECT min(used), max(used) FROM entries WHERE used BETWEEN 0 AND ?"
        with self._turn:
            (entries,) = self._attempt(lambda: self._one("SELECT count(*) FROM entries"))
            oldest, newest = self._attempt(lambda: self._one(stamps, _now() + DAY_US))
        size = 0
        for file in self.folder.glob(f"{self.path.name}*"):
            with contextlib.suppress(FileNotFoundError):  # the log comes and goes
                size += file.stat().st_size
        return Statistics(entries, size, _moment(oldest), _moment(newest))

    def clear(self) -> None:
        """Delete all entries, files of other layouts and what was set aside; free the disk."""
        with self._turn:
            try:
                with self._alone():
                    self._database.close()
                    # Deleting rows would need room in the log, which a full disk has not.
                    for file in self.folder.glob("features-v*"):
                        file.unlink(missing_ok=True)
            except OSError as error:
                raise self._problem(error) from error
            self._read.clear()
            self._found.clear()
            self._reopen()

    # Opening, and what happens when something is wrong with the file.

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one process at a time writes to the file, opens it or replaces it.

        SQLite has a lock for writers, but its wait is unfair, and not made before a checkpoint.
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
            finally:  # closing the file is not enough where a fork has inherited it
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _reopen(self, damage: str = "") -> None:
        self._database.close()
        self._database = self._open(damage)

    def _open(self, damage: str = "") -> sqlite3.Connection:
        """Open the file, or only read it; `damage` says what was found wrong with the last one."""
        last, self._inode = self._inode, None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                if damage and last == self._inode_there():
                    self._set_aside(damage)
                try:
                    database = self._attach()
                except _DamagedError as error:
                    self._set_aside(str(error))
                    database = self._attach()
                self._inode = self._inode_there()
            self._refusal = None
        except (OSError, sqlite3.OperationalError) as error:
            database = self._open_read_only(error)
            self._inode = self._inode_there()
            self._refusal = error
        return database

    def _attach(self) -> sqlite3.Connection:
        if not self.path.exists():
            # Processes that still have the last file open must not share these with the new one.
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
        """For a folder that cannot be written, or a disk too full for SQLite's working files."""
        try:
            # Without a log the file is whole, and reading it needs no working files.
            logged = self._log.exists() and self._log.stat().st_size
            mode = "mode=ro" if logged else "immutable=1"
            database = self._connect(f"{self.path.absolute().as_uri()}?{mode}")
        except (OSError, sqlite3.OperationalError):
            raise self._problem(refusal) from refusal
        try:
            _check_layout(database)
        except (sqlite3.DatabaseError, UnicodeDecodeError, _DamagedError):
            database.close()
            raise self._problem(refusal) from refusal
        return database

    def _connect(self, address: str) -> sqlite3.Connection:
        database = sqlite3.connect(
            address,
            uri=True,
            timeout=READERS_PATIENCE_S,
            isolation_level=None,
            check_same_thread=False,
        )
        database.text_factory = bytes  # a flipped bit may turn a value into broken text
        database.execute("PRAGMA cell_size_check = ON")
        return database

    def _set_aside(self, reason: str) -> None:
        aside = self.path.with_suffix(".damaged")
        self.path.replace(aside)
        print(
            f"store: {self.path} is damaged ({reason}); a new one is begun, the old one is set "
            f"aside as {aside.name}, to be deleted at will",
            file=sys.stderr,
        )

    def _inode_there(self) -> int:
        try:
            return self.path.stat().st_ino
        except FileNotFoundError:
            return 0

    def _attempt(self, work: Callable[[], Result]) -> Result:
        """Do `work` on the file; where that is damaged, do it again on a new one."""
        try:
            if self._inode != self._inode_there():  # another process cleared or replaced it
                self._reopen()
            try:
                return work()
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if not self._is_damage(error) or self._refusal:
                    raise
                self._reopen(damage=" ".join(str(error).split()))
                return work()
        except (OSError, sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self._problem(error) from error

    def _is_damage(self, error: BaseException) -> bool:
        """Whether the file is broken; on a sound one this module's statements break no rule."""
        if isinstance(error, UnicodeDecodeError):
            return True  # SQLite quotes a damaged schema in its message
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_READONLY:
            return os.access(self.path, os.W_OK)  # by its header, of a later SQLite
        return code & 0xFF in (
            sqlite3.SQLITE_ERROR,
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
            sqlite3.SQLITE_CONSTRAINT,
            sqlite3.SQLITE_MISMATCH,
        )

    def _problem(self, error: Exception) -> StoreError:
        """The one line for a failure of SQLite or the operating system."""
        code = getattr(error, "sqlite_errorcode", 0)
        if code in NO_ROOM or getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT):
            return StoreError(
                f"no room to write to the feature store in {self.folder} ({error}); free some disk "
                "space, run `make clean-store`, or set store.folder in params.yaml (or "
                "HEADSTART_STORE) to a folder on another disk"
            )
        if isinstance(error, TimeoutError) or code & 0xFF == sqlite3.SQLITE_BUSY:
            return StoreError(
                f"another process keeps the feature store in {self.folder} locked; stop that "
                "process or set store.folder in params.yaml (or HEADSTART_STORE) to another folder"
            )
        return StoreError(
            f"the feature store in {self.folder} cannot be used: {error}; make the folder "
            "writable or set store.folder in params.yaml (or HEADSTART_STORE) to another"
        )

    # Reading and writing.

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._alone():
            yield
            # SQLite's own checkpoints give way to readers; under enough of them the log would
            # grow for ever. This one waits for those that read at this moment.
            with contextlib.suppress(OSError, sqlite3.OperationalError):
                if self._log.stat().st_size > LOG_BYTES:
                    self._database.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing():
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _one(self, query: str, *values: int) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._database.execute(query, values).fetchone()
        return row

    def _rows(self, query: str, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        """The rows of `query`, whose {} stands for the keys."""
        for start in range(0, len(keys), KEYS_A_QUERY):
            some = keys[start : start + KEYS_A_QUERY]
            yield from self._database.execute(query.format(",".join("?" * len(some))), some)

    def _get(self, keys: Sequence[bytes]) -> dict[bytes, Feature]:
        found: dict[bytes, Feature] = {}
        query = (
            "SELECT key, id, used, checksum, value FROM entries JOIN vectors USING (id) "
            "WHERE key IN ({})"
        )
        for key, row, used, checksum, value in self._rows(query, keys):
            if isinstance(value, bytes) and _checksum(key, value) == checksum:
                found[key] = np.frombuffer(value, dtype="<f4")
                if not isinstance(used, int) or used < self._began:
                    self._read.add(key)
            else:
                self.damaged += 1
                self._bad.append((key, row))
        if self._bad or len(self._read) >= STAMPS_HELD:
            self._write_notes()
        return found

    def _write_notes(self) -> None:
        """Write down what was used, and delete what was found damaged."""
        if self._refusal:
            self._read.clear()
            self._bad.clear()
            return
        # On a full disk reading goes on: what is lost is when these entries were last used.
        with (
            contextlib.suppress(OSError, sqlite3.OperationalError),
            self._transaction() as database,
        ):
            _stamp(database, self._read)
            _delete(database, self._bad)
        self._read.clear()
        self._bad.clear()

    def _put(self, blobs: dict[bytes, bytes]) -> None:
        if self._read or self._bad:
            self._write_notes()
        if self.limit_bytes is not None:
            # An entry takes 7 % more than its bytes at 1280 numbers; small ones take more.
            coming = sum(len(blob) * 9 // 8 + 128 for blob in blobs.values()) + 65536
            self._make_room(coming, self.limit_bytes)
        with self._transaction() as database:
            query = "SELECT key, id FROM entries WHERE key IN ({})"
            _delete(database, list(self._rows(query, list(blobs))))
            (last,) = self._one("SELECT coalesce(max(id), 0) FROM vectors")
            ids = range(last + 1, last + 1 + len(blobs))
            database.executemany(
                "INSERT INTO vectors VALUES (?, ?, ?)",
                [
                    (i, _checksum(*blob), blob[1])
                    for i, blob in zip(ids, blobs.items(), strict=True)
                ],
            )
            now = _now()
            database.executemany(
                "INSERT INTO entries VALUES (?, ?, ?)",
                [(key, i, now) for i, key in zip(ids, blobs, strict=True)],
            )

    def _make_room(self, coming: int, limit: int) -> None:
        """Evict the least recently used until `coming` bytes more stay within the limit."""
        taken = self._bytes("page") - self._bytes("freelist")
        while taken + coming > limit and not self._exceeds:
            share = min(1.0, (taken + coming - limit * EVICT_DOWN_TO) / taken)
            if not self._evict(share):
                # What is used stays so: there is no need to look again at each put.
                self._exceeds = True
                print(
                    f"store: this run alone uses more than the limit of {limit / 1e9:g} GB, which "
                    "is exceeded; store.limit in params.yaml (or HEADSTART_STORE_LIMIT) sets "
                    "another",
                    file=sys.stderr,
                )
            taken = self._bytes("page") - self._bytes("freelist")
        # Longer than the limit is a file whose limit was lowered.
        while self._bytes("page") > limit and self._bytes("freelist"):
            with self._writing():  # by executescript: execute would free a single page
                pages = LOG_BYTES // PAGE_BYTES
                self._database.executescript(f"PRAGMA incremental_vacuum({pages})")

    def _bytes(self, pages: str) -> int:
        count: int = self._one(f"PRAGMA {pages}_count")[0]
        return count * PAGE_BYTES

    def _evict(self, share: float) -> int:
        """Delete this share of the entries, the least recently used; none that this run used."""
        found = sorted(self._found)  # in the table's order, so that each page is written once
        for start in range(0, len(found), STAMPS_HELD):
            with self._transaction() as database:
                _stamp(database, found[start : start + STAMPS_HELD])
        self._found.clear()
        entries = self._one("SELECT count(*) FROM entries")[0]
        # A stamp from the future comes of a clock set back, not of the current run.
        oldest = self._database.execute(
            "SELECT key, id FROM entries WHERE used NOT BETWEEN ? AND ? ORDER BY used LIMIT ?",
            (self._began, _now() + DAY_US, math.ceil(share * entries)),
        ).fetchall()
        for start in range(0, len(oldest), EVICT_AT_ONCE):
            with self._transaction() as database:
                _delete(database, oldest[start : start + EVICT_AT_ONCE])
        return len(oldest)


def _stamp(database: sqlite3.Connection, keys: Iterable[bytes]) -> None:
    """Write down that these entries were used now."""
    now = _now()
    database.executemany("UPDATE entries SET used = ? WHERE key = ?", [(now, key) for key in keys])


def _delete(database: sqlite3.Connection, rows: Sequence[tuple[bytes, int]]) -> None:
    """Delete the entries of these keys and ids, but not what came under either since."""
    database.executemany(
        "DELETE FROM vectors WHERE id = (SELECT id FROM entries WHERE key = ? AND id = ?)", rows
    )
    database.executemany("DELETE FROM entries WHERE key = ? AND id = ?", rows)


def _check_layout(database: sqlite3.Connection) -> None:
    found = [
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version")
    ]
    if found != [APPLICATION_ID, LAYOUT]:
        raise _DamagedError(f"it is not a feature store of layout {LAYOUT}")
    database.execute("SELECT key, id, used FROM entries JOIN vectors USING (id) LIMIT 0")
    database.execute("SELECT id, checksum, value FROM vectors LIMIT 0")


def _checksum(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key))


def _now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def _moment(stamp: int | None) -> datetime | None:
    return None if stamp is None else datetime.fromtimestamp(stamp / 1e6, UTC)


def _kept(folder: Path) -> list[Path]:
    """The exports or checkpoints in a folder, and what a killed process left of one."""
    return [file for file in folder.glob("*") if KEPT.fullmatch(file.name)]


def store() -> None:
    """Print what is in the store and the folders in it; with the argument `clear`, empty them."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if arguments not in ([], ["clear"]):
        raise ParamsError(f"{' '.join(arguments)!r} is not understood; give nothing, or clear")
    with FeatureStore(default_folder(), default_limit()) as opened:
        if arguments:
            opened.clear()
            for file in [*_kept(backbones_folder()), *_kept(checkpoints_folder())]:
                file.unlink(missing_ok=True)
        held = opened.statistics()
        limit = "none" if opened.limit_bytes is None else f"{opened.limit_bytes / 1e6:,.1f} MB"
        print(f"path         {opened.path}")
        print(f"entries      {held.entries:,}")
        print(f"size         {held.bytes / 1e6:,.1f} MB")
        print(f"limit        {limit}")
        for name, moment in (("oldest", held.oldest), ("newest", held.newest)):
            if moment:
                print(f"{name}       last used {moment:%Y-%m-%d %H:%M} UTC")
    # A backbone's weights lie beside its graph, so each kind is counted by one ending.
    for folder, ending in ((backbones_folder(), ".onnx"), (checkpoints_folder(), ".safetensors")):
        files = _kept(folder)
        count = sum(file.suffix == ending for file in files)
        size = sum(file.stat().st_size for file in files) / 1e6
        print(f"{folder.name:<11}  {count:,}, {size:,.1f} MB")


if __name__ == "__main__":
    command.run(store, takes_arguments=True)

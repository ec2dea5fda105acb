"""Which embedded store should hold the features: SQLite, LMDB or diskcache?

    pip install --target /tmp/lmdb lmdb
    PYTHONPATH=/tmp/lmdb python -m benchmarks store_backends

Every store gets the same work: 50,000 features of 1280 float32, put and got in batches, by one
process and by four at once, and then the same damage. SQLite is the feature store itself; LMDB
and diskcache are the least code that keeps the same checksum and the same time of last use. The
full disk needs root, for a small tmpfs.
"""

import multiprocessing
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import diskcache
import numpy as np

from benchmarks.harness import in_turns, need, optional, run, table
from pipeline.store.vectors import FeatureStore

lmdb = optional("lmdb")
WIDTH = 1280
BATCHES = (32, 1024)
PROCESSES = 4
FEATURE_BYTES = WIDTH * 4
SMALL_DISK = 24  # megabytes

Entries = dict[bytes, np.ndarray]
Figures = dict[str, Any]  # a number, or a text that says why there is none


def checked(key: bytes, blob: bytes) -> bytes:
    """A value behind the checksum that the feature store has, too."""
    return zlib.crc32(blob, zlib.crc32(key)).to_bytes(4, "big") + blob


def intact(keys: list[bytes], get: Callable[[bytes], bytes | None]) -> Entries:
    """The values of those keys that are there with the right checksum."""
    found = ((key, get(key)) for key in keys)
    return {
        key: np.frombuffer(entry[4:], "<f4")
        for key, entry in found
        if entry and checked(key, entry[4:]) == entry
    }


class Lmdb:
    """Two LMDB tables: checksum and value, and time of last use.

    With `metasync` off a power cut may cost the last batches but not the file: what SQLite's
    `synchronous = NORMAL` promises. With `sync` off it may cost the file.
    """

    def __init__(self, folder: Path, **options: bool) -> None:
        self.environment = lmdb.open(str(folder), map_size=2**36, max_dbs=2, **options)
        self.values = self.environment.open_db(b"values")
        self.used = self.environment.open_db(b"used")

    def put(self, entries: Entries) -> None:
        now = time.time_ns().to_bytes(8, "big")
        with self.environment.begin(write=True) as transaction:
            for key, value in entries.items():
                transaction.put(key, checked(key, value.tobytes()), db=self.values)
                transaction.put(key, now, db=self.used)

    def get(self, keys: list[bytes]) -> Entries:
        with self.environment.begin(db=self.values) as transaction:
            return intact(keys, transaction.get)

    def close(self) -> None:
        self.environment.close()


class Diskcache(diskcache.Cache):  # type: ignore[misc]
    """diskcache keeps its own SQLite file and time of last use."""

    def __init__(self, folder: Path) -> None:
        policy = "least-recently-used"
        super().__init__(str(folder), size_limit=2**40, eviction_policy=policy, timeout=60)

    def put(self, entries: Entries) -> None:
        with self.transact():
            for key, value in entries.items():
                self.set(key, checked(key, value.tobytes()))

    def get(self, keys: list[bytes]) -> Entries:
        with self.transact():
            return intact(keys, super().get)


STORES: dict[str, Callable[[Path], Any]] = {
    "SQLite (the feature store)": partial(FeatureStore, limit_bytes=None),
    "LMDB": partial(Lmdb, metasync=False),
    "LMDB, no sync": partial(Lmdb, sync=False),
    "diskcache": Diskcache,
}


def some_keys(first: int, count: int) -> list[bytes]:
    numbers = range(first, first + count)
    return [blake2b(i.to_bytes(8, "big"), digest_size=16).digest() for i in numbers]


def work(
    store: str, folder: Path, job: str, first: int, count: int, batch: int, start: Any = None
) -> tuple[float, float, str]:
    """One process's share: when it began and ended, and what stopped it."""
    keys = some_keys(first, count)
    values = np.random.default_rng(first).standard_normal((count, WIDTH), dtype=np.float32)
    opened, error = STORES[store](folder), ""
    if start:
        start.wait()
    begun = time.monotonic()
    try:
        for at in range(0, count, batch):
            some = keys[at : at + batch]
            if job == "put":
                opened.put(dict(zip(some, values[at : at + batch], strict=True)))
            elif len(opened.get(some)) != len(some):
                error = "entries are missing"
    except Exception as problem:  # the benchmark reports it, whatever it is
        error = f"{type(problem).__name__}: {problem}"
    ended = time.monotonic()
    opened.close()
    return begun, ended, error


def rates(store: str, folder: Path, jobs: list[str], batch: int, entries: int) -> Figures:
    """Features a second over all processes, one a job, for each kind of job."""
    if len(jobs) == 1:
        done = [work(store, folder, jobs[0], 0, entries, batch)]
    else:
        spawn, share = multiprocessing.get_context("spawn"), entries // PROCESSES
        with spawn.Manager() as manager, spawn.Pool(len(jobs)) as pool:
            start = manager.Barrier(len(jobs))
            shares = [
                (store, folder, job, i % PROCESSES * share, share, batch, start)
                for i, job in enumerate(jobs)
            ]
            done = pool.starmap(work, shares, chunksize=1)
    found: Figures = {}
    for job in dict.fromkeys(jobs):
        of_job = [one for one, its in zip(done, jobs, strict=True) if its == job]
        begun, ended, errors = zip(*of_job, strict=True)
        found[job] = max(errors) or entries / (max(ended) - min(begun))
    return found


def one_round(store: str, batch: int, entries: int) -> Figures:
    """Put and get by one process, by four, and four of each at once."""
    puts, gets = ["put"] * PROCESSES, ["get"] * PROCESSES
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as alone, tempfile.TemporaryDirectory() as together:
        for job in ("put", "get"):
            figures[f"{job}, 1 process"] = rates(store, Path(alone), [job], batch, entries)[job]
        blocks = sum(file.stat().st_blocks for file in Path(alone).rglob("*") if file.is_file())
        figures["bytes on disk over bytes of features"] = blocks * 512 / entries / FEATURE_BYTES
        shared = partial(rates, store, Path(together), batch=batch, entries=entries)
        figures["put, 4 processes"] = shared(puts)["put"]
        figures["get, 4 processes"] = shared(gets)["get"]
        mixed = shared(puts + gets)
    figures["put again, 4 processes beside 4 that get"] = mixed["put"]
    figures["get, 4 processes beside 4 that put again"] = mixed["get"]
    print(batch, store, figures, flush=True)
    return figures


def tried(work: Callable[[], object]) -> object:
    """What it gives, or the error that it ends with."""
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def full_disk(store: str, disk: Path) -> str:
    """What a full disk does: fill it, read, make room, write again."""
    disk.mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}m", "none", disk)
    try:
        (disk / "other").write_bytes(bytes(2**20))
        opened = STORES[store](disk / "store")
        keys, batch = some_keys(0, 100_000), np.ones((32, WIDTH), np.float32)
        put, failure = 0, None
        while not failure:
            entries = dict(zip(keys[put : put + 32], batch, strict=True))
            failure = tried(partial(opened.put, entries))
            put += 0 if failure else 32
        read = tried(lambda: len(opened.get(keys[:put])))
        (disk / "other").unlink()
        after = tried(lambda: opened.put(entries) or f"{len(opened.get(list(entries)))} of 32")
        opened.close()
    finally:
        run("umount", disk)
    share, name = put * FEATURE_BYTES / (SMALL_DISK * 2**20), str(failure).partition(":")[0]
    return f"{name} at {share:.0%} full of features; read {read} of {put}; then wrote {after}"


def truncated(store: str, folder: Path) -> str:
    """What happens to a process that reads a file cut to half."""
    folder.mkdir()
    work(store, folder, "put", 0, 2000, 256)
    largest = max(folder.rglob("*"), key=lambda file: file.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    code = (
        "import sys; from pathlib import Path; from benchmarks import store_backends as b\n"
        "print(len(b.STORES[sys.argv[1]](Path(sys.argv[2])).get(b.some_keys(0, 2000))))"
    )
    command = [sys.executable, "-c", code, store, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode < 0:
        return f"the process dies of {signal.Signals(-done.returncode).name}"
    if done.returncode:
        return f"the process ends with {done.stderr.strip().splitlines()[-1][:80]}"
    said = " and says that it begins a new file" if "set aside" in done.stderr else ""
    return f"gets {done.stdout.strip()} of 2000{said}"


def cell(figure: str, found: list[Figures], first: list[Figures]) -> str:
    """The median of the rounds, and over SQLite's in brackets; or what failed."""
    values = [one[figure] for one in found]
    if errors := [value for value in values if isinstance(value, str)]:
        return f"{len(errors)} of {len(values)} failed: {errors[0]}"
    middle = statistics.median(values)
    if "bytes" in figure:
        return f"{middle:.2f}"
    return f"{middle:,.0f} ({middle / statistics.median(one[figure] for one in first):.2f})"


def measure(scratch: Path, entries: int = 50_000, rounds: int = 3) -> str:
    need(lmdb, "LMDB: pip install lmdb")
    blocks = []
    for batch in BATCHES:
        works = {store: partial(one_round, store, batch, entries) for store in STORES}
        turns = in_turns(rounds, works)
        found = [[cost.gave for cost in costs] for costs in turns.values()]
        rows = [(name, *(cell(name, each, found[0]) for each in found)) for name in found[0][0]]
        columns = " | ".join(["", *STORES])
        blocks.append(f"## Features a second, {batch} at once\n\n{table(columns, rows)}\n\n")
    faults = []
    for store in STORES:
        root = os.geteuid() == 0
        full = full_disk(store, scratch / "disk") if root else "not tried, needs root"
        faults.append((store, full, truncated(store, scratch / store)))
    return f"""# SQLite, LMDB or diskcache for the features

{entries:,} features of {WIDTH} float32 ({FEATURE_BYTES} bytes), median of {rounds} interleaved
rounds, SQLite {sqlite3.sqlite_version}, LMDB {".".join(map(str, lmdb.version()))}, diskcache
{diskcache.__version__}. In brackets the rate over SQLite's.

{"".join(blocks)}## Faults

{table("| a full disk | the file cut to half", faults)}
"""

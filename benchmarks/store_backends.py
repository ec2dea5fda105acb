"""Which embedded store should hold the features: SQLite, LMDB or diskcache?

Every store gets the same work: 50,000 features of 1280 float32, put and got in batches, by one
process and by four at once, and then the same damage. SQLite is the feature store itself; LMDB
and diskcache are the least code that keeps the same checksum and the same time of last use.

    python -m venv /tmp/stores && /tmp/stores/bin/pip install diskcache lmdb numpy
    /tmp/stores/bin/python benchmarks/store_backends.py

writes benchmarks/store_backends.md. The full disk needs root, for a small tmpfs.
"""

import contextlib
import multiprocessing
import os
import platform
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import diskcache
import lmdb
import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from pipeline.store.local import FeatureStore  # noqa: E402

ENTRIES, WIDTH = 50_000, 1280
BATCHES = (32, 1024)
PROCESSES = 4
ROUNDS = 3
FEATURE_BYTES = WIDTH * 4
SMALL_DISK = 24  # megabytes

Entries = dict[bytes, np.ndarray]


class Sqlite(FeatureStore):
    """The feature store of this project."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, None)


class Lmdb:
    """Two LMDB tables: checksum and value, and time of last use.

    With `metasync` off a power cut may cost the last batches but not the file: what SQLite's
    `synchronous = NORMAL` promises.
    """

    options: dict[str, bool] = {"metasync": False}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        self.environment = lmdb.open(str(folder), map_size=2**36, max_dbs=2, **self.options)
        self.values = self.environment.open_db(b"values")
        self.used = self.environment.open_db(b"used")

    def put(self, entries: Entries) -> None:
        now = time.time_ns().to_bytes(8, "big")
        with self.environment.begin(write=True) as transaction:
            for key, value in entries.items():
                blob = value.tobytes()
                checksum = zlib.crc32(blob, zlib.crc32(key)).to_bytes(4, "big")
                transaction.put(key, checksum + blob, db=self.values)
                transaction.put(key, now, db=self.used)

    def get(self, keys: list[bytes]) -> Entries:
        found = {}
        with self.environment.begin() as transaction:
            for key in keys:
                entry = transaction.get(key, db=self.values)
                if entry is None:
                    continue
                blob = entry[4:]
                if zlib.crc32(blob, zlib.crc32(key)).to_bytes(4, "big") == entry[:4]:
                    found[key] = np.frombuffer(blob, "<f4")
        return found

    def close(self) -> None:
        self.environment.close()


class LmdbUnsynced(Lmdb):
    """LMDB that never waits for the disk: a power cut may cost the file."""

    options = {"sync": False}  # noqa: RUF012


class Diskcache:
    """diskcache keeps its own SQLite file and time of last use."""

    def __init__(self, folder: Path) -> None:
        self.cache = diskcache.Cache(
            str(folder), size_limit=2**40, eviction_policy="least-recently-used", timeout=60
        )

    def put(self, entries: Entries) -> None:
        with self.cache.transact():
            for key, value in entries.items():
                blob = value.tobytes()
                checksum = zlib.crc32(blob, zlib.crc32(key)).to_bytes(4, "big")
                self.cache.set(key, checksum + blob)

    def get(self, keys: list[bytes]) -> Entries:
        found = {}
        with self.cache.transact():
            for key in keys:
                entry = self.cache.get(key)
                if entry is None:
                    continue
                blob = entry[4:]
                if zlib.crc32(blob, zlib.crc32(key)).to_bytes(4, "big") == entry[:4]:
                    found[key] = np.frombuffer(blob, "<f4")
        return found

    def close(self) -> None:
        self.cache.close()


STORES: dict[str, Callable[[Path], Any]] = {
    "SQLite (the feature store)": Sqlite,
    "LMDB": Lmdb,
    "LMDB, no sync": LmdbUnsynced,
    "diskcache": Diskcache,
}


def some_keys(first: int, count: int) -> list[bytes]:
    return [
        blake2b(i.to_bytes(8, "big"), digest_size=16).digest() for i in range(first, first + count)
    ]


def work(
    store: str, folder: Path, job: str, first: int, count: int, batch: int, start: Any
) -> tuple[float, float, str, float]:
    """One process's share: when it began and ended, what stopped it, its processor's seconds."""
    keys = some_keys(first, count)
    values = np.random.default_rng(first).standard_normal((count, WIDTH), dtype=np.float32)
    opened = STORES[store](folder)
    error = ""
    if start:
        start.wait()
    begun, busy = time.monotonic(), time.process_time()
    try:
        for at in range(0, count, batch):
            some = keys[at : at + batch]
            if job == "put":
                opened.put(dict(zip(some, values[at : at + batch], strict=True)))
            elif len(opened.get(some)) != len(some):
                error = "entries are missing"
    except Exception as problem:  # the benchmark reports it, whatever it is
        error = f"{type(problem).__name__}: {problem}"
    ended, busy = time.monotonic(), time.process_time() - busy
    opened.close()
    return begun, ended, error, busy


def rate(store: str, folder: Path, jobs: list[str], batch: int) -> dict[str, tuple[float, str]]:
    """Features a second over all processes, and the first error, for each kind of job."""
    if len(jobs) == 1:
        done = [work(store, folder, jobs[0], 0, ENTRIES, batch, None)]
    else:
        spawn = multiprocessing.get_context("spawn")
        share = ENTRIES // PROCESSES
        with spawn.Manager() as manager, spawn.Pool(len(jobs)) as pool:
            start = manager.Barrier(len(jobs))
            done = pool.starmap(
                work,
                [
                    (store, folder, job, i % PROCESSES * share, share, batch, start)
                    for i, job in enumerate(jobs)
                ],
                chunksize=1,
            )
    rates = {}
    for job in dict.fromkeys(jobs):
        of_job = [one for one, its in zip(done, jobs, strict=True) if its == job]
        seconds = max(one[1] for one in of_job) - min(one[0] for one in of_job)
        error = next((one[2] for one in of_job if one[2]), "")
        rates[job] = (ENTRIES / seconds, error)
        rates[f"{job} of the processor"] = (ENTRIES / sum(one[3] for one in of_job), error)
    return rates


def one_round(store: str, folder: Path, batch: int) -> dict[str, tuple[float, str]]:
    """Put and get by one process, by four, and four of each at once."""
    figures = {}
    alone = folder / "alone"
    alone.mkdir(parents=True)
    for job in ("put", "get"):
        rates = rate(store, alone, [job], batch)
        figures[f"{job}, 1 process"] = rates[job]
        figures[f"{job}, 1 process, by its processor time"] = rates[f"{job} of the processor"]
    size = sum(file.stat().st_blocks * 512 for file in alone.rglob("*") if file.is_file())
    figures["bytes on disk over bytes of features"] = (size / ENTRIES / FEATURE_BYTES, "")
    shutil.rmtree(alone)
    together = folder / "together"
    together.mkdir()
    figures["put, 4 processes"] = rate(store, together, ["put"] * PROCESSES, batch)["put"]
    figures["get, 4 processes"] = rate(store, together, ["get"] * PROCESSES, batch)["get"]
    mixed = rate(store, together, ["put"] * PROCESSES + ["get"] * PROCESSES, batch)
    figures["put again, 4 processes beside 4 that get"] = mixed["put"]
    figures["get, 4 processes beside 4 that put again"] = mixed["get"]
    shutil.rmtree(together)
    return figures


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}m", "none", folder], check=True
        )
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def full_disk(store: str) -> str:
    """What a full disk does: fill it, read, make room, write again; in a process of its own."""
    with small_disk() as disk:
        (disk / "other").write_bytes(bytes(2**20))
        opened = STORES[store](disk / "store")
        keys, batch = some_keys(0, 100_000), np.ones((32, WIDTH), np.float32)
        failure, put = "none", 0
        for at in range(0, len(keys), 32):
            try:
                opened.put(dict(zip(keys[at : at + 32], batch, strict=True)))
            except Exception as error:
                failure = f"{type(error).__name__}"
                break
            put += 32
        try:
            read = len(opened.get(keys[:put]))
        except Exception as error:
            read = f"{type(error).__name__}: {error}"
        (disk / "other").unlink()
        try:
            opened.put(dict(zip(keys[-32:], batch, strict=True)))
            after = f"{len(opened.get(keys[-32:]))} of 32"
        except Exception as error:
            after = f"{type(error).__name__}: {error}"
        opened.close()
        share = put * FEATURE_BYTES / (SMALL_DISK * 2**20)
        return (
            f"{failure} at {share:.0%} full of features; read {read} of {put}; then wrote {after}"
        )


def truncated(store: str) -> str:
    """What happens to a process that reads a file cut to half."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"
        folder.mkdir()
        work(store, folder, "put", 0, 2000, 256, None)
        largest = max(folder.rglob("*"), key=lambda file: file.stat().st_size)
        os.truncate(largest, largest.stat().st_size // 2)
        code = (
            "import sys; from pathlib import Path; import store_backends as b\n"
            "s = b.STORES[sys.argv[1]](Path(sys.argv[2]))\n"
            "print(len(s.get(b.some_keys(0, 2000))))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, store, str(folder)],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
        )
        if done.returncode < 0:
            return f"the process dies of {signal.Signals(-done.returncode).name}"
        if done.returncode:
            return f"the process ends with {done.stderr.strip().splitlines()[-1][:80]}"
        said = " and says that it begins a new file" if "set aside" in done.stderr else ""
        return f"gets {done.stdout.strip()} of 2000{said}"


def main() -> None:
    lines = [
        "# SQLite, LMDB or diskcache for the features",
        "",
        f"Written by `benchmarks/store_backends.py`: {ENTRIES:,} features of {WIDTH} float32 "
        f"({FEATURE_BYTES} bytes), median of {ROUNDS} interleaved rounds, on {os.cpu_count()} "
        f"cores of {platform.machine()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, LMDB {'.'.join(map(str, lmdb.version()))}, "
        f"diskcache {diskcache.__version__}. "
        "In brackets the rate over SQLite's. Other work ran on the machine, which slows the "
        "clock but hardly the processor time: its load was "
        f"{os.getloadavg()[2]:.0f} for the quarter of an hour before",
    ]
    for batch in BATCHES:
        rounds: dict[str, list[dict[str, tuple[float, str]]]] = {store: [] for store in STORES}
        for _ in range(ROUNDS):
            for store in STORES:
                with tempfile.TemporaryDirectory() as folder:
                    rounds[store].append(one_round(store, Path(folder), batch))
                print(batch, store, rounds[store][-1], flush=True)
        lines += [
            "",
            f"## Features a second, {batch} at once",
            "",
            f"| | {' | '.join(STORES)} |",
            "| --- |" + " ---: |" * len(STORES),
        ]
        first = next(iter(STORES))
        for figure in rounds[first][0]:
            cells = []
            middle = {
                store: statistics.median(one[figure][0] for one in rounds[store])
                for store in STORES
            }
            for store in STORES:
                errors = [one[figure][1] for one in rounds[store] if one[figure][1]]
                if "bytes" in figure:
                    cells.append(f"{middle[store]:.2f}")
                elif errors:
                    cells.append(f"{len(errors)} of {ROUNDS} failed: {errors[0]}")
                else:
                    cells.append(f"{middle[store]:,.0f} ({middle[store] / middle[first]:.2f})")
            lines.append(f"| {figure} | {' | '.join(cells)} |")
    lines[2] += f" and {os.getloadavg()[2]:.0f} for the last."
    lines += [
        "",
        "## Faults",
        "",
        "| | a full disk | the file cut to half |",
        "| --- | --- | --- |",
    ]
    for store in STORES:
        full = full_disk(store) if os.geteuid() == 0 else "not tried, needs root"
        lines.append(f"| {store} | {full} | {truncated(store)} |")
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

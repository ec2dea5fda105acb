"""Which store should hold features: on a disk, in a bucket, and examples in a bucket."""

import multiprocessing
import os
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
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import diskcache
import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.harness import (
    Cost,
    Project,
    cost,
    draw,
    in_turns,
    need,
    optional,
    run,
    seconds,
    table,
)
from pipeline.examples import files
from pipeline.store.shared import SharedStore
from pipeline.store.vectors import FeatureStore
from tests.helpers import seaweed

# embedded

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
        "import sys; from pathlib import Path; from benchmarks import stores as b\n"
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


def measure_embedded(scratch: Path, entries: int = 50_000, rounds: int = 3) -> str:
    """Which embedded store should hold the features: SQLite, LMDB or diskcache?

        pip install --target /tmp/lmdb lmdb
        PYTHONPATH=/tmp/lmdb python -m benchmarks stores embedded

    Every store gets the same work: 50,000 features of 1280 float32, put and got in batches, by one
    process and by four at once, and then the same damage. SQLite is the feature store itself; LMDB
    and diskcache are the least code that keeps the same checksum and the same time of last use.
    The full disk needs root, for a small tmpfs.
    """
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


# shared

lance = optional("lance")
SOME = 1_000  # keys looked up at random
BATCH = 256  # vectors a put
IN_ORDER = 4_096  # vectors a get, in the order in which they were put: a shard of data/features


class Lance:
    """A Lance data set of keys, checksums and vectors; keys are looked up in memory."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._rows: dict[bytes, int] = {}

    def __enter__(self) -> "Lance":
        return self

    def __exit__(self, *_: object) -> None: ...

    def put(self, entries: Entries) -> None:
        values = np.stack(list(entries.values()))
        rows = pa.table(
            {
                "key": pa.array(list(entries), pa.binary(16)),
                "checksum": pa.array(np.zeros(len(entries), np.uint32)),
                "value": pa.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1]),
            }
        )
        lance.write_dataset(rows, self.address, mode="append")

    def _keys(self) -> list[bytes]:
        self._data = lance.dataset(self.address)
        keys: list[bytes] = self._data.to_table(columns=["key"])["key"].to_pylist()
        return keys

    def held(self, keys: list[bytes]) -> set[bytes]:
        return set(self._keys()).intersection(keys)

    def get(self, keys: list[bytes]) -> Entries:
        if not self._rows:
            self._rows = {key: row for row, key in enumerate(self._keys())}
        found = self._data.take([self._rows[key] for key in keys])
        values = found["value"].combine_chunks().flatten().to_numpy().reshape(len(keys), -1)
        return dict(zip(keys, values, strict=True))

    def compact(self) -> None:
        lance.dataset(self.address).optimize.compact_files()


def batches(keys: list[bytes], width: int, size: int) -> Iterator[Entries]:
    draw = np.random.default_rng(0)
    for start in range(0, len(keys), size):
        some = keys[start : start + size]
        values = draw.standard_normal((len(some), width), dtype=np.float32)
        yield dict(zip(some, values, strict=True))


def one(opened: Callable[[], Any], count: int, width: int, size: int) -> dict[str, Cost]:
    """What each work costs on a store that is empty at first; each opens it again."""
    keys = some_keys(0, count)
    others = some_keys(2 * count, count)
    at_random = [keys[i] for i in np.random.default_rng(1).choice(count, SOME, replace=False)]

    def put(new: list[bytes]) -> None:
        with opened() as store:
            for entries in batches(new, width, size):
                store.put(entries)

    def held(asked: list[bytes], there: int) -> None:
        with opened() as store:
            found = len(store.held(asked))
            assert found == there, (found, there)

    def get(parts: list[list[bytes]]) -> None:
        with opened() as store:
            for part in parts:
                assert len(store.get(part)) == len(part)

    def ten_added() -> None:
        ten = some_keys(count, 10)
        with opened() as store:
            assert len(store.held(keys + ten)) == count
            store.put(next(batches(ten, width, 10)))
            assert len(store.get(ten)) == 10

    parts = [keys[start : start + IN_ORDER] for start in range(0, count, IN_ORDER)]
    costs = {"put": cost(partial(put, keys))}
    if hasattr(store := opened(), "compact"):
        costs["compact"] = cost(store.compact)
    costs["held: all"] = cost(partial(held, keys, count))
    costs["held: none"] = cost(partial(held, others, 0))
    costs["get: some, at random"] = cost(partial(get, [at_random]))
    costs["get: all, in order"] = cost(partial(get, parts))
    costs["ten added"] = cost(ten_added)
    for name, spent in costs.items():
        print(f"{name:<24}{spent.wall:8.2f} s {spent.cpu:8.2f} s", flush=True)
    return costs


def all_stores(scratch: Path, count: int, width: int, size: int) -> str:
    """A table of what each work costs on each store, of `count` vectors put `size` at once."""
    import botocore.session

    found: dict[str, dict[str, Cost]] = {}
    for name in SHARED_STORES:
        folder = scratch / f"{count}-{width}-{size}-{len(found)}"
        folder.mkdir()
        print(f"{count:,} x {width}, {size} at once: {name}", flush=True)
        if "bucket" not in name:
            place = str(folder / "store")
            found[name] = one(partial(SHARED_STORES[name], place), count, width, size)
        else:
            with seaweed.running(folder / "server") as server:
                os.environ.update(seaweed.environment(server), AWS_ALLOW_HTTP="true")
                botocore.session.get_session().create_client("s3").create_bucket(Bucket="lab")
                place = f"s3://lab/{folder.name}"
                found[name] = one(partial(SHARED_STORES[name], place), count, width, size)
        shutil.rmtree(folder)
    works = dict.fromkeys(work for costs in found.values() for work in costs)
    rows = [
        (work, *(costs[work].wall if work in costs else None for costs in found.values()))
        for work in works
    ]
    return table(" | ".join(["seconds", *(f"{name} {{:.2f}}" for name in SHARED_STORES)]), rows)


SHARED_STORES: dict[str, Callable[[str], Any]] = {
    "SQLite, a folder": lambda place: FeatureStore(Path(place), None),
    "Lance, a folder": Lance,
    "Lance, a bucket": Lance,
    "shards, a bucket": lambda place: SharedStore(place, None),
}


def measure_shared(scratch: Path, vectors: int = 50_000, keys: int = 1_000_000) -> str:
    """Which store should many machines share: Lance or shards in a bucket, beside SQLite?

        pip install --target /tmp/lance pylance
        PYTHONPATH=/tmp/lance python -m benchmarks stores shared

    The server of S3 (SeaweedFS) runs on the same machine and takes its share of the cores. Lance
    is the least code that keeps the same keys and checksums: appended batches, the column of keys
    read to see what is held, and rows taken by their position.
    """
    need(lance, "Lance: pip install pylance")
    wide = all_stores(scratch, vectors, 1280, BATCH)
    many = all_stores(scratch, keys, 8, 16 * BATCH)
    few = all_stores(scratch, 5_000, 1280, 32)
    return f"""# A feature store that many machines share, beside SQLite on a disk

Seconds of one round; each work opens the store again. `held` asks for as many keys as there are,
`get: some` for {SOME:,} of them, `get: all` for {IN_ORDER:,} at once in the order of writing, as
`extract` does. `ten added` asks for all keys and ten more, and puts and gets these ten. Lance is
{lance.__version__}; a bucket is on SeaweedFS on the same two cores, which share the seconds.

## {vectors:,} vectors of 1,280 numbers, {BATCH} a put

{wide}

## {keys:,} keys with 8 numbers each, {16 * BATCH:,} a put

{many}

## 5,000 vectors of 1,280 numbers, 32 a put

{few}
"""


# bucket

FOLDER = "data/raw/bucket"
AT_ONCE = 16
FEW, ON_THE_WAY = 500, 0.02  # objects; seconds that each request takes on the way


def upload(client: Any, folder: Path, pictures: list[Path]) -> None:
    def one(file: Path) -> None:
        key = f"pictures/{file.relative_to(folder)}"
        client.put_object(Bucket="examples", Key=key, Body=file.read_bytes())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, pictures))


def far(bucket: Project, server: str) -> tuple[float, float]:
    """Seconds to read `FEW` objects one after the other, and ahead, through a slow way."""
    way = seaweed.Between(server)
    way.takes = ON_THE_WAY
    with bucket.inside():
        os.environ["AWS_ENDPOINT_URL"] = way.address
        rows = pd.read_parquet("data/manifest.parquet")[:FEW].itertuples()
        examples = [(Path(row.path), row.digest) for row in rows]
        alone = seconds(lambda: [files.read(*example) for example in examples])
        ahead = seconds(lambda: list(files.read_each(examples)))
    way.close()
    return alone, ahead


def measure_bucket(scratch: Path, pictures: int = 10_000) -> str:
    """Examples in a bucket beside the same pictures in a folder: listing, and ingest.

    The server of S3 (SeaweedFS) runs on the same machine and takes its share of the cores. The way
    to it is short: with a server far away each request also waits for the network.
    """
    import botocore.session

    size = (100, 75)
    drawn = scratch / "drawn"
    draw(drawn, range(pictures), size)
    first = sorted(drawn.rglob("*.jpg"))
    with seaweed.running(scratch / "server") as address:
        os.environ.update(seaweed.environment(address))
        client: Any = botocore.session.get_session().create_client("s3")
        client.create_bucket(Bucket="examples")
        upload(client, drawn, first)
        ingest = (sys.executable, "-m", "pipeline.ingest")
        listing = (sys.executable, "-m", "headstart", "list")
        for name in ("bucket", "folder"):
            (scratch / name).mkdir()
        bucket = Project(scratch / "bucket", ingest={"source": "s3", "path": FOLDER})
        folder = Project(scratch / "folder", drawn)
        credentials = seaweed.environment(address)

        def of_bucket(*command: str) -> Cost:
            return bucket.run(*command, **credentials)

        runs: dict[str, tuple[Cost, Cost, Cost]] = {}
        listed = of_bucket(*listing, "s3://examples/pictures")
        runs["first"] = (listed, of_bucket(*ingest), folder.run(*ingest))
        runs["nothing new"] = (of_bucket(*listing), of_bucket(*ingest), folder.run(*ingest))
        draw(drawn, range(pictures, pictures + 10), size)
        upload(client, drawn, sorted(set(drawn.rglob("*.jpg")) - set(first)))
        runs["ten added"] = (of_bucket(*listing), of_bucket(*ingest), folder.run(*ingest))
        alone, ahead = far(bucket, address)
    columns = "run | `headstart list` {:.2f} | `ingest` of the bucket {:.2f} | its processor time"
    columns += " {:.2f} | `ingest` of the folder {:.2f} | its processor time {:.2f}"
    rows = [
        (name, listed.wall, ours.wall, ours.cpu, theirs.wall, theirs.cpu)
        for name, (listed, ours, theirs) in runs.items()
    ]
    megabytes = sum(file.stat().st_size for file in first) / 1e6
    listing_bytes = (bucket.folder / FOLDER / "listing.s3.parquet").stat().st_size
    return f"""# {pictures:,} small pictures in a bucket, and in a folder

{megabytes:.0f} MB of JPEGs of {size[0]} x {size[1]} pixels. Seconds of whole commands,
imports included. The processor time is the command's own: the server of S3, on the same cores,
comes on top. The listing is a file of {listing_bytes / 1e3:,.0f} kB.

{table(columns, rows)}

With {ON_THE_WAY * 1e3:.0f} ms added to each request, {FEW} objects are read one after the other in
{alone:.1f} s, and ahead, as a core of `extract` reads them, in {ahead:.1f} s.
"""


PARTS = {
    "embedded": measure_embedded,
    "shared": measure_shared,
    "bucket": measure_bucket,
}

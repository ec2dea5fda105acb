"""Which store should many machines share: Lance, or shards in a bucket, beside SQLite on a disk?

    pip install --target /tmp/lance pylance
    PYTHONPATH=/tmp/lance python -m benchmarks shared_store

The server of S3 (SeaweedFS) runs on the same machine and takes its share of the cores. Lance is the
least code that keeps the same keys and checksums: appended batches, the column of keys read to see
what is held, and rows taken by their position.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import Cost, cost, need, optional, table
from pipeline.store.shared import SharedStore
from pipeline.store.vectors import FeatureStore
from tests import seaweed

lance = optional("lance")
SOME = 1_000  # keys looked up at random
BATCH = 256  # vectors a put
IN_ORDER = 4_096  # vectors a get, in the order in which they were put: a shard of data/features

Entries = dict[bytes, np.ndarray]


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


def some_keys(first: int, count: int) -> list[bytes]:
    numbers = range(first, first + count)
    return [blake2b(i.to_bytes(8, "big"), digest_size=16).digest() for i in numbers]


def batches(keys: list[bytes], width: int, size: int) -> Iterator[Entries]:
    draw = np.random.default_rng(0)
    for start in range(0, len(keys), size):
        some = keys[start : start + size]
        values = draw.standard_normal((len(some), width), dtype=np.float32)
        yield dict(zip(some, values, strict=True))


def one(opened: Callable[[], Any], count: int, width: int, size: int) -> dict[str, Cost]:
    """What each work costs on a store that is empty at first; each opens it anew."""
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
    for name in STORES:
        folder = scratch / f"{count}-{width}-{size}-{len(found)}"
        folder.mkdir()
        print(f"{count:,} x {width}, {size} at once: {name}", flush=True)
        if "bucket" not in name:
            place = str(folder / "store")
            found[name] = one(partial(STORES[name], place), count, width, size)
        else:
            with seaweed.running(folder / "server") as server:
                os.environ.update(seaweed.environment(server), AWS_ALLOW_HTTP="true")
                botocore.session.get_session().create_client("s3").create_bucket(Bucket="lab")
                place = f"s3://lab/{folder.name}"
                found[name] = one(partial(STORES[name], place), count, width, size)
        shutil.rmtree(folder)
    works = dict.fromkeys(work for costs in found.values() for work in costs)
    rows = [
        (work, *(costs[work].wall if work in costs else None for costs in found.values()))
        for work in works
    ]
    return table(" | ".join(["seconds", *(f"{name} {{:.2f}}" for name in STORES)]), rows)


STORES: dict[str, Callable[[str], Any]] = {
    "SQLite, a folder": lambda place: FeatureStore(Path(place), None),
    "Lance, a folder": Lance,
    "Lance, a bucket": Lance,
    "shards, a bucket": lambda place: SharedStore(place, None),
}


def measure(scratch: Path, vectors: int = 50_000, keys: int = 1_000_000) -> str:
    need(lance, "Lance: pip install pylance")
    wide = all_stores(scratch, vectors, 1280, BATCH)
    many = all_stores(scratch, keys, 8, 16 * BATCH)
    few = all_stores(scratch, 5_000, 1280, 32)
    return f"""# A feature store that many machines share, beside SQLite on a disk

Seconds of one round; each work opens the store anew. `held` asks for as many keys as there are,
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

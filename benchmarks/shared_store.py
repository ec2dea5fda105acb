"""Which store should many machines share: Lance, or shards in a bucket, beside SQLite on a disk?

    pip install --target /tmp/lance pylance
    PYTHONPATH=/tmp/lance python -m benchmarks shared_store

The server of S3 (SeaweedFS) runs on the same machine and takes its share of the cores. Lance is the
least code that keeps the same keys and checksums: appended batches, the column of keys read to see
what is held, and rows taken by their position.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from benchmarks.harness import Cost, cost, table
from pipeline.store.shared import SharedStore
from pipeline.store.vectors import FeatureStore
from tests import seaweed

SOME = 1_000  # keys looked up at random
BATCH = 256  # vectors a put
IN_ORDER = 4_096  # vectors a get, in the order in which they were put: a shard of data/features

Entries = dict[bytes, np.ndarray]


class Lance:
    """A Lance data set of keys, checksums and vectors; keys are looked up in memory."""

    def __init__(self, address: str) -> None:
        self.address, self._rows = address, None

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
        return self._data.to_table(columns=["key"])["key"].to_pylist()

    def held(self, keys: list[bytes]) -> set[bytes]:
        return set(self._keys()).intersection(keys)

    def get(self, keys: list[bytes]) -> Entries:
        if self._rows is None:
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

"""Compute missing features with threads of this machine."""

import itertools
import os
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..backbones.engines import Engine
from ..core.progress import Progress
from ..examples.files import read_each
from ..store.interface import Store
from ..tables.layers import LAST

FRESH = 8  # first batches, for which the store is not queried again
KEY = "key"  # the column of the keys of the last layer's features; `key_column` names the others


def key_column(layer: str) -> str:
    """Return the name of the column of `wanted.every_view` with the keys of a layer's features."""
    return KEY if layer == LAST else f"{KEY}:{layer}"


def keys_of(table: pd.DataFrame) -> list[bytes]:
    """Return the keys in all columns of the table, except those that `without` set to None."""
    return [key for column in key_columns(table) for key in table[column] if key is not None]


def key_columns(table: pd.DataFrame) -> list[str]:
    """Return the names of the columns with keys."""
    return [column for column in table if column == KEY or column.startswith(f"{KEY}:")]


def without(table: pd.DataFrame, held: Container[bytes]) -> pd.DataFrame:
    """Return the rows with a key that is not in `held`; keys that are in `held` become None."""
    columns = key_columns(table)
    if columns == [KEY]:  # pandas' `isin` drops zero bytes at the end
        return table[[key not in held for key in table[KEY]]]
    lacking = {
        column: [None if key is None or key in held else key for key in table[column]]
        for column in columns
    }
    rows = [any(key is not None for key in keys) for keys in zip(*lacking.values(), strict=True)]
    return table.assign(**{name: _objects(keys) for name, keys in lacking.items()})[rows]


def _objects(keys: list[bytes | None]) -> NDArray[np.object_]:
    array = np.empty(len(keys), dtype=object)
    array[:] = keys
    return array


def compute(missing: pd.DataFrame, engine: Engine, cache: Store, batch_size: int) -> int:
    """Compute the features of the missing views, and put each batch into the store when it is done.

    Every core processes a batch of whole examples from decoding to storing, so at most one batch
    per core is in memory.

    Another process may compute the same views for the same store. From batch `FRESH` on, features
    that the other process stored before a batch starts are not computed again. In a bucket, they
    are not noticed. Each process shuffles its batches, so that two processes seldom compute the
    same batch at once. The output of `extract` is sorted, so the order of the batches does not
    change it.

    Returns:
        the number of computed views.
    """

    def task(number: int, batch: pd.DataFrame) -> tuple[int, int]:
        left = batch
        if number >= FRESH:  # unlike `held`, `checksums` records no keys as requested in a bucket
            left = without(batch, cache.checksums(keys_of(batch)))
        if len(left):
            cache.put(features_of(left, engine, batch_size))
        return len(batch), len(left)

    pieces = list(batches(missing, batch_size))
    SystemRandom().shuffle(pieces)
    computed = 0
    cores = os.cpu_count() or 1
    with (
        ThreadPoolExecutor(cores) as pool,
        Progress("extract", len(missing), "views") as progress,
    ):
        for done, new in pool.map(task, itertools.count(), pieces):
            progress.advance(done)
            computed += new
    return computed


def batches(table: pd.DataFrame, batch_size: int) -> Iterator[pd.DataFrame]:
    """Split the table into pieces of at most `batch_size` views, or of one example with more."""
    start = size = 0
    for count in table.groupby("digest", sort=False).size():
        if size and size + count > batch_size:
            yield table.iloc[start : start + size]
            start, size = start + size, 0
        size += count
    if size:
        yield table.iloc[start : start + size]


def features_of(
    batch: pd.DataFrame, engine: Engine, batch_size: int
) -> dict[bytes, NDArray[np.float32]]:
    """Read the batch's examples, make their views and run the backbone on the views.

    Args:
        batch: rows of `wanted.every_view`; a feature whose key is None is not returned.

    Returns:
        the feature vector, float32 [dimension], of each key in the rows.
    """
    named = batch[["path", "digest", *engine.kind.view_columns]].itertuples(index=False, name=None)
    examples: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for path, digest, *view in named:
        examples.setdefault((path, digest), []).append(tuple(view))
    data = read_each((Path(path), digest) for path, digest in examples)
    asked = zip(data, examples.values(), strict=True)
    features = engine.features(engine.make_views(asked), batch_size)
    of_each = zip(engine.each_made_by, engine.by_layer(features), strict=True)
    return {
        key: vector
        for layer, vectors in of_each
        for key, vector in zip(batch[key_column(layer)], vectors, strict=True)
        if key is not None
    }

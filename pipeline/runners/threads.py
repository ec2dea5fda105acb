"""Compute missing features with threads of this machine."""

import itertools
import os
from collections.abc import Iterator
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

FRESH = 8  # first batches, for which the store is not queried again


def compute(missing: pd.DataFrame, engine: Engine, cache: Store, batch_size: int) -> int:
    """Compute the features of the missing views, and put each batch into the store when it is done.

    Every core processes a batch of whole examples from decoding to storing, so at most one batch
    per core is in memory.

    Another process may compute the same views for the same store. Features that it has put before a
    batch starts are not computed again, except in a bucket, where they are not noticed. Each
    process shuffles its batches, so that two do not compute the same batch at the same time. The
    output of `extract` is sorted, so the order does not change it.

    Returns:
        the number of computed views.
    """

    def task(number: int, batch: pd.DataFrame) -> tuple[int, int]:
        left = batch
        if number >= FRESH:  # in a bucket, `held` would record the keys as requested
            there = cache.checksums(batch["key"].tolist())
            left = batch[[key not in there for key in batch["key"]]]
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
    """Split the table into pieces of whole examples, each of about `batch_size` views."""
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
        batch: rows of `wanted.every_view`, whole examples.
        engine: the backbone.
        batch_size: views that the engine processes at once.

    Returns:
        the feature, float32 [dimension], of each row's key.
    """
    named = batch[["path", "digest", *engine.kind.view_columns]].itertuples(index=False, name=None)
    examples: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for path, digest, *view in named:
        examples.setdefault((path, digest), []).append(tuple(view))
    data = read_each((Path(path), digest) for path, digest in examples)
    asked = zip(data, examples.values(), strict=True)
    features = engine.features(engine.make_views(asked), batch_size)
    return dict(zip(batch["key"], features, strict=True))

"""Stage 3, extract: features of every view from the frozen backbone, each computed once ever."""

import itertools
import os
import time
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .backbones import engines
from .backbones.engines import Engine
from .core import command, params
from .core.paths import FEATURES, MANIFEST, PLAN
from .core.progress import Progress
from .kinds.image import decode, views
from .kinds.image.views import View
from .store import local
from .store.local import FeatureStore, view_key
from .tables import features
from .tables.features import Split
from .tables.power import raised


def extract() -> None:
    """Look every view up in the feature store, compute the missing ones, write the shards."""
    settings = params.load().extract
    manifest = features.read_manifest(MANIFEST)
    engine = engines.open_engine(settings)
    table = every_view(manifest, pd.read_parquet(PLAN), engine)
    with FeatureStore(local.default_folder(), local.default_limit()) as cache:
        held = cache.held(table["key"].tolist())
        missing = without(table, held)
        start = time.monotonic()
        compute(missing, engine, cache, settings.batch_size)
        seconds = time.monotonic() - start
        recomputed = write(table, engine, cache, settings.batch_size)

    computed = len(missing) + recomputed
    rate = f", {len(missing) / seconds:.1f} views a second" if len(missing) else ""
    print(
        f"extract: {len(manifest)} pictures, {len(table)} views:"
        f" {len(table) - computed} reused, {computed} computed{rate} ({engine.name})"
    )


def every_view(manifest: pd.DataFrame, plan: pd.DataFrame, engine: Engine) -> pd.DataFrame:
    """View 0 of every picture and the planned views, sorted by digest and view number.

    Columns: `digest`, `view`, `angle`, `scale`, `hflip`, `vflip`, `path` and, for the store, `key`.
    """
    originals = manifest[["digest"]].assign(view=0, **views.ORIGINAL._asdict())
    table = pd.concat([originals, plan], ignore_index=True)
    table = table.merge(manifest[["digest", "path"]], on="digest", validate="many_to_one")
    table = table.sort_values(["digest", "view"], ignore_index=True)
    seen = (View(*row) for row in table[list(View._fields)].itertuples(index=False))
    made_by = f"{engine.fingerprint} {views.LIBRARIES}"
    table["key"] = [
        view_key(digest, view, made_by) for digest, view in zip(table["digest"], seen, strict=True)
    ]
    return table


def without(table: pd.DataFrame, held: Container[bytes]) -> pd.DataFrame:
    """The rows whose key is not in `held`; pandas' `isin` takes bytes that end in 0 for others."""
    return table[[key not in held for key in table["key"]]]


def compute(missing: pd.DataFrame, engine: Engine, cache: FeatureStore, batch_size: int) -> None:
    """Compute the features of the missing views and put them into the store as they come.

    Every core takes whole pictures from decoding to store, so there are never more in memory than
    a batch a core.
    """

    def task(batch: pd.DataFrame) -> int:
        cache.put(features_of(batch, engine, batch_size))
        return len(batch)

    cores = os.cpu_count() or 1
    with (
        ThreadPoolExecutor(cores) as pool,
        Progress("extract", len(missing), "views") as progress,
    ):
        for count in pool.map(task, batches(missing, batch_size)):
            progress.advance(count)


def originals(
    manifest: pd.DataFrame, classes: list[str], engine: Engine, batch_size: int, power: float
) -> tuple[dict[str, Split], int]:
    """View 0 of every picture, for a stage that looks through a backbone of its own.

    Args:
        manifest: the pictures.
        classes: the label at each position.
        engine: the backbone; what the store has of it is not computed again.
        batch_size: views that the engine takes at once.
        power: that features are raised to.

    Returns:
        the features by split, as `features.read_splits` gives them; how many were computed.
    """
    no_plan = pd.DataFrame(columns=["digest", "view", *View._fields])
    table = every_view(manifest, no_plan, engine)
    keys = table["key"].tolist()
    with FeatureStore(local.default_folder(), local.default_limit()) as cache:
        missing = without(table, cache.held(keys))
        compute(missing, engine, cache, batch_size)
        found = cache.get(keys)
    damaged = without(table, found)  # which shows only on reading
    for batch in batches(damaged, batch_size):
        found |= features_of(batch, engine, batch_size)
    vectors = raised(np.stack([found[key] for key in keys]), power)
    table = table.merge(manifest[["digest", "label", "split"]], on="digest")
    splits = {}
    for name in table["split"].unique():
        chosen = table["split"] == name
        rows = table[chosen]
        splits[name] = Split(
            rows["digest"].to_numpy(dtype=str),
            rows["path"].to_numpy(dtype=str),
            rows["view"].to_numpy(),
            pd.Index(classes).get_indexer(rows["label"]).astype(np.int64),
            vectors[chosen.to_numpy()],
        )
    return splits, len(missing) + len(damaged)


def batches(table: pd.DataFrame, batch_size: int) -> Iterator[pd.DataFrame]:
    """The table in pieces of whole pictures, each of about `batch_size` views."""
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
    """Read, decode and warp the batch's pictures and run the backbone on their views.

    Args:
        batch: rows of `every_view`, whole pictures.
        engine: the backbone.
        batch_size: views that the engine takes at once.

    Returns:
        the feature, float32 [dimension], under each row's key.
    """
    asked = (
        (decode.read(Path(path), digest), [View(*row[2:]) for row in rows])
        for (path, digest), rows in itertools.groupby(
            batch[["path", "digest", *View._fields]].itertuples(index=False, name=None),
            key=itemgetter(0, 1),
        )
    )
    seen = engine.make_views(asked)
    parts = [engine.run(seen[i : i + batch_size]) for i in range(0, len(seen), batch_size)]
    return dict(zip(batch["key"], np.concatenate(parts), strict=True))


def write(table: pd.DataFrame, engine: Engine, cache: FeatureStore, batch_size: int) -> int:
    """Write the shards from the store, one at a time; return how many views had to be recomputed.

    That happens where the store finds an entry damaged only on reading it.
    """
    recomputed = 0

    def shards() -> Iterator[tuple[list[str], pd.Series, NDArray[np.float32]]]:
        nonlocal recomputed
        for _, rows in table.groupby(table["digest"].str[:2]):
            found = cache.get(rows["key"].tolist())
            for batch in batches(without(rows, found), batch_size):
                again = features_of(batch, engine, batch_size)
                cache.put(again)
                found |= again
                recomputed += len(batch)
            vectors = np.stack([found[key] for key in rows["key"]])
            yield rows["digest"].tolist(), rows["view"], vectors

    features.write_shards(FEATURES, shards())
    return recomputed


if __name__ == "__main__":
    command.run(extract)

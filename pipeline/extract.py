"""Stage 3, extract: features of every view from the frozen backbone, each computed once ever."""

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from . import kinds
from .backbones.engines import Engine, open_engine, stop_without_cuda
from .core import command, params
from .core.paths import FEATURES, MANIFEST, PLAN
from .runners.threads import batches, compute, features_of
from .runners.wanted import every_view, without
from .store.vectors import FeatureStore, open_store
from .tables.features import write_shards
from .tables.manifest import kind_in, read_manifest


def extract() -> None:
    """Look every view up in the feature store, compute the missing ones, write the shards."""
    settings = params.load(kinds.schema).extract
    for parameter in params.later_stages_on_cuda(kinds.schema):
        stop_without_cuda(parameter)
    kind = kinds.named(kind_in(MANIFEST))
    manifest = read_manifest(MANIFEST)
    engine = open_engine(settings, kind)
    table = every_view(manifest, pd.read_parquet(PLAN), engine)
    with open_store() as cache:
        held = cache.held(table["key"].tolist())
        missing = without(table, held)
        start = time.monotonic()
        compute(missing, engine, cache, settings.batch_size)
        seconds = time.monotonic() - start
        recomputed = write(table, engine, cache, settings.batch_size)

    computed = len(missing) + recomputed
    rate = f", {len(missing) / seconds:.1f} views a second" if len(missing) else ""
    print(
        f"extract: {len(manifest)} {kind.nouns}, {len(table)} views:"
        f" {len(table) - computed} reused, {computed} computed{rate} ({engine.name})"
    )
    told = getattr(engine.make_views, "told", None)  # not every kind has something to tell
    if told and (said := told()):
        print(f"extract: of those computed, {said}")


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

    write_shards(FEATURES, shards(), counts=engine.takes == "terms")
    return recomputed


if __name__ == "__main__":
    command.run(extract)

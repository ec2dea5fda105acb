"""Stage 3, extract: compute the features of every view with the frozen backbone, only once."""

import contextlib
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from . import kinds
from .backbones.engines import Encoder, Engine, advice, open_encoder, stop_without_cuda
from .core import command, memory, params
from .core.paths import FEATURES, MANIFEST, PLAN
from .kinds import Kind
from .runners import floor, on_ray
from .runners.threads import batches, compute, features_of, key_column, keys_of, without
from .runners.wanted import every_view
from .runners.written import Written
from .store.interface import Store
from .store.vectors import open_store
from .tables import by_key, joined, parquet
from .tables.features import Features, write_shards
from .tables.manifest import kind_in, read_manifest

MANY = 500  # views; if more have to be computed, `advice` on bfloat16 is printed


def extract() -> None:
    """Look up every view in the feature store, compute the missing ones, and write the shards."""
    every, cluster = params.load(kinds.schema), params.cluster_section()
    for parameter in params.later_stages_on_cuda(every):
        stop_without_cuda(parameter)
    settings = every.extract
    declared = kind_in(MANIFEST)
    kind = kinds.named(declared)
    manifest = read_manifest(MANIFEST)
    encoder, plan = open_encoder(settings, kind), read_plan(kind)
    engines = encoder.engines
    tables = [every_view(manifest, plan, engine) for engine in engines]
    lengths = [engine.dimension for engine in engines]
    lengths += [block.width for block in encoder.layers[1:]]
    if settings.features == "keys":
        by_key.stop_if_over_limit(len(tables[0]), lengths)
    else:
        there = sum(shard.stat().st_size for shard in FEATURES.glob("*.parquet"))
        more = 4 * sum(lengths) * len(tables[0]) - there
        memory.require_disk(more, FEATURES, f"extract: {len(tables[0]):,} views in {FEATURES}")
    with open_store() as cache:
        start = time.monotonic()
        new = [without(table, cache.held(keys_of(table))) for table in tables]
        if cluster.runner == "ray" and cluster.address:
            on_ray.compute_each(new, encoder, settings, declared, cache, cluster.address)
            missing = sum(map(len, new))
        else:
            if sum(map(len, new)) > MANY and (line := advice(settings, encoder)):
                print(f"extract: {line}", flush=True)
            pairs = zip(new, engines, strict=True)
            missing = sum(compute(*pair, cache, settings.batch_size) for pair in pairs)
        seconds = time.monotonic() - start
        recomputed = write(tables, encoder, cache, settings)
        of_floor = floor.write(manifest, kind, settings, cache)

    if of_floor:
        print(f"extract: {of_floor}")
    views, computed = sum(map(len, tables)), missing + recomputed
    rate = f", {missing / seconds:.1f} views a second" if missing else ""
    by = f" by {len(engines)} networks" if len(engines) > 1 else ""
    print(
        f"extract: {len(manifest)} {kind.nouns}, {len(tables[0])} views{by}:"
        f" {views - computed} reused, {computed} computed{rate} ({encoder.name})"
    )
    if settings.blocks == "all" and not encoder.layers:
        print(f"extract: {settings.backbone} has no inner blocks, so only its last layer is used")
    for engine in engines:
        maker: Any = engine.make_views
        notice = getattr(maker, "notice", None)  # not every kind has one
        with contextlib.suppress(AttributeError):
            notice = notice or maker.told  # the former name, in plugins for older versions
        if notice and (text := notice()):
            print(f"extract: {text}")


def read_plan(kind: Kind) -> pd.DataFrame:
    """Read the plan of all views except view 0, one row per view.

    Raises:
        DataError: the plan does not exist, is not readable, or lacks a column.
    """
    return parquet.read(PLAN, ("digest", "view", *kind.view_columns), "augment")


def write(
    tables: list[pd.DataFrame], encoder: Encoder, cache: Store, settings: params.ExtractParams
) -> int:
    """Write the shards from the store, one at a time; return how many views had to be recomputed.

    If features are written as vectors, shards that have the same rows already are left as they are,
    and rows that a shard has already are not read from the store (`runners/written.py`).
    The store finds some damaged entries only when it reads the vector. The views of such entries,
    and of entries that were removed since the first look-up, are recomputed. If features are
    written as keys, vectors are not read here, so only later stages find damaged entries.

    Args:
        tables: the tables from `every_view`, one per network; they differ only in their keys.
    """
    recomputed, batch_size = 0, settings.batch_size
    pairs = list(zip(tables, encoder.engines, strict=True))

    def vectors(rows: pd.DataFrame, engine: Engine) -> list[NDArray[np.float32]]:
        nonlocal recomputed
        keys = keys_of(rows)
        found = cache.get(keys)
        if len(found) < len(keys):  # seldom, and looking takes as long as reading
            for batch in batches(without(rows, found), batch_size):
                again = features_of(batch, engine, batch_size)
                cache.put(again)
                found |= again
                recomputed += len(batch)
        columns = map(key_column, engine.each_made_by)
        return [np.stack([found[key] for key in rows[column]]) for column in columns]

    def kept(rows: pd.DataFrame, engine: Engine) -> list[by_key.Kept]:
        keys = keys_of(rows)
        checksums = cache.checksums(keys)
        if any(key not in checksums for key in keys):  # removed since the first look-up
            vectors(rows, engine)
            checksums = cache.checksums(keys)
        columns = map(key_column, engine.each_made_by)
        return [by_key.kept(rows[column].tolist(), checksums) for column in columns]

    # With keys, checksums are read from the store, so that a lost vector is noticed.
    made_by = encoder.counts, encoder.layers
    known = None if settings.features == "keys" else Written(FEATURES, *made_by)
    same: set[str] = set()

    def shards() -> Iterator[tuple[list[str], pd.Series, Features]]:
        # The tables are sorted by digest: a shard is a slice of them.
        prefixes = tables[0]["digest"].str[:2].to_numpy(str)
        names, starts = np.unique(prefixes, return_index=True)
        for name, (start, end) in zip(names, pairwise([*starts, len(prefixes)]), strict=True):
            of_each = [(table.iloc[start:end], engine) for table, engine in pairs]
            rows = of_each[0][0]
            if known is None:
                lasts, blocks = joined.parted([kept(*one) for one in of_each])
                content: Features = np.stack([*lasts, *blocks], axis=1)
            elif known.holds(f"{name}.parquet", of_tables := [one for one, _ in of_each]):
                same.add(f"{name}.parquet")
                continue
            else:
                before = known.before(f"{name}.parquet", of_tables)
                new = np.ones(len(rows), bool) if before is None else ~before.mask
                parts = [vectors(one[new], engine) for one, engine in of_each]
                content = joined.with_blocks(*joined.parted(parts))
                if before:
                    content = before.with_new(content)
            yield rows["digest"].tolist(), rows["view"], content

    write_shards(FEATURES, shards(), *made_by, kept=same)
    if known:
        known.note(cache)
    return recomputed


if __name__ == "__main__":
    command.run(extract)

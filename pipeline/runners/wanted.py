"""List the views that a run needs, and compute the features that the store lacks."""

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..backbones.engines import Encoder, Engine
from ..store.interface import Store
from ..store.vectors import open_store
from ..tables import joined, targets
from ..tables.features import Split
from ..tables.power import raised
from .keys import view_keys
from .threads import batches, compute, features_of, key_column, keys_of, without


def every_view(manifest: pd.DataFrame, plan: pd.DataFrame, engine: Engine) -> pd.DataFrame:
    """List view 0 of every example and the planned views, sorted by digest and view number.

    Columns: `digest`, `view`, the kind's `view_columns`, `path`, `example_format` (the manifest's
    `format`, or empty) and, for the store, `key` and the `key_column` of each inner block.
    """
    kind = engine.kind
    manifest = manifest.assign(example_format=manifest.get("format", ""))
    original = dict(zip(kind.view_columns, kind.original, strict=True))
    originals = manifest[["digest"]].assign(view=0, **original)
    table = pd.concat([originals, plan], ignore_index=True)
    table = table.merge(
        manifest[["digest", "path", "example_format"]], on="digest", validate="many_to_one"
    )
    table = table.sort_values(["digest", "view"], ignore_index=True)
    views = table[list(kind.view_columns)].itertuples(index=False, name=None)
    wanted = list(zip(table["digest"], views, table["example_format"], strict=True))
    keys = view_keys(wanted, kind, *engine.each_made_by.values())
    for layer, of_layer in zip(engine.each_made_by, keys, strict=True):
        table[key_column(layer)] = of_layer
    return table


def vectors(
    examples: pd.DataFrame, encoder: Encoder, batch_size: int, cache: Store | None = None
) -> tuple[pd.DataFrame, NDArray[np.float32], int]:
    """Return the features of view 0 of examples, for stages that use a backbone themselves.

    Args:
        examples: a table with the columns `digest` and `path`.
        encoder: the backbone; features that the store has are not computed again.
        cache: the store, if the stage has opened it; another one could evict what it has used.

    Returns:
        one row per example, sorted by digest, as in `every_view`; their features [n, d], as the
        backbone computes them, with those of inner blocks as further columns if its engines compute
        them; the number of computed views.
    """
    no_plan = pd.DataFrame(columns=["digest", "view", *encoder.kind.view_columns])
    computed, parts = 0, []
    opened: AbstractContextManager[Store] = nullcontext(cache) if cache else open_store()
    with opened as store:  # one for all networks
        for engine in encoder.engines:
            table = every_view(examples, no_plan, engine)
            keys = keys_of(table)
            missing = without(table, store.held(keys))
            computed += compute(missing, engine, store, batch_size)
            found = store.get(keys)
            damaged = without(table, found)  # damage shows only on reading
            for batch in batches(damaged, batch_size):
                found |= features_of(batch, engine, batch_size)
            computed += len(damaged)
            parts.append(
                [
                    np.stack([found[key] for key in table[key_column(one)]])
                    for one in engine.each_made_by
                ]
            )
    return table, joined.with_blocks(*joined.parted(parts)), computed


def originals(
    manifest: pd.DataFrame, classes: list[str], encoder: Encoder, batch_size: int, power: float
) -> tuple[dict[str, Split], int]:
    """Return the result of `vectors` for the examples of a manifest, by split.

    Args:
        classes: the label at each position, or the names of the targets, as in `targets.names`.
        power: the exponent of power normalisation, as in `power.raised`.

    Returns:
        the features by split, as in `features.read_splits`; the number of computed views.
    """
    table, features, computed = vectors(manifest, encoder, batch_size)
    features = raised(features, power)
    of_digest = manifest.set_index("digest")
    table["split"] = of_digest["split"].loc[table["digest"]].to_numpy()
    splits = {}
    for name in table["split"].unique():
        chosen = table["split"] == name
        rows = table[chosen]
        splits[name] = Split(
            rows["digest"].to_numpy(dtype=str),
            rows["path"].to_numpy(dtype=str),
            rows["view"].to_numpy(),
            targets.of(of_digest.loc[rows["digest"]], classes),
            features[chosen.to_numpy()],
        )
    return splits, computed

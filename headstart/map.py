"""`headstart map`: compute a neighbour layout for the report's map, once, as a file to commit.

The layout is t-SNE (van der Maaten and Hinton, JMLR 2008), started from the first two principal
axes, which keeps the large structure (Kobak and Berens, Nature Communications 2019).
`pipeline/quality/landmarks.py` places other examples.
"""

import argparse
from pathlib import Path

import numpy as np
import yaml

from pipeline import kinds
from pipeline.core import params, yaml_in_c
from pipeline.core.errors import DataError, RunError
from pipeline.core.params import ExtractParams
from pipeline.core.paths import LANDMARKS, MANIFEST, MAP, PARAMS
from pipeline.heads.head import Floats
from pipeline.quality.landmarks import GRID, MOST, Landmarks, Places, Space, made_by, write
from pipeline.quality.map import placed
from pipeline.quality.originals import originals
from pipeline.tables.manifest import read_manifest

PERPLEXITY = 30
STEPS = 500  # with twice as many, hardly more neighbours are kept
LEAST = 10  # examples


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments: the examples are those of the project."""


def run() -> None:
    """Write the landmarks.

    Raises:
        DataError: there are too few examples, or no features of them.
        RunError: the project has no folder for the file, or its features are of another backbone.
    """
    if not MAP.is_dir():
        raise RunError(f"the folder {MAP} is missing: run `headstart upgrade` first")
    settings = params.load(kinds.schema)
    stop_before_extract(settings.extract)
    rows, features = originals(read_manifest(MANIFEST))
    if len(rows) < LEAST:
        raise DataError(f"a layout needs at least {LEAST} examples, and there are {len(rows)}")
    some = features[:MOST]  # rows are sorted by digest, a random order
    marks = Landmarks(rows["digest"].to_numpy(str)[:MOST], laid_out(some))
    write(LANDMARKS, marks, made_by(settings.extract, features.shape[1]))
    print(
        f"map: {LANDMARKS} has the places of {len(some)} examples: commit it, then run"
        " `headstart repro`"
    )


def stop_before_extract(now: ExtractParams) -> None:
    """Stop if `extract` has run with another backbone than `now`, by what DVC recorded.

    Raises:
        RunError: it has, or the record is damaged.
    """
    lock = Path("dvc.lock")
    try:
        entry = yaml_in_c.load(lock.read_text(encoding="utf-8")) if lock.exists() else {}
        for name in ("stages", "extract", "params", PARAMS.name, "extract"):
            entry = entry.get(name, {})
    except (yaml.YAMLError, AttributeError):
        raise RunError(
            f"{lock} is damaged: restore it from git or delete it, and run `headstart repro`"
        ) from None
    then = ExtractParams.model_construct(**entry)  # with the defaults, and unchecked
    if entry and _named(then) != _named(now):
        raise RunError(
            f"the features are those of {_named(then)}, not those of {_named(now)} in {PARAMS}:"
            " run `headstart repro` first"
        )


def _named(extract: ExtractParams) -> str:
    return f"{extract.backbone} ({extract.weights} weights, {extract.pooling} pooling)"


def laid_out(features: Floats) -> Places:
    """Return places of examples with these features [n, d], on the grid, [n, 2]."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    start = placed(features).places.astype(np.float32)
    start *= 1e-4 / max(start[:, 0].std(), 1e-12)  # as scikit-learn scales its own
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    with threadpool_limits(1):  # so the layout does not depend on the number of cores
        points = Space(features).of(features)
        layout = TSNE(init=start, perplexity=perplexity, max_iter=STEPS, n_jobs=1)
        found = layout.fit_transform(points).astype(np.float64)
    found -= found.min(axis=0)
    places: Places = np.rint(found / max(found.max(), 1e-12) * GRID).astype(np.int64)
    return places

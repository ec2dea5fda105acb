"""The features of the floor: a cheap backbone without pretraining, to compare the project's with.

`Kind.floor` names it. A head on each of the two is trained on the same examples and asked about the
same test examples (`heads/floor.py`, `evaluation/floor.py`).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.paths import FLOOR
from .features import Features, Split, read_splits, write_shards

GRAPH = Path("dvc.yaml")
NAME = FLOOR / "name.txt"  # of the backbone; empty if there is no floor
SHARDS = FLOOR / "features"
DIGITS = 1  # of a shard's name: there are few examples
ASKED, LEARNED = 2000, 1000  # test examples, and others, at most


def is_declared() -> bool:
    """Return whether the project's `dvc.yaml` declares the features: an older one does not."""
    try:
        return FLOOR.as_posix() in GRAPH.read_text(encoding="utf-8")
    except FileNotFoundError:
        return True  # a stage that is run without DVC


def name() -> str:
    """Return the name of the backbone whose features `extract` wrote; empty if there are none."""
    return NAME.read_text(encoding="utf-8").strip() if NAME.exists() and is_declared() else ""


def chosen(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of at most `ASKED` test examples and `LEARNED` others, by digest.

    Digests are random, so ten added examples change few of the rows.
    """
    ordered = manifest.sort_values("digest")
    of_test = ordered["split"] == "test"
    return pd.concat([ordered[of_test].head(ASKED), ordered[~of_test].head(LEARNED)])


def write(backbone: str, digests: Sequence[str], features: Features) -> None:
    """Write the name and the features of view 0 of the examples; no rows if the name is empty."""
    views = np.zeros(len(digests), np.int32)
    write_shards(SHARDS, [(digests, views, features)] if len(digests) else [], digits=DIGITS)
    if name() != backbone or not NAME.exists():
        NAME.write_text(f"{backbone}\n", encoding="utf-8")


def read(manifest: pd.DataFrame, classes: list[str], splits: Sequence[str], power: float) -> Split:
    """Return the rows of these splits, sorted by digest; the rest is as in `read_splits`."""
    found = Split.concat(read_splits(SHARDS, chosen(manifest), classes, splits, power).values())
    return found.take(found.digests.argsort())

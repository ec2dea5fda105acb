"""The features of the floor: a cheap backbone without pretraining, as a baseline for the project's.

`Kind.floor` names it. A head on each of the two is trained on the same examples and evaluated on
the same test examples (`heads/floor.py`, `evaluation/floor.py`).
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.errors import DataError
from ..core.paths import FLOOR
from .features import Features, Split, read_splits, write_shards

GRAPH = Path("dvc.yaml")
NAME = FLOOR / "name.txt"  # of the backbone, or NONE, and the end of the line
NONE = "none"
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
    """Return the name of the backbone whose features `extract` wrote; empty if there are none.

    Raises:
        DataError: the file with the name is damaged.
    """
    if not NAME.exists() or not is_declared():
        return ""
    found = re.fullmatch(rb"(\w+)\n", NAME.read_bytes())
    if found is None:
        raise DataError(f"{NAME} is damaged; run the extract stage again")
    text = found[1].decode()
    return "" if text == NONE else text


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
    NAME.write_text(f"{backbone or NONE}\n", encoding="utf-8")


def read(manifest: pd.DataFrame, classes: list[str], splits: Sequence[str], power: float) -> Split:
    """Return the rows of these splits, sorted by digest; the rest is as in `read_splits`."""
    found = Split.concat(read_splits(SHARDS, chosen(manifest), classes, splits, power).values())
    return found.take(found.digests.argsort())

"""Near-duplicates: the same content in two splits, in different files.

Features alone recognise copies of photographs, but not of textures: to a backbone, two patches of
one wall are as similar as a patch and its copy as a JPEG. Features therefore only select
candidates; the kind of example decides whether they are copies. `benchmarks/alarms.md` shows which
duplicates are found.

Each pair is compared once, because verdicts are kept in the feature store.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.errors import StoreError
from ..kinds import Example, Kind
from ..store.vectors import open_local, open_store
from ..tables.manifest import SPLITS
from .sketches import Floats, Integers, Pair, Sketches

# Rows whose cosines with all rows of the bank are computed at a time, and rows whose nearest are
# searched at a time; they fit into the processor's cache.
ROWS, FEW = 512, 32
# Candidates per example.
NEAREST = 5
EXACT = 20_000  # examples; with more, sketches select the pairs whose cosines are computed
KEY = 16  # bytes


def candidates(queries: Floats, bank: Floats, least: float) -> list[Pair]:
    """Return for each query at most `NEAREST` nearest rows of the bank.

    Args:
        queries: [n, d], each row of length 1.
        bank: [m, d], each row of length 1.
        least: the lowest cosine of a candidate.

    Returns:
        tuples of (row of the queries, row of the bank, cosine).
    """

    taken = min(NEAREST, len(bank))

    def some(start: int) -> list[Pair]:
        cosines = queries[start : start + ROWS] @ bank.T
        found: list[Pair] = []
        for first in range(0, len(cosines), FEW):
            few = cosines[first : first + FEW]
            nearest = np.argpartition(-few, taken - 1, axis=1)[:, :taken]
            values = np.take_along_axis(few, nearest, axis=1)
            rows, places = np.nonzero(values >= least)
            chosen = nearest[rows, places].tolist(), values[rows, places].tolist()
            found += zip((start + first + rows).tolist(), *chosen, strict=True)
        return found

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return [pair for part in threads.map(some, range(0, len(queries), ROWS)) for pair in part]


def near_duplicates(
    rows: pd.DataFrame, features: Floats, least: float, kind: Kind
) -> tuple[pd.DataFrame, int, int]:
    """Return one row per pair of near-duplicates in different splits, the most similar first.

    Pairs with different labels come before all others, because one of their labels may be wrong.
    Also return how many pairs were compared, and how many of them earlier runs had compared.

    Args:
        rows: n rows, as `originals` returns them.
        features: [n, d].
        least: a pair is compared if the cosine of its centred features is at least this.
        kind: the kind of the examples, which decides whether they are duplicates.
    """
    # The mean of few examples is close to them, so it includes ten rows of zeros.
    mean = features.sum(axis=0) / (len(features) + 10)
    if len(rows) > EXACT:
        search = Sketches.of(features, mean, NEAREST).candidates
    else:
        search = partial(_exact, _directions(features, mean))
    place = rows["split"].map(SPLITS.index).to_numpy()
    pairs: list[Pair] = []
    for later in range(1, len(SPLITS)):
        ours, earlier = np.flatnonzero(place == later), np.flatnonzero(place < later)
        if len(ours) and len(earlier):
            pairs += search(ours, earlier, least)
    files = list(zip(rows["path"], rows["digest"], strict=True))
    alike, known = compare([(files[one], files[other]) for one, other, _ in pairs], kind)
    kept = [pairs[i] for i in np.flatnonzero(alike)]
    columns = ["path", "split", "label"]
    one = rows[columns].iloc[[pair[0] for pair in kept]].reset_index(drop=True)
    other = rows[columns].iloc[[pair[1] for pair in kept]].reset_index(drop=True)
    table = pd.concat([one, other.add_prefix("other_")], axis=1)
    table["cosine"] = np.array([pair[2] for pair in kept], dtype=float)
    alike = table["label"] == table["other_label"]
    table = table.assign(alike=alike).sort_values(
        ["alike", "cosine", "path", "other_path"], ascending=[True, False, True, True]
    )
    return table.drop(columns="alike"), len(pairs), known


def _directions(features: Floats, mean: Floats) -> Floats:
    """Centre rows, and scale them to length 1; rows of zeros do not change."""
    centred = features - mean
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    centred /= np.maximum(lengths, np.finfo(np.float32).tiny)
    return centred


def _exact(directions: Floats, ours: Integers, earlier: Integers, least: float) -> list[Pair]:
    """Return the candidates of rows among others; a pair has the numbers of both rows."""
    near = candidates(directions[ours], directions[earlier], least)
    return [(int(ours[i]), int(earlier[j]), cosine) for i, j, cosine in near]


def compare(pairs: Sequence[tuple[Example, Example]], kind: Kind) -> tuple[list[bool], int]:
    """Return whether each pair shows the same content, and how many pairs earlier runs compared.

    Verdicts are kept in the feature store, one entry per pair, and those of the project's last run
    in one entry, which is read faster. The examples of a pair with a stored verdict are not opened.
    If the store cannot be used, the function prints a warning and compares the pairs.
    """
    made_by = kind.copies_by()
    keys = [_key(one[1], other[1], made_by) for one, other in pairs]
    last = _Last(made_by)
    verdicts = {key: last.verdicts[key] for key in keys if key in last.verdicts}
    others = [key for key in keys if key not in verdicts]
    problem = None
    try:
        if others:
            with open_store() as cache:
                verdicts |= {key: bool(kept[0]) for key, kept in cache.get(others).items()}
    except StoreError as error:
        problem = error
    known = len(verdicts)
    new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in verdicts}
    found = dict(zip(new, kind.copies(list(new.values())), strict=True))
    try:
        if found and not problem:
            entries = {key: np.array([alike], dtype=np.float32) for key, alike in found.items()}
            with open_store() as cache:
                cache.put(entries)
    except StoreError as error:
        problem = error
    if problem:
        print(f"checks: warning: the next run compares the same pairs again: {problem}")
    verdicts |= found
    last.keep(verdicts)
    return [verdicts[key] for key in keys], known


class _Last:
    """The verdicts of the project's last run, an entry of the store on this machine."""

    def __init__(self, made_by: str) -> None:
        """Read the verdicts; there are none if the store cannot be used."""
        self._key = blake2b(f"{made_by}, {Path.cwd()}".encode(), digest_size=KEY).digest()
        self.verdicts: dict[bytes, bool] = {}
        with suppress(StoreError), open_local() as store:
            for numbers in store.get([self._key]).values():
                data = numbers.tobytes()
                count = len(data) // (KEY + 1)
                keys = [data[KEY * i : KEY * (i + 1)] for i in range(count)]
                self.verdicts = dict(zip(keys, map(bool, data[KEY * count :]), strict=False))

    def keep(self, verdicts: dict[bytes, bool]) -> None:
        """Write the verdicts of this run, if they differ from those that were read."""
        if verdicts == self.verdicts:
            return
        data = b"".join(verdicts) + bytes(verdicts.values())
        padded = data.ljust(-(-len(data) // 4) * 4, b"\0")
        with suppress(StoreError), open_local() as store:
            store.put({self._key: np.frombuffer(padded, np.float32)})


def _key(one: str, other: str, made_by: str) -> bytes:
    return blake2b(f"{made_by}, {one} {other}".encode(), digest_size=KEY).digest()

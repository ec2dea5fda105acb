"""Near-duplicates: the same thing in two splits, as another file.

Features alone recognise copies of photographs, but not of textures: patches of one wall are as
alike to a backbone as a patch and its own copy as a JPEG. So features only name candidates, and the
kind of example decides. `benchmarks/alarms.md` has what is found.

A pair is compared once: verdicts are kept in the feature store.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.errors import StoreError
from ..kinds import Example, Kind
from ..store.vectors import open_store
from ..tables.manifest import SPLITS

Floats = npt.NDArray[np.float32]

# Cosines computed at a time are at most this many rows against all of the other split.
ROWS = 512
# Candidates looked at for each example.
NEAREST = 5


def candidates(queries: Floats, bank: Floats, least: float) -> list[tuple[int, int, float]]:
    """For each query its nearest rows of the bank, `NEAREST` at most, from cosine `least` on.

    Args:
        queries: [n, d], each row of length 1.
        bank: [m, d], likewise.
        least: the least cosine.

    Returns:
        (row of the queries, row of the bank, cosine).
    """

    def some(start: int) -> list[tuple[int, int, float]]:
        cosines = queries[start : start + ROWS] @ bank.T
        taken = min(NEAREST, len(bank))
        nearest = np.argpartition(-cosines, taken - 1, axis=1)[:, :taken]
        values = np.take_along_axis(cosines, nearest, axis=1)
        return [
            (start + int(row), int(nearest[row, place]), float(values[row, place]))
            for row, place in np.argwhere(values >= least)
        ]

    with ThreadPoolExecutor() as threads:
        return [pair for part in threads.map(some, range(0, len(queries), ROWS)) for pair in part]


def near_duplicates(
    rows: pd.DataFrame, features: Floats, least: float, kind: Kind
) -> tuple[pd.DataFrame, int, int]:
    """One row per pair of near-duplicates in different splits, the most alike first.

    Also returns how many pairs were compared, and how many of these in earlier runs.

    Args:
        rows: as `originals` gives them, n of them.
        features: [n, d].
        least: a pair is compared if the cosine of its centred features is at least this.
    """
    # The mean of few examples would be these examples; it counts ten more, of zeros.
    centred = features - features.sum(axis=0) / (len(features) + 10)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    directions = centred / np.maximum(lengths, np.finfo(np.float32).tiny)
    place = rows["split"].map(SPLITS.index).to_numpy()
    pairs = []
    for later in range(1, len(SPLITS)):
        ours, earlier = np.flatnonzero(place == later), np.flatnonzero(place < later)
        if len(ours) and len(earlier):
            near = candidates(directions[ours], directions[earlier], least)
            pairs += [(ours[i], earlier[j], cosine) for i, j, cosine in near]
    files = list(zip(rows["path"], rows["digest"], strict=True))
    alike, known = compare([(files[one], files[other]) for one, other, _ in pairs], kind)
    kept = [pairs[i] for i in np.flatnonzero(alike)]
    columns = ["path", "split", "label"]
    one = rows[columns].iloc[[pair[0] for pair in kept]].reset_index(drop=True)
    other = rows[columns].iloc[[pair[1] for pair in kept]].reset_index(drop=True)
    table = pd.concat([one, other.add_prefix("other_")], axis=1)
    table["cosine"] = np.array([pair[2] for pair in kept], dtype=float)
    table = table.sort_values(["cosine", "path", "other_path"], ascending=[False, True, True])
    return table, len(pairs), known


def compare(pairs: Sequence[tuple[Example, Example]], kind: Kind) -> tuple[list[bool], int]:
    """Whether each pair shows the same, and how many of the pairs an earlier run had compared.

    Verdicts are kept in the feature store, an entry a pair: the examples of a pair that is known
    are not opened. If the store cannot be used, a line says so and pairs are compared.
    """
    made_by = kind.copies_by()
    keys = [_key(one[1], other[1], made_by) for one, other in pairs]
    verdicts: dict[bytes, bool] = {}
    problem = None
    try:
        with open_store() as cache:
            verdicts = {key: bool(kept[0]) for key, kept in cache.get(keys).items()}
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
        print(f"checks: warning: pairs that were compared are compared again next time: {problem}")
    verdicts |= found
    return [verdicts[key] for key in keys], known


def _key(one: str, other: str, made_by: str) -> bytes:
    return blake2b(f"{made_by}, {one} {other}".encode(), digest_size=16).digest()

"""Near neighbours among many examples: sketches select the pairs whose cosines are computed.

A sketch is a random projection to `WIDTH` dimensions (Johnson and Lindenstrauss, 1984). Its axes
depend on the number of features alone, so the sketch of an example does not depend on other
examples, or on the order in which they arrived. The cosine of two sketches is that of the features
with an error of standard deviation (1 - cosine²) / sqrt(`WIDTH`). A pair is therefore missed only
if its error is below `-SLACK`, which happens to fewer than 1 % of the pairs at the default
threshold, 0.5, and to fewer of more similar ones (`benchmarks/million.md`).

Cells of an inverted file would be no cheaper: at a cosine of 0.5, the cell of a near-duplicate is
so uncertain that most cells have to be searched for the same recall.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from ..tables.large import chunks

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

WIDTH = 160
SLACK = 0.165
MOST = 64  # pairs of an example whose cosines are computed, those with the nearest sketches
ROWS, OF_BANK = 512, 4096  # sketches that are compared at a time


def sketched(features: Floats) -> Floats:
    """Return the sketches [n, WIDTH] of features [n, d], of length 1."""
    size = features.shape[1], WIDTH
    axes = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    found = np.empty((len(features), WIDTH), np.float32)
    for some in chunks(*features.shape):
        found[some] = features[some] @ axes
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return found


def candidates(
    features: Floats, sketches: Floats, queries: Integers, bank: Integers, least: float, count: int
) -> list[tuple[int, int, float]]:
    """Return for each query at most `count` of the nearest rows of the bank.

    Args:
        features: [n, d], each row of length 1.
        sketches: [n, WIDTH], as returned by `sketched`.
        queries: rows of the features.
        bank: other rows of the features.
        least: the lowest cosine of a candidate.
        count: the number of candidates per query.

    Returns:
        tuples of (row of a query, row of the bank, cosine).
    """
    of_bank = sketches[bank]

    def some(start: int) -> list[tuple[int, int, float]]:
        asked = queries[start : start + ROWS]
        places, starts = _nearest(sketches[asked], of_bank, least - SLACK)
        found: list[tuple[int, int, float]] = []
        for query, first, end in zip(asked.tolist(), starts, starts[1:], strict=False):
            rows = bank[places[first:end]]
            cosines = features[rows] @ features[query]
            order = np.argsort(-cosines, kind="stable")[:count]
            chosen = order[cosines[order] >= least]
            found += [(query, int(rows[one]), float(cosines[one])) for one in chosen]
        return found

    with ThreadPoolExecutor() as threads:
        return [pair for part in threads.map(some, range(0, len(queries), ROWS)) for pair in part]


def _nearest(queries: Floats, bank: Floats, least: float) -> tuple[Integers, list[int]]:
    """Return the places in the bank of the `MOST` nearest rows of each query in turn.

    Also return where the places of each query start, and the end.
    """
    lowest = np.full(len(queries), least, np.float32)
    row, place = np.empty(0, np.int64), np.empty(0, np.int64)
    cosine = np.empty(0, np.float32)
    for first in range(0, len(bank), OF_BANK):
        cosines = queries @ bank[first : first + OF_BANK].T
        found = np.flatnonzero(cosines >= lowest[:, None])
        row = np.concatenate([row, found // cosines.shape[1]])
        place = np.concatenate([place, first + found % cosines.shape[1]])
        cosine = np.concatenate([cosine, cosines.ravel()[found]])
        if len(row) <= 2 * MOST * len(queries) and first + OF_BANK < len(bank):
            continue
        order = np.lexsort((-cosine, row))
        row, place, cosine = row[order], place[order], cosine[order]
        starts = np.searchsorted(row, np.arange(len(queries) + 1))
        kept = np.arange(len(row)) - starts[row] < MOST
        row, place, cosine = row[kept], place[kept], cosine[kept]
        starts = np.searchsorted(row, np.arange(len(queries) + 1))
        full = np.diff(starts) == MOST
        lowest[full] = cosine[starts[1:][full] - 1]
    return place, np.searchsorted(row, np.arange(len(queries) + 1)).tolist()

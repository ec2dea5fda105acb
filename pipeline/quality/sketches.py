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

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from ..tables.large import chunks

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Pair = tuple[int, int, float]  # two rows, and the cosine of their features

WIDTH = 160
SLACK = 0.165
MOST = 64  # pairs of an example whose cosines are computed, those with the nearest sketches
ROWS, OF_BANK = 512, 4096  # sketches that are compared at a time


@dataclass(frozen=True)
class Sketches:
    """The sketches [n, WIDTH] of features [n, d], of length 1.

    `directions` turns features into rows of length 1, whose cosines are meant, and treats each row
    by itself. `count` is the number of candidates per query.
    """

    features: Floats
    directions: Callable[[Floats], Floats]
    sketches: Floats
    count: int

    @classmethod
    def of(cls, features: Floats, directions: Callable[[Floats], Floats], count: int) -> Self:
        """Make the sketches."""
        size = features.shape[1], WIDTH
        axes = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
        found = np.empty((len(features), WIDTH), np.float32)
        for some in chunks(*features.shape):
            found[some] = directions(features[some]) @ axes
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        found /= np.maximum(lengths, np.finfo(np.float32).tiny)
        return cls(features, directions, found, count)

    def candidates(self, queries: Integers, bank: Integers, least: float) -> list[Pair]:
        """Return for each query at most `count` of the nearest rows of the bank.

        Args:
            queries: rows of the features.
            bank: other rows of the features.
            least: the lowest cosine of a candidate.

        Returns:
            tuples of (row of a query, row of the bank, cosine).
        """
        of_bank = self.sketches[bank]

        def some(start: int) -> list[Pair]:
            asked = queries[start : start + ROWS]
            places, starts = _nearest(self.sketches[asked], of_bank, least - SLACK)
            wanted = self.directions(self.features[asked])
            found: list[Pair] = []
            for number, query in enumerate(asked.tolist()):
                rows = bank[places[starts[number] : starts[number + 1]]]
                cosines = self.directions(self.features[rows]) @ wanted[number]
                order = np.argsort(-cosines, kind="stable")[: self.count]
                chosen = order[cosines[order] >= least]
                found += [(query, int(rows[one]), float(cosines[one])) for one in chosen]
            return found

        with ThreadPoolExecutor() as threads:
            parts = threads.map(some, range(0, len(queries), ROWS))
            return [pair for part in parts for pair in part]


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

"""Near neighbours among many examples: sketches select the pairs whose cosines are computed.

A sketch is a random projection to `WIDTH` dimensions (Johnson and Lindenstrauss, 1984). Its axes
depend on the number of features alone, so the sketch of an example does not depend on the order in
which examples arrived. The cosine of two sketches is that of the features with an error of standard
deviation (1 - cosine²) / sqrt(`WIDTH`). A pair is looked at unless its error is below `-ERRORS`
standard deviations, so fewer than 1 % are missed (`benchmarks/million.md`).

Cells of an inverted file are no cheaper: at a cosine of 0.5, the default threshold, the cell of a
near-duplicate is uncertain, so many cells have to be searched (`docs/decisions.md`).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from ..tables.large import chunks

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Pair = tuple[int, int, float]  # two rows, and the cosine of their features

WIDTH = 256
ERRORS = 2.8  # standard deviations
MOST = 1024  # pairs of an example whose cosines are computed, those with the nearest sketches
FIRST = 32  # of these; the others are compared with the best of them
ROWS, OF_BANK = 512, 4096  # sketches that are compared at a time


@dataclass(frozen=True)
class Sketches:
    """The sketches [n, WIDTH] of features [n, d] less their `mean` [d].

    Sketches have length 1, `lengths` [n] are those of the centred features, and `count` is the
    number of candidates per query.
    """

    features: Floats
    mean: Floats
    lengths: Floats
    sketches: Floats
    count: int

    @classmethod
    def of(cls, features: Floats, mean: Floats, count: int) -> Self:
        """Make the sketches."""
        size = features.shape[1], WIDTH
        axes = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
        found = np.empty((len(features), WIDTH), np.float32)
        lengths = np.empty(len(features), np.float32)
        for some in chunks(*features.shape):
            centred = features[some] - mean
            lengths[some] = np.linalg.norm(centred, axis=1)
            found[some] = centred @ axes
        least = np.finfo(np.float32).tiny
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), least)
        return cls(features, mean, np.maximum(lengths, least), found, count)

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
            near = _nearest(self.sketches[asked], of_bank, _at_least(least))
            found: list[Pair] = []
            for query, (places, sketched) in zip(asked.tolist(), near, strict=True):
                rows = bank[places]
                cosines = self._cosines(query, rows[:FIRST])
                if len(rows) > FIRST:
                    best = np.partition(cosines, -self.count)[-self.count]
                    last = int((sketched >= _at_least(max(least, float(best)))).sum())
                    cosines = np.append(cosines, self._cosines(query, rows[FIRST:last]))
                order = np.argsort(-cosines, kind="stable")[: self.count]
                chosen = order[cosines[order] >= least]
                found += [(query, int(rows[one]), float(cosines[one])) for one in chosen]
            return found

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            parts = threads.map(some, range(0, len(queries), ROWS))
            return [pair for part in parts for pair in part]

    def _cosines(self, query: int, rows: Integers) -> Floats:
        wanted = (self.features[query] - self.mean) / self.lengths[query]
        products = self.features[rows] @ wanted - self.mean @ wanted
        found: Floats = products / self.lengths[rows]
        return found


def _at_least(cosine: float) -> float:
    """Return the lowest cosine of the sketches of a pair with this cosine."""
    return cosine - ERRORS * (1 - cosine**2) / float(np.sqrt(WIDTH))


def _nearest(queries: Floats, bank: Floats, least: float) -> list[tuple[Integers, Floats]]:
    """Return for each query its nearest rows of the bank, at most `MOST`, and their cosines.

    The nearest come first; none has a cosine below `least`.
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
    return list(zip(np.split(place, starts[1:-1]), np.split(cosine, starts[1:-1]), strict=True))

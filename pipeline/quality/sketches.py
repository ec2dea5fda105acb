"""Near neighbours among many examples: sketches select the pairs whose cosines are computed.

A sketch is a random projection to `WIDTH` dimensions (Johnson and Lindenstrauss, 1984), as whole
numbers. Its axes and its scale depend on no example, so the sketch of an example does not depend on
the others, or on the order in which they arrived. The cosine of two sketches is that of the
features with an error of standard deviation (1 - cosine²) / sqrt(`WIDTH`), and a smaller one of
rounding. A pair above the threshold is found unless its error is below `-ERRORS` standard
deviations, so fewer than 1 % are missed (`benchmarks/million.md`).

ONNX Runtime multiplies whole numbers several times as fast as NumPy multiplies float32. The
products are exact on every processor: those without instructions for 8 bits add two products in 16
bits, into which they fit.

Cells of an inverted file are no cheaper: at a cosine of 0.5, the default threshold, the cell of a
near-duplicate is uncertain, so many cells have to be searched (`docs/decisions.md`).
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..kinds import IR_VERSION, OPSET
from ..tables.large import chunks

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]
Products = npt.NDArray[np.int32]
Pair = tuple[int, int, float]  # two rows, and the cosine of their features

WIDTH = 256
LARGEST = 63  # in a sketch
SCALE = LARGEST / 4 * np.sqrt(WIDTH)  # only numbers of more than 4 standard deviations are clipped
ERRORS = 2.8  # standard deviations
ROUNDING = 1 / SCALE / np.sqrt(6)  # standard deviation of the rounding error of a cosine
MOST = 1024  # pairs of an example whose cosines are computed, those with the nearest sketches
FIRST = 32  # of these, computed first; of the others, only those that may be among the best
ROWS, OF_BANK = 256, 512  # sketches that are compared at a time, in the processor's cache
BOUND = 2**20  # above any product of two sketches

# Sketches of the bank are unsigned, since processors multiply unsigned by signed numbers.
GRAPH = f"""
<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
products (uint8[rows, {WIDTH}] bank, int8[{WIDTH}, columns] queries)
    => (int32[rows, columns] products)
<uint8 zero = {{{LARGEST}}}>
{{
    products = MatMulInteger(bank, queries, zero)
}}
"""


@dataclass(frozen=True)
class Sketches:
    """The sketches [n, WIDTH] of features [n, d] less their `mean` [d].

    Sketches have length `SCALE`, `lengths` [n] are those of the centred features, and `count` is
    the number of candidates per query.
    """

    features: Floats
    mean: Floats
    lengths: Floats
    sketches: Bytes
    count: int

    @classmethod
    def of(cls, features: Floats, mean: Floats, count: int) -> Self:
        """Make the sketches."""
        size = features.shape[1], WIDTH
        axes = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
        found = np.empty((len(features), WIDTH), np.int8)
        lengths = np.empty(len(features), np.float32)
        least = np.finfo(np.float32).tiny
        for some in chunks(*features.shape):
            centred = features[some] - mean
            lengths[some] = np.linalg.norm(centred, axis=1)
            along = centred @ axes
            along *= SCALE / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), least)
            found[some] = np.clip(np.rint(along), -LARGEST, LARGEST)
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
        unsigned = (self.sketches[bank] + np.int8(LARGEST)).view(np.uint8)
        multiply = multiplier()

        def some(start: int) -> list[Pair]:
            asked = queries[start : start + ROWS]
            near = _nearest(self.sketches[asked], unsigned, _at_least(least), multiply)
            found: list[Pair] = []
            for query, (places, sketched) in zip(asked.tolist(), near, strict=True):
                if not len(places):
                    continue
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


def _at_least(cosine: float) -> int:
    """Return the lowest product of sketches at which a pair may have this cosine."""
    error = np.hypot((1 - cosine**2) / np.sqrt(WIDTH), ROUNDING)
    return int(np.floor(SCALE**2 * (cosine - ERRORS * error)))


def multiplier() -> Callable[[Any, Any], Products]:
    """Return a function that multiplies sketches of the bank and queries, as in `GRAPH`."""
    import onnxruntime  # slow to import, and needed only for many examples
    from onnx import parser

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        parser.parse_model(GRAPH).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def multiply(bank: Any, queries: Any) -> Products:
        found: Products = session.run(None, {"bank": bank, "queries": queries})[0]
        return found

    return multiply


def _nearest(
    queries: Bytes,
    bank: npt.NDArray[np.uint8],
    least: int,
    multiply: Callable[[Any, Any], Products],
) -> list[tuple[Integers, Integers]]:
    """Return for each query its nearest rows of the bank, at most `MOST`, and their products.

    The nearest come first; none has a product below `least`.
    """
    across = np.ascontiguousarray(queries.T)
    lowest = np.full(len(queries), least, np.int32)
    # A pair is one number, in the order of the queries, then the products, then the places.
    of_query = 2 * BOUND * len(bank)
    ends = of_query * np.arange(len(queries) + 1)
    parts, count = [np.empty(0, np.int64)], 0
    for first in range(0, len(bank), OF_BANK):
        found, product = _above(multiply(bank[first : first + OF_BANK], across), lowest)
        if not len(found):
            continue
        place, query = np.divmod(found, len(queries))
        parts.append(of_query * query + len(bank) * (BOUND - product) + first + place)
        count += len(found)
        if count > 2 * MOST * len(queries):
            pairs, starts = _shortened(parts, ends)
            full = np.flatnonzero(np.diff(starts) == MOST)
            lowest[full] = BOUND - pairs[starts[full + 1] - 1] % of_query // len(bank)
            parts, count = [pairs], len(pairs)
    pairs, starts = _shortened(parts, ends)
    places, products = pairs % len(bank), BOUND - pairs % of_query // len(bank)
    ends = starts[1:-1]
    return list(zip(np.split(places, ends), np.split(products, ends), strict=True))


def _above(products: Products, lowest: Products) -> tuple[Integers, Integers]:
    """Return where products [k, m] are not below the lowest [m], and these products."""
    found = np.empty(0, np.int64)
    if products.max() >= lowest.min():
        found = np.flatnonzero(products >= lowest)
    return found, products.ravel()[found].astype(np.int64)


def _shortened(parts: list[Integers], ends: Integers) -> tuple[Integers, Integers]:
    """Return the first `MOST` pairs of each of m queries, sorted, and where those begin, [m + 1].

    The pairs of a query are the numbers between two of the `ends` [m + 1].
    """
    pairs = np.sort(np.concatenate(parts))
    starts = np.searchsorted(pairs, ends)
    pairs = pairs[np.arange(len(pairs)) - np.repeat(starts[:-1], np.diff(starts)) < MOST]
    return pairs, np.searchsorted(pairs, ends)

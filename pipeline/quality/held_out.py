"""Out-of-fold predictions of ridge regressions, to find label issues."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..heads.least_squares import ridge
from ..tables.folds import folds
from ..tables.large import in_parts, zeros
from ..tables.manifest import group_keys

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

FOLDS = 5
# L2 penalty over the mean square of a feature. A third or three times of it finds as many issues.
PENALTY = 0.01
SIZES = (1e-15, 1e15)  # range of features whose squares float32 can hold


def folds_of(rows: pd.DataFrame, labels: npt.NDArray[Any], seed: int, numbers: bool) -> Integers:
    """Return the fold [n] of each row of the manifest, as assigned by `tables.folds`."""
    return folds(group_keys(rows).tolist(), labels, FOLDS, numbers, seed)


class Unit(NamedTuple):
    """What is subtracted from features, [d], and what then divides them, for a mean square of 1."""

    centre: Floats
    size: float

    @classmethod
    def of(cls, features: Floats) -> Self:
        """Measure features [n, d]."""
        centre = features.mean(axis=0)
        with np.errstate(over="ignore", under="ignore"):
            size = _size(features, centre, np.float32)
        if not SIZES[0] < size < SIZES[1]:
            size = _size(features, centre, np.float64)
        return cls(centre, size or 1.0)

    def scaled(self, features: Floats) -> Floats:
        """Centre and scale features [m, d]."""
        found = features - self.centre
        found /= self.size
        return found


class Ridge(NamedTuple):
    """A ridge regression of c numbers: weights [d, c], and the means of its rows, [d] and [c]."""

    of: npt.NDArray[Any]
    mean: npt.NDArray[Any]
    means: npt.NDArray[Any]


@dataclass(frozen=True)
class Regressions:
    """A ridge regression of c numbers for each fold, fitted on the other folds.

    The features [n, d] may be larger than memory: only a part of the rows is scaled at a time.
    `fold` is [n].
    """

    features: Floats
    unit: Unit
    fold: Integers
    outputs: int
    of_folds: dict[int, Ridge]

    @classmethod
    def of(cls, features: Floats, wanted: Any, fold: Integers, penalty: float = PENALTY) -> Self:
        """Fit the regressions.

        Args:
            features: [n, d].
            wanted: [n, c], the finite numbers to predict; may be a sparse array of SciPy.
            fold: [n], as `folds_of` returns it.
            penalty: the L2 penalty, divided by the mean square of a feature.
        """
        unit = Unit.of(features)
        sizes = [int((fold == number).sum()) for number in range(FOLDS)]
        held = [number for number, size in enumerate(sizes) if 0 < size < len(fold)]
        least = min((len(fold) - sizes[number] for number in held), default=0)
        fitted = _by_sums if least > features.shape[1] else _by_rows
        of_folds = dict(fitted(features, unit, wanted, fold, held, penalty))
        return cls(features, unit, fold, wanted.shape[1], of_folds)

    @property
    def tested(self) -> npt.NDArray[np.bool_]:
        """Whether there was a different fold to fit on, [n]."""
        return np.isin(self.fold, list(self.of_folds))

    def predicted(self, rows: Integers | slice) -> Floats:
        """Return the predictions [m, c] of some rows, or 0 if there was no different fold."""
        rows = np.arange(len(self.fold))[rows]
        found = np.zeros((len(rows), self.outputs), np.float32)
        for number, (of, mean, means) in self.of_folds.items():
            here = self.fold[rows] == number
            found[here] = (self.unit.scaled(self.features[rows[here]]) - mean) @ of + means
        return found

    def every(self) -> Floats:
        """Return the predictions [n, c] of all rows."""
        found = zeros(len(self.fold), self.outputs)
        for some in in_parts(self.features):
            found[some] = self.predicted(some)
        return found


def predicted(
    features: Floats, wanted: Floats, fold: Integers, penalty: float = PENALTY
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return each example's prediction by a ridge regression that was fitted on the other folds.

    The arguments are those of `Regressions.of`.

    Returns:
        predictions [n, c], and whether there was a different fold to fit on, [n].
    """
    regressions = Regressions.of(features, wanted, fold, penalty)
    return regressions.every(), regressions.tested


def _size(features: Floats, centre: Floats, of: type[np.floating[Any]]) -> float:
    """Return the root of the mean square of the centred features."""
    square = 0.0
    for some in in_parts(features):
        part = (features[some] - centre).astype(of, copy=False)
        square += float(np.square(part).mean()) * (len(part) / len(features))
    return float(np.sqrt(square))


class _Sums:
    """Sums over rows [m, d] and the numbers wanted for them [m, c], and sums of their products."""

    def __init__(self, dimension: int, outputs: int, of: npt.DTypeLike) -> None:
        self.count = 0
        self.total, self.totals = np.zeros(dimension, np.float32), np.zeros(outputs, of)
        self.cross = np.zeros((dimension, outputs), of)

    def add(self, rows: Floats, wanted: Any) -> None:
        self.count += len(rows)
        self.total += rows.sum(axis=0)
        self.totals += wanted.sum(axis=0)
        self.cross += rows.T @ wanted


def _by_sums(
    features: Floats, unit: Unit, wanted: Any, fold: Integers, held: list[int], penalty: float
) -> Iterator[tuple[int, Ridge]]:
    """Fit a regression for each fold of `held`: its sums are subtracted from those of all rows."""
    dimension, outputs = features.shape[1], wanted.shape[1]
    every = _Sums(dimension, outputs, wanted.dtype)
    of_folds = {number: _Sums(dimension, outputs, wanted.dtype) for number in held}
    products = {number: np.zeros((dimension, dimension), np.float32) for number in (*held, -1)}
    for some in in_parts(features):
        part, of_part = unit.scaled(features[some]), wanted[some]
        every.add(part, of_part)
        for number in products:
            rows = part[fold[some] == number]
            products[number] += rows.T @ rows
            if number in of_folds:
                of_folds[number].add(rows, of_part[fold[some] == number])
    squares = sum(products.values())
    for number, own in of_folds.items():
        count = every.count - own.count
        total, totals = every.total - own.total, every.totals - own.totals
        mean, means = total / count, totals / count
        square = squares - products[number] - np.outer(mean, total)
        cross = every.cross - own.cross - np.outer(mean, totals)
        yield number, Ridge(ridge(square, penalty * count * dimension, cross), mean, means)


def _by_rows(
    features: Floats, unit: Unit, wanted: Any, fold: Integers, held: list[int], penalty: float
) -> Iterator[tuple[int, Ridge]]:
    """Fit the regressions from the products of rows, if there are fewer rows than features."""
    scaled = unit.scaled(features)
    for number in held:
        others, of_others = scaled[fold != number], wanted[fold != number]
        if not isinstance(of_others, np.ndarray):
            of_others = of_others.toarray()
        mean, means = others.mean(axis=0), of_others.mean(axis=0)
        others -= mean
        damping = penalty * len(others) * features.shape[1]
        dual = ridge(others @ others.T, damping, of_others - means)
        yield number, Ridge(others.T @ dual, mean, means)

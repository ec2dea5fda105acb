"""Out-of-fold predictions of ridge regressions, to find label issues."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..heads.least_squares import ridge
from ..tables.folds import folds
from ..tables.large import mapped, taken, zeros
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


@dataclass(frozen=True)
class Regression:
    """A ridge regression of c numbers, and the `rows` of `features` [n, d] not used to fit it.

    The features are centred, and scaled to a mean square of 1.
    """

    features: Floats
    rows: Integers
    of: Floats
    mean: Floats
    means: Floats

    def predicted(self, rows: Integers) -> Floats:
        """Return predictions [m, c] for some rows of the features."""
        return mapped(taken(self.features, rows), self._of)

    def _of(self, features: Floats) -> Floats:
        found: npt.NDArray[Any] = (features - self.mean) @ self.of + self.means
        return found


def predicted(
    features: Floats, wanted: Floats, fold: Integers, penalty: float = PENALTY
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return each example's prediction by a ridge regression that was fitted on the other folds.

    The arguments are those of `regressions`.

    Returns:
        predictions [n, c], and whether there was a different fold to fit on, [n].
    """
    answers = zeros(*wanted.shape)
    scored = np.zeros(len(wanted), dtype=bool)
    for one in regressions(features, wanted, fold, penalty):
        answers[one.rows] = one.predicted(one.rows)
        scored[one.rows] = True
    return answers, scored


def regressions(
    features: Floats, wanted: Any, fold: Integers, penalty: float = PENALTY
) -> Iterator[Regression]:
    """Fit a ridge regression for each fold, on the other folds.

    With more rows than features, the sums of a fold are subtracted from those of all rows.

    Args:
        features: [n, d].
        wanted: [n, c], the finite numbers to predict; may be a sparse array of SciPy.
        fold: [n], as `folds_of` returns it.
        penalty: the L2 penalty, divided by the mean square of a feature.
    """
    centred = mapped(features, partial(_less, mean=features.mean(axis=0)))
    with np.errstate(over="ignore", under="ignore"):
        size = float(np.sqrt(mapped(centred, np.square).mean()))
    if not SIZES[0] < size < SIZES[1]:
        size = float(np.sqrt(np.square(centred.astype(np.float64)).mean()))
    centred /= size or 1.0
    every = [fold == number for number in range(FOLDS)]
    held = [out for out in every if out.any() and not out.all()]
    rows, dimension = centred.shape
    products: list[Floats] = []
    if rows - max((int(out.sum()) for out in held), default=rows) > dimension:
        parts = (taken(centred, out) for out in (*held, fold < 0))
        products = [part.T @ part for part in parts]
        sums = centred.sum(axis=0), wanted.sum(axis=0), sum(products), centred.T @ wanted
    for number, out in enumerate(held):
        own, of_own = taken(centred, out), _taken(wanted, out)
        count = rows - len(own)
        if products:
            less = own.sum(axis=0), of_own.sum(axis=0), products[number], own.T @ of_own
            total, totals, squares, cross = (a - b for a, b in zip(sums, less, strict=True))
            mean, means = total / count, totals / count
            squares -= np.outer(mean, total)
            cross -= np.outer(mean, totals)
            of = ridge(squares, penalty * count * dimension, cross)
        else:
            others, of_others = taken(centred, ~out), _taken(wanted, ~out)
            if not isinstance(of_others, np.ndarray):
                of_others = of_others.toarray()
            mean, means = others.mean(axis=0), of_others.mean(axis=0)
            others -= mean
            dual = ridge(others @ others.T, penalty * count * dimension, of_others - means)
            of = others.T @ dual
        yield Regression(centred, np.flatnonzero(out), of, mean, means)


def _less(rows: Floats, mean: Floats) -> Floats:
    return rows - mean


def _taken(wanted: Any, rows: npt.NDArray[np.bool_]) -> Any:
    return taken(wanted, rows) if isinstance(wanted, np.ndarray) else wanted[rows]

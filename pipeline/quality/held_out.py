"""Out-of-fold predictions of ridge regressions, to find label issues."""

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


def predicted(
    features: Floats, wanted: Floats, fold: Integers, penalty: float = PENALTY
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return each example's prediction by a ridge regression that was fitted on the other folds.

    Args:
        features: [n, d].
        wanted: [n, c], the finite numbers to predict.
        fold: [n], as `folds_of` returns it.
        penalty: the L2 penalty, divided by the mean square of a feature.

    Returns:
        predictions [n, c], and whether there was a different fold to fit on, [n].
    """
    centred = mapped(features, partial(_less, mean=features.mean(axis=0)))
    with np.errstate(over="ignore", under="ignore"):
        size = float(np.sqrt(mapped(centred, np.square).mean()))
    if not SIZES[0] < size < SIZES[1]:
        size = float(np.sqrt(np.square(centred.astype(np.float64)).mean()))
    centred /= size or 1.0
    answers = zeros(*wanted.shape)
    scored = np.zeros(len(wanted), dtype=bool)
    for held in range(FOLDS):
        out = fold == held
        if out.all():
            continue
        others, of_others = taken(centred, ~out), taken(wanted, ~out)
        means = of_others.mean(axis=0)
        mean = others.mean(axis=0)
        others -= mean
        of = weights(others, mapped(of_others, partial(_less, mean=means)), penalty)
        answers[out] = mapped(taken(centred, out), partial(_answers, of, mean, means))
        scored[out] = True
    return answers, scored


def _less(rows: Floats, mean: Floats) -> Floats:
    return rows - mean


def _answers(of: Floats, mean: Floats, means: Floats, features: Floats) -> Floats:
    found: npt.NDArray[Any] = (features - mean) @ of + means
    return found


def weights(features: Floats, wanted: Floats, penalty: float = PENALTY) -> Floats:
    """Return the weights [d, c] of a ridge regression, from the smaller of two linear systems."""
    rows, dimension = features.shape
    damping = penalty * rows * dimension
    if rows <= dimension:
        return features.T @ ridge(features @ features.T, damping, wanted)
    return ridge(features.T @ features, damping, features.T @ wanted)

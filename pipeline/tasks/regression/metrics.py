"""Measures of regression, under weightings of the examples as in `metrics.py`."""

import numpy as np

from ...evaluation.metrics import Array, Scores, ratio
from ...heads.head import one_thread

CONSTANT = 1e-12  # of the variance: targets that vary less are taken to be all the same


def weighted(weights: Array, targets: Array, answers: Array) -> Scores:
    """The measures under each of the weightings [B, n].

    For each target: mae (mean absolute error), rmse (root of the mean squared error), both in its
    own unit, and r2 (the fraction of its variance that is explained; NaN if it does not vary).
    Overall: the mean of each over the targets, as scikit-learn's `uniform_average`.

    Args:
        weights: of the examples.
        targets: [n, c].
        answers: [n, c].
    """
    errors = answers - targets
    centred = targets - targets.mean(axis=0)
    total = weights.sum(axis=1, keepdims=True)
    with one_thread():
        squared = weights @ np.square(errors)
        absolute = weights @ np.abs(errors)
        squares = weights @ np.square(centred)
        variation = squares - np.square(weights @ centred) / total
    varies = variation > CONSTANT * np.maximum(squares, np.square(targets).max(axis=0, initial=0))
    of_number = {
        "mae": absolute / total,
        "rmse": np.sqrt(squared / total),
        "r2": 1 - ratio(squared, np.where(varies, variation, 0)),
    }
    overall = {name: values.mean(axis=1) for name, values in of_number.items()}
    defined = varies.sum(axis=1).astype(np.float64)
    explained = np.where(varies, of_number["r2"], 0).sum(axis=1)
    return Scores(overall | {"r2": ratio(explained, defined)}, of_number)

"""Metrics of regression, with example weights as in `evaluation/metrics.py`."""

import numpy as np

from ...evaluation.metrics import Array, Scores, ratio
from ...heads.head import one_thread

CONSTANT = 1e-12  # relative variance; targets that vary less count as constant


def weighted(weights: Array, targets: Array, answers: Array) -> Scores:
    """Return the metrics for each row of `weights` [B, n].

    For each target: mae (mean absolute error) and rmse (root mean squared error) in its own unit,
    and r2 (the fraction of explained variance; NaN if the target is constant). Overall: the mean of
    each metric over the targets, as with scikit-learn's `uniform_average`.

    Args:
        weights: [B, n], weights of the examples.
        targets: [n, c].
        answers: [n, c], the predictions.
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

"""An estimate of how long L-BFGS takes, from a pass over some rows."""

import time

import numpy as np

from .closed_forms import SOLVERS
from .head import Floats, one_thread
from .linear_loss import AT_ONCE, with_ones
from .losses import LOSSES

# Passes over the rows for one head. 8 to 56 were counted for digits and synthetic vectors of 10 to
# 300 classes; the number depends on the data and on the weight decay.
PASSES = 30
TRIES = 4
LEAST = 600.0  # seconds; shorter estimates are not printed
SLOW = 1e10  # operations per second of a slow core; no pass is measured if it needs under `LEAST`


def seconds(features: Floats, outputs: int, heads: int) -> float:
    """Return about how many seconds L-BFGS takes; 0 if even a slow core needs less than `LEAST`.

    Args:
        features: [n, d], the rows that heads are trained on.
    """
    count, dimension = features.shape
    if 4 * PASSES * heads * count * dimension * outputs < LEAST * SLOW:
        return 0.0
    rows = with_ones(features[: max(1, AT_ONCE // outputs)])
    labels, took = np.zeros((len(rows), 1), np.int64), []
    weights, gradient = np.zeros((2, outputs, rows.shape[1]), np.float32)
    with one_thread():
        for _ in range(TRIES):  # as in `LinearLoss`; the first one is slower than the others
            start = time.thread_time()
            _, slopes = LOSSES["softmax"].at(rows @ weights.T, labels)
            gradient += slopes.T @ rows
            took.append(time.thread_time() - start)
    return min(took) * float(count / len(rows)) * PASSES * heads


def line(features: Floats, outputs: int, heads: int, nouns: str, loss: str) -> str:
    """Return the line to print before L-BFGS begins; empty if it does not take long."""
    took = seconds(features, outputs, heads)
    if took < LEAST:
        return ""
    words = f"{took / 60:.0f} minutes" if took < 7200 else f"{took / 3600:.0f} hours"
    ridge = "; train.optimizer: ridge is far faster" if "ridge" in SOLVERS[loss] else ""
    return f"lbfgs takes about {words} for {len(features):,} rows and {outputs:,} {nouns}{ridge}"

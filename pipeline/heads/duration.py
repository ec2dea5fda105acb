"""An estimate of how long L-BFGS takes, from one pass over some rows."""

import time

import numpy as np

from .closed_forms import SOLVERS
from .head import Floats, one_thread
from .linear_loss import AT_ONCE, LinearLoss, with_ones
from .losses import LOSSES

# Passes over the rows for one head. 8 to 56 were counted for digits and made vectors of 10 to 300
# classes; the number depends on the data and on the weight decay.
PASSES = 30
LEAST = 600.0  # seconds; shorter estimates are not printed
SLOW = 1e10  # operations per second of a slow core; the pass is only measured if it matters then


def seconds(features: Floats, outputs: int, heads: int) -> float:
    """Return about how many seconds L-BFGS takes; 0 if even a slow core needs less than `LEAST`.

    Args:
        features: [n, d], the rows that heads are trained on.
        outputs: the number of classes or labels.
        heads: how many heads are trained.
    """
    count, dimension = features.shape
    if 4 * PASSES * heads * count * dimension * outputs < LEAST * SLOW:
        return 0.0
    rows = with_ones(features[: max(32, AT_ONCE // outputs)])
    labels, importance = np.zeros((len(rows), 1), np.int64), np.ones((len(rows), 1), np.float32)
    loss = LinearLoss(LOSSES["softmax"], rows, labels, importance, 0.0)
    weights = np.zeros((1, outputs * rows.shape[1]), np.float32)
    with one_thread():
        start = time.perf_counter()
        loss(weights, np.zeros(1, np.intp))
        took = time.perf_counter() - start
    return took * float(count / len(rows)) * PASSES * heads


def line(features: Floats, outputs: int, heads: int, nouns: str, loss: str) -> str:
    """Return the line to print before L-BFGS begins; empty if it does not take long."""
    took = seconds(features, outputs, heads)
    if took < LEAST:
        return ""
    words = f"{took / 60:.0f} minutes" if took < 5400 else f"{took / 3600:.1f} hours"
    ridge = (
        "; train.optimizer: ridge needs a small part of that" if "ridge" in SOLVERS[loss] else ""
    )
    return (
        f"lbfgs will take about {words} for {len(features):,} rows and {outputs:,} {nouns}{ridge}"
    )

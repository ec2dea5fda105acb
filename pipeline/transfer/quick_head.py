"""Linear probes to compare backbones, one for each L2 penalty.

A probe is a logistic regression in classification and multi-label tasks, and a ridge regression in
regression.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..heads.fit import fit_heads
from ..heads.hyperparameters import Hyperparameters
from ..heads.losses import Units, loss_for
from ..heads.trained import Schedule, Trained
from ..tables.features import Split
from ..tasks import TASKS

DECAYS = np.geomspace(1e-4, 10, 11).tolist()  # L2 penalties that a probe may have
# Stronger penalties for regression, because many features may each have a small effect.
STRONG = np.geomspace(30, 1000, 4).tolist()
LOSS_OF_NUMBERS = "squared"


def decays_for(task: str, ordinary: Sequence[float]) -> list[float]:
    """Return the penalties to try: the ordinary ones and, for ridge regression, stronger ones."""
    return [*ordinary, *STRONG] if TASKS[task].probe == "ridge" else list(ordinary)


def quick_heads(
    rows: Split,
    val: Split,
    task: str,
    outputs: int,
    decays: Sequence[float],
    counts: bool = False,
) -> list[Trained]:
    """Train a head for each of the penalties.

    Args:
        val: examples to measure on; may be empty.
        counts: whether the features are counts of terms.
    """
    choices = [Hyperparameters(TASKS[task].probe, weight_decay=decay) for decay in decays]
    weights, loss = np.ones(outputs, np.float32), loss_for(task, LOSS_OF_NUMBERS)
    return fit_heads(rows, val, choices, Schedule(1, 1, 0, weights, counts, loss), "cpu")


def units_for(task: str, labels: npt.NDArray[Any]) -> Units | None:
    """Return the units in which losses are reported in regression; None in other tasks."""
    return None if TASKS[task].probabilities else Units.of(LOSS_OF_NUMBERS, labels)

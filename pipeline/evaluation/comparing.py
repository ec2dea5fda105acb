"""How good answers are, by the task: the measure that the optional stages compare by.

It is accuracy for one label, mean average precision for several, and R² for numbers.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.params import EvaluateParams
from ..heads.head import ANSWERS, Floats, probabilities
from ..heads.losses import Units, cell_losses
from ..tables.task_names import CLASSIFICATION, MULTILABEL, REGRESSION
from . import measuring, spelt
from .metrics import Weigh, interval, resample, whole

Losses = npt.NDArray[np.float64]

RESAMPLES = 1000  # behind each interval
MEASURES = {
    CLASSIFICATION: "accuracy",
    MULTILABEL: "mean_average_precision",
    REGRESSION: "r2",
}
LEAST = 1e-15  # probability: of 0 a loss would be infinite
# The one top_k and one bin of measures that are computed on the way and not asked for.
PLAIN = EvaluateParams(top_k=1, calibration_bins=1)


class Judged(NamedTuple):
    """The measure, and the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


def measure(task: str) -> str:
    """The name of the task's measure, as tables have it."""
    return MEASURES[task]


def words(task: str) -> str:
    """The name of the task's measure, for people."""
    return spelt(MEASURES[task])


def weigh(task: str, logits: Floats, labels: npt.NDArray[Any]) -> Weigh:
    """The measures of answers, for weightings of the examples.

    Args:
        task: of the labels.
        logits: [n, c].
        labels: as `tables.targets.of` gives them.
    """
    answers = ANSWERS[task](logits, 1.0)
    return measuring(task).weigh(labels, answers, [0.5] * logits.shape[1], PLAIN)


def value(task: str, logits: Floats, labels: npt.NDArray[Any]) -> float:
    """The measure of answers; the rest is as in `weigh`."""
    return float(whole(weigh(task, logits, labels), len(labels)).overall[MEASURES[task]][0])


def judged(task: str, logits: Floats, labels: npt.NDArray[Any], confidence: float) -> Judged:
    """The measure of answers with its interval; the rest is as in `weigh`."""
    weighing = weigh(task, logits, labels)
    examples, outputs = logits.shape
    resampled = resample(weighing, examples, outputs, RESAMPLES, 0).overall[MEASURES[task]]
    low, high = interval(resampled, confidence)
    return Judged(value(task, logits, labels), float(low), float(high))


def surprise(
    task: str, logits: Floats, labels: npt.NDArray[Any], units: Units | None = None
) -> Losses:
    """The loss of each example, [n].

    Of one label the log loss, of several the mean log loss of those that are known (NaN where none
    is), of numbers the mean of half the squared errors in `units`.

    Args:
        task: of the labels.
        logits: [n, c].
        labels: in their own units.
        units: of numbers.
    """
    if task == CLASSIFICATION:
        given = probabilities(logits)[np.arange(len(logits)), labels]
        log_losses: Losses = -np.log(np.maximum(given, LEAST))
        return log_losses
    if units is not None:
        cells = cell_losses(
            "squared", units.learned(logits.astype(np.float64)), units.learned(labels)
        )
    else:
        cells = cell_losses("binary", logits, labels)
    known = ~np.isnan(cells)
    count = known.sum(axis=1)
    total = np.where(known, cells, 0).sum(axis=1)
    means: Losses = np.divide(total, count, out=np.full(len(cells), np.nan), where=count > 0)
    return means

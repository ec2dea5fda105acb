"""The metric that the optional stages use for comparisons; it depends on the task.

It is accuracy in classification, mean average precision in multi-label tasks, and R² in regression.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..core.params import EvaluateParams
from ..heads.head import Floats, activated, probabilities
from ..heads.losses import Units, cell_losses
from ..tasks import TASKS
from . import measuring, spelt
from .intervals import Groups, even_groups, expanded, mean_interval, student, wilson
from .metrics import Weigh, interval, resample, whole

Losses = npt.NDArray[np.float64]

RESAMPLES = 1000  # for each interval
LEAST = 1e-15  # lowest probability, because the log loss of 0 is infinite
# Values for metrics that are computed as well, but not reported.
PLAIN = EvaluateParams(top_k=1, calibration_bins=1)


class Score(NamedTuple):
    """The value of a metric, and the ends of its interval."""

    value: float
    low: float
    high: float


def measure(task: str) -> str:
    """Return the name of the task's metric, as in tables."""
    return TASKS[task].measure


def words(task: str) -> str:
    """Return the display name of the task's metric."""
    return spelt(measure(task))


def weigh(task: str, logits: Floats, labels: npt.NDArray[Any]) -> Weigh:
    """Return the function from example weights to the metrics of the predictions.

    Args:
        logits: [n, c].
        labels: as `tables.targets.of` returns them.
    """
    answers = activated(task, logits, 1.0)
    return measuring(task).weigh(labels, answers, [0.5] * logits.shape[1], PLAIN)


def value(task: str, logits: Floats, labels: npt.NDArray[Any]) -> float:
    """Return the metric of the predictions; the arguments are as in `weigh`."""
    return float(whole(weigh(task, logits, labels), len(labels)).overall[measure(task)][0])


def scored(
    task: str,
    logits: Floats,
    labels: npt.NDArray[Any],
    confidence: float,
    groups: Groups | None = None,
) -> Score:
    """Return the metric with its interval; `groups` is [n], the rest is as in `weigh`.

    The ends are NaN for a single group, which does not show how groups differ; those of an accuracy
    are then 0 and 1.
    """
    if measure(task) == "accuracy":
        return accuracy(logits.argmax(axis=1) == labels, confidence, groups)
    if groups is not None and even_groups(groups) <= 1:
        return Score(value(task, logits, labels), np.nan, np.nan)
    weighing = weigh(task, logits, labels)
    examples, outputs = logits.shape
    resampled = resample(weighing, examples, outputs, RESAMPLES, 0, groups).overall[measure(task)]
    low, high = interval(resampled, expanded(confidence, groups))
    return Score(value(task, logits, labels), float(low), float(high))


def accuracy(
    right: npt.NDArray[np.bool_], confidence: float, groups: Groups | None = None
) -> Score:
    """Return the accuracy with Wilson's interval; `right` [n] marks the correct predictions."""
    return Score(float(right.mean()), *wilson(right, confidence, groups))


@dataclass(frozen=True)
class Difference:
    """The difference of two mean losses on the same examples, with its interval.

    `p_value` tests the null hypothesis that the two are equal.
    """

    mean: float
    low: float
    high: float
    p_value: float


def difference(one: Losses, other: Losses, confidence: float, groups: Groups) -> Difference:
    """Return how much higher the mean of `one` is than that of `other`, by the paired t-test.

    Args:
        one: [n], the losses of one model.
        other: [n], the losses of the other model on the same examples.
        groups: [n], the group of each example. With groups, the variance between groups is used; it
            is unknown if there is only one group.
    """
    apart = one - other
    mean, freedom = float(apart.mean()), even_groups(groups) - 1
    low, high = mean_interval(apart, confidence, groups)
    if np.isnan(low):
        return Difference(mean, -np.inf, np.inf, 1.0)
    error = (high - mean) / student(confidence, freedom)
    p_value = 2 * stats.t.sf(abs(mean) / error, freedom) if error else float(mean == 0)
    return Difference(mean, low, high, float(p_value))


def example_losses(
    task: str, logits: Floats, labels: npt.NDArray[Any], units: Units | None = None
) -> Losses:
    """Return the loss of each example, [n].

    In classification it is the log loss. In multi-label tasks it is the mean log loss of the known
    labels (NaN if no label is known). In regression it is the mean of half the squared errors in
    `units`.

    Args:
        logits: [n, c].
        labels: labels, or targets in the same units as the logits.
        units: units of regression targets; None if logits and targets already have these units.
    """
    if TASKS[task].exclusive:
        given = probabilities(logits)[np.arange(len(logits)), labels]
        log_losses: Losses = -np.log(np.maximum(given, LEAST))
        return log_losses
    answers = logits.astype(np.float64)
    learned = (answers, labels) if units is None else map(units.learned, (answers, labels))
    cells = cell_losses(TASKS[task].losses[0], *learned)
    known = ~np.isnan(cells)
    count = known.sum(axis=1)
    total = np.where(known, cells, 0).sum(axis=1)
    means: Losses = np.divide(total, count, out=np.full(len(cells), np.nan), where=count > 0)
    return means

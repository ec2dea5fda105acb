"""How good answers are, by the task: the measure that the optional stages compare by.

It is accuracy for one label, mean average precision for several, and R² for regression.
"""

from collections.abc import Sequence
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

RESAMPLES = 1000  # behind each interval
LEAST = 1e-15  # probability: the log loss of 0 would be infinite
# One top_k and one bin, for measures that are computed on the way and not reported.
PLAIN = EvaluateParams(top_k=1, calibration_bins=1)


class Score(NamedTuple):
    """The measure, and the ends of its interval."""

    value: float
    low: float
    high: float


def measure(task: str) -> str:
    """The name of the task's measure, as tables have it."""
    return TASKS[task].measure


def words(task: str) -> str:
    """The name of the task's measure, for people."""
    return spelt(measure(task))


def weigh(task: str, logits: Floats, labels: npt.NDArray[Any]) -> Weigh:
    """The measures of answers, for weightings of the examples.

    Args:
        task: of the labels.
        logits: [n, c].
        labels: as `tables.targets.of` gives them.
    """
    answers = activated(task, logits, 1.0)
    return measuring(task).weigh(labels, answers, [0.5] * logits.shape[1], PLAIN)


def value(task: str, logits: Floats, labels: npt.NDArray[Any]) -> float:
    """The measure of answers; the rest is as in `weigh`."""
    return float(whole(weigh(task, logits, labels), len(labels)).overall[measure(task)][0])


def scored(
    task: str,
    logits: Floats,
    labels: npt.NDArray[Any],
    confidence: float,
    groups: Groups | None = None,
) -> Score:
    """The measure of answers with its interval; `groups` [n], the rest is as in `weigh`."""
    if measure(task) == "accuracy":
        return accuracy(logits.argmax(axis=1) == labels, confidence, groups)
    weighing = weigh(task, logits, labels)
    examples, outputs = logits.shape
    resampled = resample(weighing, examples, outputs, RESAMPLES, 0, groups).overall[measure(task)]
    low, high = interval(resampled, expanded(confidence, groups))
    return Score(value(task, logits, labels), float(low), float(high))


def accuracy(
    right: npt.NDArray[np.bool_], confidence: float, groups: Groups | None = None
) -> Score:
    """The accuracy with Wilson's interval; `right` [n] says which answers are correct."""
    return Score(float(right.mean()), *wilson(right, confidence, groups))


@dataclass(frozen=True)
class Difference:
    """By how much one mean loss is above another on the same examples, with its interval.

    `p_value` is that of the null hypothesis that the two are equal.
    """

    mean: float
    low: float
    high: float
    p_value: float


def difference(one: Losses, other: Losses, confidence: float, groups: Groups) -> Difference:
    """How much more one loses than the other, by the paired t-test.

    Args:
        one: [n], the loss of each example.
        other: those of the other on the same examples.
        confidence: of the interval.
        groups: [n], the group of each example. With groups, the variance is that between them; it
            is unknown if there is one group.
    """
    apart = one - other
    mean, freedom = float(apart.mean()), even_groups(groups) - 1
    low, high = mean_interval(apart, confidence, groups)
    if np.isnan(low):
        return Difference(mean, -np.inf, np.inf, 1.0)
    error = (high - mean) / student(confidence, freedom)
    p_value = 2 * stats.t.sf(abs(mean) / error, freedom) if error else float(mean == 0)
    return Difference(mean, low, high, float(p_value))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests with Holm's correction (1979)."""
    order, corrected, least = np.argsort(p_values), np.empty(len(p_values)), 0.0
    for place, test in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[test]))
        corrected[test] = least
    return [float(value) for value in corrected]


def example_losses(
    task: str, logits: Floats, labels: npt.NDArray[Any], units: Units | None = None
) -> Losses:
    """The loss of each example, [n].

    For one label it is the log loss, for several the mean log loss of those that are known (NaN if
    none is), in regression the mean of half the squared errors in `units`.

    Args:
        task: of the labels.
        logits: [n, c].
        labels: as the logits.
        units: of regression targets; None if both are in them.
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

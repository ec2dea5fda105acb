"""Calibrate prediction sets and intervals on out-of-fold predictions.

With n scores, the quantile is the score at rank ceil((n + 1) * coverage). If all predictions came
from the final head, a new example's score would be at most this quantile with at least the nominal
probability. This holds for any head and any data, as long as new examples are exchangeable with
these. But the predictions come from heads that were trained on a part of the examples (`cross_fit`;
cross-conformal prediction, Vovk, 2015), so the coverage is usually a little higher.

Examples of one group are not independent, and a large group must not dominate the others. All
groups therefore have the same weight: the weight of a score is 1 / the size of its group, and the
rank is taken among the groups, ceil((G + 1) * coverage) (Dunn, Wasserman and Ramdas,
"Distribution-free prediction sets for two-layer hierarchical models", 2022; Lee, Barber and
Willett, "Distribution-free inference with hierarchical data", 2023). The coverage then holds for an
example drawn from a new group.

Prediction intervals extend by this quantile of the absolute residuals to either side of the
prediction. They approximate CV+ (Barber, Candès, Ramdas and Tibshirani, "Predictive inference with
the jackknife+", 2021) with the one head in the bundle; CV+ itself would need the heads of all folds
to predict.
"""

import math
from dataclasses import replace

import numpy as np

from ..tasks import TASKS
from .cross_fit import OutOfFold
from .head import probabilities
from .sets import Doubles, LabelSets, PredictionSets, before, sizes, uniform

MISSES = 10  # the least expected number of misses; with fewer the quantile is too noisy
PENALTIES = (0.001, 0.01, 0.1, 0.2, 0.5)  # the values of lambda that the RAPS paper tries
DIGITS = 6  # significant digits of a quantile, which is rounded up


def needed(coverage: float | None, task: str) -> int:
    """Return how many examples, or groups if there are any, sets need; 0 if there are no sets."""
    if coverage is None or TASKS[task].conformal is None:
        return 0
    return math.ceil(round(MISSES / (1 - coverage), 6))


def calibrated(
    coverage: float | None, held: OutOfFold, temperature: float, task: str
) -> PredictionSets | None:
    """Calibrate prediction sets or intervals.

    Sets use the scores by which a head chooses the predicted class (`head.against_thresholds`), so
    they always contain that class.

    Args:
        coverage: the nominal coverage; None for no sets.
        held: the out-of-fold predictions to calibrate on.
        temperature: the temperature of the final head.

    Returns:
        the calibration, with the reason in `why_none` if it is impossible; None if no coverage is
        set.
    """
    if coverage is None:
        return None
    if TASKS[task].conformal is None:
        return PredictionSets(coverage, "examples with several labels have no prediction sets")
    of, found = held.of, len(held.labels) + held.lost
    if held.weights is not None:
        of, found = f"groups of {of}", round(held.weights.sum()) + held.lost
    least = needed(coverage, task)
    if found < least:
        why = f"{max(found, held.whole)} {of} are too few for a coverage of {coverage:g}"
        return PredictionSets(coverage, f"{why}, which needs {least}")
    if TASKS[task].conformal == "intervals":
        residuals = np.abs(held.logits.astype(np.float64) - held.labels)
        reach = tuple(quantile(one, coverage, held.lost, held.weights) for one in residuals.T)
        made = PredictionSets(coverage, reach=reach)
    else:
        labels, randomised = calibrated_sets(held, temperature, coverage)
        if not math.isfinite(max(labels.quantile, randomised)):
            why = f"{held.lost} of {found} {of} are the only ones of their class, which is too many"
            return PredictionSets(coverage, f"{why} for a coverage of {coverage:g}")
        made = PredictionSets(coverage, labels=labels, randomised=randomised)
    if held.weights is None:
        return replace(made, examples=found, folds=held.folds)
    return replace(made, examples=len(held.labels), folds=held.folds, groups=found)


def calibrated_sets(
    held: OutOfFold, temperature: float, coverage: float
) -> tuple[LabelSets, float]:
    """Calibrate RAPS on held-out examples.

    k_reg is the quantile of the labels' ranks, and lambda is the value that makes the sets smallest
    on average. The paper chooses both on separate examples, but here there are few examples.
    Choosing both on the calibration examples costs at most about 0.01 of coverage (with the fewest
    examples that a coverage needs), and the sets vary less between samples (benchmarks/sets.md).

    Returns:
        the calibration of the sets, and the quantile of the paper's randomised sets.
    """
    answers, labels = probabilities(held.logits, temperature), held.labels
    rank, ahead, own = before(answers, labels)

    def at(scores: Doubles) -> float:
        return quantile(scores, coverage, held.lost, held.weights)

    k_reg = int(min(at(rank.astype(np.float64)), answers.shape[1]))
    behind, drawn = np.maximum(rank - k_reg, 0), uniform(held.digests)
    tried = []
    for penalty in PENALTIES:
        scores = ahead + penalty * behind
        sets = LabelSets(at(scores), penalty, k_reg)
        randomised = at(scores + drawn * own)
        size = float(np.average(sizes(answers, sets), weights=held.weights))
        tried.append((size, penalty, sets.quantile, randomised))
    _, penalty, chosen, randomised = min(tried)
    return LabelSets(chosen, penalty, k_reg), randomised


def quantile(
    scores: Doubles, coverage: float, lost: int = 0, weights: Doubles | None = None
) -> float:
    """Return the score at rank ceil((n + 1) * coverage), rounded up; infinite past the last score.

    Args:
        scores: the scores of held-out examples.
        lost: the number of further examples, which n includes; their scores count as infinite.
        weights: the weight of each score, as `of_groups` returns it. With weights, n and `lost` are
            numbers of groups, and the result is the score at which the cumulative weight reaches
            the rank.
    """
    if weights is None:
        rank = math.ceil(round((len(scores) + lost + 1) * coverage, 6))
        if rank > len(scores):
            return math.inf
        value = float(np.partition(scores, rank - 1)[rank - 1])
    else:
        order = np.argsort(scores, kind="stable")
        reached = np.cumsum(weights[order])
        wanted = (round(float(reached[-1])) + lost + 1) * coverage
        place = int(np.searchsorted(reached, wanted - 1e-6))
        if place == len(scores):
            return math.inf
        value = float(scores[order[place]])
    if value <= 0:
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) + 1 - DIGITS)
    return float(f"{math.ceil(value / unit) * unit:.{DIGITS}g}")

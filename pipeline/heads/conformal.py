"""Prediction sets and intervals, calibrated on answers of heads that had not seen the examples.

With n scores, the quantile is the one at rank ceil((n + 1) * coverage). If the answers came from
the head that is kept, a new example's score would be at most that with the nominal probability,
whatever the head and the data are, as long as new examples are exchangeable with these. The answers
come from heads that were trained on a part of its examples (`cross_fit`; cross-conformal
prediction, Vovk, 2015), so the sets hold the truth a little more often.

Examples of one group are not independent, and a group with many must not speak for the others.
So each group weighs one: a score weighs one over the size of its group, and the rank is that among
the groups, ceil((G + 1) * coverage) (Dunn, Wasserman and Ramdas, "Distribution-free prediction sets
for two-layer hierarchical models", 2022; Lee, Barber and Willett, "Distribution-free inference with
hierarchical data", 2023). The coverage is then that of an example drawn from a new group.

Prediction intervals reach to either side by that quantile of the absolute residuals. It is the
centre of CV+ (Barber, Candès, Ramdas and Tibshirani, "Predictive inference with the jackknife+",
2021) with the one head that the bundle has: CV+ itself would need the heads of all folds to answer.
"""

import math
from dataclasses import replace

import numpy as np

from ..tasks import TASKS
from .cross_fit import OutOfFold
from .head import probabilities
from .sets import Doubles, LabelSets, PredictionSets, before, sizes, uniform

MISSES = 10  # to be expected among the examples, or the quantile is a lottery
PENALTIES = (0.001, 0.01, 0.1, 0.2, 0.5)  # lambda: those that the paper of RAPS tries
DIGITS = 6  # of a quantile, which is rounded up


def calibrated(
    coverage: float | None, held: OutOfFold, temperature: float, task: str
) -> PredictionSets | None:
    """Calibrate prediction sets or intervals.

    Sets are made of the strengths by which a head chooses the class that it answers with
    (`head.against_thresholds`), so they always hold that class.

    Args:
        coverage: the nominal one, how often they shall hold the truth; None for no sets.
        held: what they are calibrated on.
        temperature: of the head that is kept.
        task: what is learned.

    Returns:
        None if no coverage is set.
    """
    if coverage is None:
        return None
    if TASKS[task].conformal is None:
        return PredictionSets(coverage, "examples with several labels have no prediction sets")
    of, found = held.of, len(held.labels) + held.lost
    if held.weights is not None:
        of, found = f"groups of {of}", round(held.weights.sum()) + held.lost
    least = math.ceil(round(MISSES / (1 - coverage), 6))
    if found < least:
        why = f"{found} {of} are too few for a coverage of {coverage:g}, which takes {least}"
        return PredictionSets(coverage, why)
    if TASKS[task].conformal == "intervals":
        residuals = np.abs(held.logits.astype(np.float64) - held.labels)
        reach = tuple(quantile(one, coverage, held.lost, held.weights) for one in residuals.T)
        made = PredictionSets(coverage, reach=reach)
    else:
        labels, randomised = calibrated_sets(held, temperature, coverage)
        if not math.isfinite(max(labels.quantile, randomised)):
            why = f"{held.lost} of {found} {of} are alone in their class, too many"
            return PredictionSets(coverage, f"{why} for a coverage of {coverage:g}")
        made = PredictionSets(coverage, labels=labels, randomised=randomised)
    if held.weights is None:
        return replace(made, examples=found, folds=held.folds)
    return replace(made, examples=len(held.labels), folds=held.folds, groups=found)


def calibrated_sets(
    held: OutOfFold, temperature: float, coverage: float
) -> tuple[LabelSets, float]:
    """RAPS, calibrated on examples that were held out; the sets, and the quantile of the paper's.

    k_reg is the quantile of the labels' ranks, and lambda is the one with the smallest sets on
    average. The paper finds both on examples of their own, of which there are few here. From the
    examples that are calibrated on they cost at most about 0.01 of coverage if these are as few
    as a coverage takes, and the sets differ less from draw to draw (benchmarks/sets.md).
    `quantile` is that of the sets that people get, `randomised` that of the paper's.
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
    """The score at rank ceil((n + 1) * coverage), rounded up; infinite if n is too small.

    Args:
        scores: of examples that were held out.
        coverage: the nominal one.
        lost: how many more there are, with infinite scores.
        weights: of each score, as `of_groups` gives them; n and `lost` are numbers of groups then,
            and the score is that at which the weights of it and of all lower ones reach the rank.
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

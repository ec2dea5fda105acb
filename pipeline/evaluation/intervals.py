"""Confidence intervals of measures: Wilson's for proportions, and intervals for grouped examples.

Examples of a group (a patient, a day, a recording) tend to be right or wrong together, so n of them
hold less information than n independent examples. `benchmarks/intervals.md` shows the coverage of
every interval here.
"""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]

# Effective number of groups. With fewer, expanded percentile intervals contained the truth in only
# `FEW_HELD` of the draws of `benchmarks/intervals.md`, and intervals of proportions in
# `PROPORTIONS_HELD`.
ENOUGH = 40
FEW_HELD, PROPORTIONS_HELD = 0.61, 0.91


def grouped(groups: Groups) -> Groups | None:
    """Return the groups [n] unchanged; None if each example is its own group."""
    return groups if len(np.unique(groups)) < len(groups) else None


def even_groups(groups: Groups) -> float:
    """Return the effective number of groups, n² / Σ size² (Kish, 1965)."""
    sizes = np.unique(groups, return_counts=True)[1]
    return float(sizes.sum() ** 2 / np.square(sizes).sum())


def wilson(
    right: npt.NDArray[np.bool_], confidence: float, groups: Groups | None = None
) -> tuple[float, float]:
    """Return Wilson's interval (1927) of the fraction of examples that are right.

    With groups, n is the effective number of examples: the number for which the binomial variance
    of the fraction equals the variance between groups, by the linearised ratio estimator. The
    quantile is Student's, with the effective number of groups less 1 as the degrees of freedom
    (Korn and Graubard, 1998; Dean and Pagano, 2015, compare such intervals). If there are few
    groups and nearly all examples are right, the estimate of the variance is too small. Half the
    square of one more group is therefore added to the variance. This group has the mean size, and
    half of its examples are right. Without it, 95 % intervals contain the truth in as few as 87 %
    of draws; with it, in 91 % or more.

    Args:
        right: [n], whether each example is right.
        groups: [n], the group of each example; None if each is its own group.
    """
    examples, fraction = len(right), float(right.mean())
    if groups is None or grouped(groups) is None:
        effective, reach = float(examples), NormalDist().inv_cdf((1 + confidence) / 2)
    else:
        even = even_groups(groups)
        if even <= 1:
            return 0.0, 1.0  # one group does not show how groups differ
        effective, reach = _effective(right, groups, even), student(confidence, even - 1)
    low, high = _ends(np.array([fraction]), np.array([effective]), reach)
    return float(low[0]), float(high[0])


def all_alike(
    fractions: Array,
    examples: npt.NDArray[np.int64],
    confidence: float,
    groups: Groups | None = None,
) -> tuple[Array, Array]:
    """Return the low and high ends of intervals for metrics [c] that are 0 or 1 on all resamples.

    The bootstrap intervals of such metrics have no width. The ends are those of Wilson's interval
    for the same number of examples, all right or all wrong.

    Args:
        fractions: [c], 0 or 1.
        examples: [c], how many examples each metric is measured on; 0 counts as 1.
        groups: [n], the group of each test example; None if each is its own group.
    """
    reach, part = NormalDist().inv_cdf((1 + confidence) / 2), 1.0
    if groups is not None:
        even = even_groups(groups)
        if even <= 1:
            return np.zeros(len(fractions)), np.ones(len(fractions))
        reach, part = student(confidence, even - 1), even / len(groups)
    return _ends(fractions, np.maximum(1, part * examples), reach)


def _ends(fractions: Array, effective: Array, reach: float) -> tuple[Array, Array]:
    """Return Wilson's interval of `fractions` [c] of `effective` [c] examples at a quantile."""
    square = reach**2 / effective
    middle = (fractions + square / 2) / (1 + square)
    half = np.sqrt(square * (fractions * (1 - fractions) + square / 4)) / (1 + square)
    return np.maximum(0, middle - half), np.minimum(1, middle + half)


def _effective(right: npt.NDArray[np.bool_], groups: Groups, even: float) -> float:
    """Return the effective number of examples, or of groups if all or none are right."""
    examples, fraction = len(right), float(right.mean())
    if fraction in (0, 1):
        return even
    _, codes = np.unique(groups, return_inverse=True)
    count = int(codes.max()) + 1
    apart = np.bincount(codes, right - fraction)
    squares = count / (count - 1) * float(np.square(apart).sum())
    squares += (examples / count * (0.5 - fraction)) ** 2 / 2
    return min(examples, fraction * (1 - fraction) * examples**2 / squares)


def mean_interval(
    values: Array, confidence: float, groups: Groups | None = None
) -> tuple[float, float]:
    """Return Student's interval (1908) of a mean; NaN for a single example or group.

    With groups, the variance between groups is used, by the linearised ratio estimator.

    Args:
        values: [n].
        groups: [n], the group of each example; None if each is its own group.
    """
    codes = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count, even = int(codes.max()) + 1, even_groups(codes)
    if count < 2:
        return math.nan, math.nan
    mean = float(values.mean())
    squares = count / (count - 1) * float(np.square(np.bincount(codes, values - mean)).sum())
    half = student(confidence, even - 1) * math.sqrt(squares) / len(values)
    return mean - half, mean + half


def difference_interval(
    gains: Array, confidence: float, groups: Groups | None = None
) -> tuple[float, float]:
    """Return the interval of the difference of two accuracies on the same examples.

    It is Student's interval with one win and one loss added (Bonett and Price, 2012): without them
    it has no width if all predictions agree. With groups, two groups of the mean size are added:
    the first model wins half the examples of one group, and loses half of the other.

    Args:
        gains: [n], 1 if only the first model is right, -1 if only the second is, else 0.
        groups: [n], the group of each example, from 0; None if each is its own group.
    """
    groups = np.arange(len(gains)) if groups is None else groups
    count = int(groups.max()) + 1
    if count < 2:
        return -1.0, 1.0  # one group does not show how groups differ
    size = round(len(gains) / count)
    won = np.full(size, 0.5 if size > 1 else 1.0)
    codes = np.concatenate([groups, np.full(size, count), np.full(size, count + 1)])
    low, high = mean_interval(np.concatenate([gains, won, -won]), confidence, codes)
    return max(-1.0, low), min(1.0, high)


def expanded(confidence: float, groups: Groups | None) -> float:
    """Return the confidence level for percentile intervals of resampled groups.

    Percentile intervals are too narrow by the square root of (G - 1) / G, and by the ratio of the
    normal quantile to Student's. Percentiles further out have the right width (Hesterberg, 2015,
    "What teachers should know about the bootstrap"). G is the effective number of groups.
    """
    if groups is None or (even := even_groups(groups)) <= 1:
        return confidence
    reach = math.sqrt(even / (even - 1)) * student(confidence, even - 1)
    return 2 * NormalDist().cdf(reach) - 1


def student(confidence: float, freedom: float) -> float:
    """Return the quantile of Student's t for a two-sided interval."""
    from scipy.special import stdtrit  # slow to import, and rarely needed

    return float(stdtrit(freedom, (1 + confidence) / 2))


def doubts(groups: Groups | None) -> list[str]:
    """Return warnings for readers of metrics on few or uneven groups, one sentence each.

    The fractions are from the simulations in `benchmarks/intervals.md`.
    """
    if groups is None:
        return []
    count, even = len(np.unique(groups)), even_groups(groups)
    if count == 1:
        return [
            "all test examples belong to one group, which does not show how groups differ, so there"
            " is no interval; put more groups into the test split"
        ]
    if not too_few(count, even):
        return []
    as_even = f" (as informative as {even:.0f} of equal size)" if even < 0.9 * count else ""
    proportions, others = f"{100 * PROPORTIONS_HELD:.0f} %", f"{100 * FEW_HELD:.0f} %"
    return [
        f"the intervals are computed from only {count} groups{as_even}, so they may be too narrow:"
        " in simulations with few or uneven groups, 95 % intervals contained the true value in as"
        f" few as {others} of draws ({proportions} for accuracy and other proportions)"
    ]


def too_few(groups: int, even: float) -> bool:
    """Return whether intervals have too low a coverage, according to the simulations."""
    return even < max(ENOUGH, groups / 2)

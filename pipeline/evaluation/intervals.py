"""Intervals of measures: Wilson's of proportions, and of examples that come in groups.

Examples of a group (a patient, a day, a recording) are right or wrong together, so n of them hold
less information than n single ones. `benchmarks/intervals.md` has the coverage of every interval
here.
"""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]

# Even groups. With fewer, expanded percentiles covered the truth in only `FEW_HELD` of the draws
# of `benchmarks/intervals.md`, and intervals of proportions in `PROPORTIONS_HELD`.
ENOUGH = 40
FEW_HELD, PROPORTIONS_HELD = 0.61, 0.91


def grouped(groups: Groups) -> Groups | None:
    """The groups [n] as they are; None if each example is its own group."""
    return groups if len(np.unique(groups)) < len(groups) else None


def even_groups(groups: Groups) -> float:
    """The effective number of groups, n² / Σ size² (Kish, 1965)."""
    sizes = np.unique(groups, return_counts=True)[1]
    return float(sizes.sum() ** 2 / np.square(sizes).sum())


def wilson(
    right: npt.NDArray[np.bool_], confidence: float, groups: Groups | None = None
) -> tuple[float, float]:
    """Wilson's interval (1927) of the fraction of examples that are right.

    With groups, n is the effective number of examples: that for which the binomial variance of the
    fraction is the variance between groups, by the linearised ratio estimator. The quantile is
    Student's, with the degrees of freedom of as many even groups (Korn and Graubard, 1998; Dean and
    Pagano, 2015, compare such intervals). Few groups that are all right, or nearly, seem to vary
    less than they do. So half the square of one more group is added to the variance: of mean size,
    and right in half of its examples. Without it, 95 % intervals hold the truth in down to 87 % of
    draws, with it in 91 % or more.

    Args:
        right: [n].
        confidence: of the interval.
        groups: [n], the group of each example; None if each is its own group.
    """
    examples, fraction = len(right), float(right.mean())
    if groups is None or grouped(groups) is None:
        effective, reach = float(examples), NormalDist().inv_cdf((1 + confidence) / 2)
    else:
        even = even_groups(groups)
        if even <= 1:
            return 0.0, 1.0  # nothing is known of how groups differ
        effective, reach = _effective(right, groups, even), student(confidence, even - 1)
    low, high = _ends(np.array([fraction]), np.array([effective]), reach)
    return float(low[0]), float(high[0])


def all_alike(
    fractions: Array,
    examples: npt.NDArray[np.int64],
    confidence: float,
    groups: Groups | None = None,
) -> tuple[Array, Array]:
    """Low and high ends of measures [c] that are 0 or 1 on all resamples, which have no width then.

    They are Wilson's, of as many examples that are all right or all wrong.

    Args:
        fractions: [c], 0 or 1.
        examples: [c], that each is measured on; at least one is taken.
        confidence: of the intervals.
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
    """Wilson's interval of `fractions` [c] of `effective` [c] examples, at the quantile `reach`."""
    square = reach**2 / effective
    middle = (fractions + square / 2) / (1 + square)
    half = np.sqrt(square * (fractions * (1 - fractions) + square / 4)) / (1 + square)
    return np.maximum(0, middle - half), np.minimum(1, middle + half)


def _effective(right: npt.NDArray[np.bool_], groups: Groups, even: float) -> float:
    """Effective number of examples; if all or none are right, each even group is one."""
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
    """Student's interval (1908) of a mean; NaN of a single example or group.

    With groups, the variance is that between them, by the linearised ratio estimator.

    Args:
        values: [n].
        confidence: of the interval.
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


def expanded(confidence: float, groups: Groups | None) -> float:
    """The confidence at which percentiles of resampled groups are taken.

    Percentiles are too narrow by the root of (G - 1) / G and by the quantile of Student over that
    of the normal distribution; further out they are as wide as they should be (Hesterberg, 2015,
    "What teachers should know about the bootstrap"). G is the number of even groups.
    """
    if groups is None or (even := even_groups(groups)) <= 1:
        return confidence
    reach = math.sqrt(even / (even - 1)) * student(confidence, even - 1)
    return 2 * NormalDist().cdf(reach) - 1


def student(confidence: float, freedom: float) -> float:
    """Quantile of Student's t for a two-sided interval."""
    from scipy.special import stdtrit  # slow to import, and few have groups

    return float(stdtrit(freedom, (1 + confidence) / 2))


def doubts(groups: Groups | None) -> list[str]:
    """Warnings for readers of metrics on few or uneven groups, one sentence each.

    The fractions are of draws in `benchmarks/intervals.md`.
    """
    if groups is None:
        return []
    count, even = len(np.unique(groups)), even_groups(groups)
    if count == 1:
        return [
            "all test examples are of one group, so it is not known how groups differ and no"
            " interval can be given; put more groups into the test split"
        ]
    if not too_few(count, even):
        return []
    as_even = f", which weigh as {even:.0f} of equal size" if even < 0.9 * count else ""
    proportions, others = f"{100 * PROPORTIONS_HELD:.0f} %", f"{100 * FEW_HELD:.0f} %"
    return [
        f"the intervals rest on {count} groups{as_even}; with so few, the 95 % intervals of"
        f" accuracy and other proportions held the truth in {proportions} of simulated draws or"
        f" more, but those of other measures in as little as {others}"
    ]


def too_few(groups: int, even: float) -> bool:
    """Whether intervals hold the truth less often than they should, as the draws have it."""
    return even < max(ENOUGH, groups / 2)

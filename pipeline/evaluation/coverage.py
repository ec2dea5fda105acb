"""Coverage of prediction sets and prediction intervals on the test examples."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..heads.head import against_thresholds
from ..heads.sets import (
    Doubles,
    LabelSets,
    PredictionSets,
    before,
    of_groups,
    sizes,
    uniform,
)
from ..tables.features import Split
from .intervals import Groups
from .tables import OF_SETS

MANY = 5  # targets that one line lists
SURE = 0.01  # significance level of the test for too low a coverage on the test examples
LEAST_GROUPS = 6  # of test examples; with fewer, the coverage is not tested


def table(
    sets: PredictionSets | None,
    answers: npt.NDArray[np.floating],
    test: Split,
    names: Sequence[str],
    thresholds: Sequence[float] = (),
    groups: Groups | None = None,
) -> pd.DataFrame:
    """Return the coverage on the test examples: rows for all and each class, or for each target.

    `coverage` is the fraction of sets or intervals that contain the truth. `size` is the mean
    number of labels in a set, or the width of an interval. `empty` is the fraction of randomised
    sets without a label. Each group has weight one in these means.

    Args:
        sets: the head's prediction sets; if None, the table has no rows.
        answers: [n, c], the head's predictions for the test examples.
        test: the n test examples.
        thresholds: thresholds of classes that were weighted in training.
        groups: [n], as `intervals.grouped` returns them.
    """
    if sets is not None and sets.reach:
        held = np.abs(answers - test.labels) <= sets.reach
        fractions = zip(names, _means(held, groups), sets.reach, strict=True)
        rows = [(name, len(held), fraction, 2 * wide) for name, fraction, wide in fractions]
        return pd.DataFrame(rows, columns=OF_SETS[:4]).reindex(columns=OF_SETS)
    if sets is None or sets.labels is None or not len(test.labels):
        return pd.DataFrame(columns=OF_SETS)
    answers = against_thresholds(answers, thresholds)
    rank, _, _ = before(answers, test.labels)
    randomised = LabelSets(sets.randomised, sets.labels.penalty, sets.labels.k_reg)
    size = sizes(answers, sets.labels)
    drawn = sizes(answers, randomised, uniform(test.digests))
    of_each = np.column_stack([rank <= size, size, rank <= drawn, drawn, drawn == 0])
    rows = [("all", len(rank), *_means(of_each, groups))]
    for number, name in enumerate(names):
        own = np.flatnonzero(test.labels == number)
        figures: Any = [None] * of_each.shape[1]
        if len(own):
            figures = _means(of_each[own], None if groups is None else groups[own])
        rows.append((name, len(own), *figures))
    return pd.DataFrame(rows, columns=OF_SETS)


def _means(figures: npt.NDArray[Any], groups: Groups | None) -> Doubles:
    """Return the means of rows [n, k], in which each group has weight one."""
    weights = None if groups is None else of_groups(groups)
    means: Doubles = np.average(figures, axis=0, weights=weights)
    return means


def summary(sets: PredictionSets | None, found: pd.DataFrame, groups: Groups | None = None) -> str:
    """Return one line with the nominal coverage and that in `found`, the result of `table`.

    It has the reason if there are no sets, and is empty if no coverage was set.
    """
    among = "" if groups is None else f" ({len(np.unique(groups))} groups, each with weight one)"
    if sets is None:
        return ""
    if sets.why_none:
        return f"no prediction sets: {sets.why_none}"
    if found.empty:
        return ""
    if sets.reach:
        rows = zip(*(found[name] for name in ("coverage", "class", "size")), strict=True)
        lines = [f"{fraction:.4f} of {name}, {wide:.4g} wide" for fraction, name, wide in rows]
        shown = ", ".join(lines[:MANY]) + ", …" * (len(lines) > MANY)
        return f"prediction intervals for coverage {sets.coverage:g} contain {shown}{among}"
    every = found.iloc[0]
    return (
        f"prediction sets with a nominal coverage of {sets.coverage:g} contain the right class of"
        f" {every['coverage']:.4f} of the test examples{among}; they have {every['size']:.2f}"
        " classes on average"
    )


def doubts(
    sets: PredictionSets | None,
    answers: npt.NDArray[np.floating],
    test: Split,
    names: Sequence[str],
    thresholds: Sequence[float] = (),
    groups: Groups | None = None,
) -> list[str]:
    """Return warnings if the coverage on the test examples is too low to be chance, or untested.

    The nominal coverage holds for examples from the distribution of the calibration examples. Test
    examples from a different distribution may be covered less often. If there are several targets,
    each is tested, with Bonferroni's correction. The test allows for chance both in the test
    examples and in the calibration. The arguments are as in `table`.
    """
    held = _held(sets, answers, test, thresholds)
    if sets is None or held is None or not len(held):
        return []
    if groups is not None and (found := len(np.unique(groups))) < LEAST_GROUPS:
        return [f"the coverage of the prediction sets is not tested: too few groups ({found})"]
    lines = []
    for name, column in zip(names, held.T, strict=False):  # classes are tested together, once
        fraction = float(_means(column, groups))
        chance = _chance(sets, column, groups)
        if chance < SURE / held.shape[1]:
            of = f"of {name} " if sets.reach else ""
            lines.append(
                f"the coverage {of}on the test examples is too low ({fraction:.4f} instead of"
                f" {sets.coverage:g}; p = {chance:.2g}): they are unlike the training and"
                " validation examples that the sets were calibrated on"
            )
    return lines


def _held(
    sets: PredictionSets | None,
    answers: npt.NDArray[np.floating],
    test: Split,
    thresholds: Sequence[float],
) -> npt.NDArray[np.bool_] | None:
    """Return whether each set contains the class, [n, 1], or each interval its target, [n, t]."""
    if sets is not None and sets.reach:
        inside: npt.NDArray[np.bool_] = np.abs(answers - test.labels) <= sets.reach
        return inside
    if sets is None or sets.labels is None:
        return None
    answers = against_thresholds(answers, thresholds)
    rank, _, _ = before(answers, test.labels)
    return (rank <= sizes(answers, sets.labels))[:, None]


def _chance(sets: PredictionSets, held: npt.NDArray[np.bool_], groups: Groups | None) -> float:
    """Return the probability that the coverage of the test examples [n] is this low by chance.

    If a quantile is at rank k of n scores, its coverage over all examples has the beta distribution
    with parameters k and n + 1 - k. The number of m test examples that it covers therefore has a
    beta-binomial distribution (Vovk, "Conditional validity of inductive conformal predictors",
    2012). If the scores came in groups, n is the number of these groups. With groups of test
    examples, the p-value is that of a t-test of the groups' coverages. The test assumes that the
    coverages of the calibration groups have the same variance.
    """
    coverage = sets.coverage
    rests = sets.examples if sets.groups is None else sets.groups
    if groups is not None:
        from scipy.special import stdtr  # slow to import, and rarely needed

        _, which = np.unique(groups, return_inverse=True)
        fractions = np.bincount(which, held) / np.bincount(which)
        error = float(fractions.std(ddof=1)) * math.sqrt(1 / len(fractions) + 1 / rests)
        below = float(fractions.mean()) - coverage
        if error == 0:
            return 1.0 if below >= 0 else 0.0
        return float(stdtr(len(fractions) - 1, below / error))
    many, count = len(held), np.arange(int(held.sum()) + 1)
    rank = math.ceil(round((rests + 1) * coverage, 6))
    over = rests + 1 - rank
    # The logarithms of the factorials of all numbers that occur.
    of = np.append(0.0, np.cumsum(np.log(np.arange(1, many + rests + 1))))
    ways = of[many] - of[count] - of[many - count]
    both = of[count + rank - 1] + of[many - count + over - 1] - of[many + rests]
    logs = ways + both - (of[rank - 1] + of[over - 1] - of[rests])
    return min(1.0, float(np.exp(logs).sum()))

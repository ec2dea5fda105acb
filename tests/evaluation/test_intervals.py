"""Intervals of proportions and of groups, beside SciPy's, by hand, and as the page has them."""

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation import intervals
from tests.conftest import ROOT


@pytest.mark.parametrize(("right", "examples"), [(24, 24), (0, 5), (17, 40)])
def test_without_groups_it_is_wilsons(right, examples):
    got = intervals.wilson(np.arange(examples) < right, 0.9, np.arange(examples))
    wanted = stats.binomtest(right, examples).proportion_ci(0.9, method="wilson")
    assert got == pytest.approx((wanted.low, wanted.high))


def test_copies_of_an_answer_add_nothing():
    right = np.random.default_rng(0).random(50) < 0.8
    single = np.ptp(intervals.wilson(right, 0.95))
    copied = np.ptp(intervals.wilson(np.repeat(right, 10), 0.95, np.repeat(np.arange(50), 10)))
    assert single < copied < 1.1 * single
    assert copied > 2.5 * np.ptp(intervals.wilson(np.repeat(right, 10), 0.95))


def test_the_effective_number_by_hand():
    """Three groups of 4, 2 and 2, of which 4, none and 1 are right."""
    right = np.array([1, 1, 1, 1, 0, 0, 1, 0], bool)
    groups = np.array([7, 7, 7, 7, 0, 0, 3, 3])
    squares = 3 / 2 * ((4 - 2.5) ** 2 + (0 - 1.25) ** 2 + (1 - 1.25) ** 2)
    squares += (8 / 3 * (5 / 8 - 1 / 2)) ** 2 / 2  # half the square of one more group
    share, effective = 5 / 8, 5 / 8 * 3 / 8 * 64 / squares
    t = stats.t.ppf(0.975, 64 / 24 - 1)
    square = t**2 / effective
    low, high = intervals.wilson(right, 0.95, groups)
    assert (low + high) / 2 == pytest.approx((share + square / 2) / (1 + square))
    assert intervals.even_groups(groups) == pytest.approx(64 / 24)


def test_of_one_group_nothing_is_known():
    one = np.zeros(40, np.int64)
    assert intervals.wilson(np.ones(40, bool), 0.95, one) == (0, 1)
    assert "all test examples belong to one group" in intervals.doubts(one)[0]
    assert np.isnan(intervals.mean_interval(np.ones(40), 0.95, one)).all()
    assert intervals.difference_interval(np.ones(40), 0.95, one) == (-1, 1)


def test_few_and_very_uneven_groups_are_warned_of_and_enough_even_ones_are_not():
    groups = np.repeat(np.arange(40), 10)
    assert intervals.doubts(groups) == intervals.doubts(None) == []
    (few,) = intervals.doubts(groups[:150])
    assert few.startswith(
        "the intervals are computed from only 15 groups, so they may be too narrow"
    )
    uneven = np.repeat(np.arange(120), [900] + [10] * 119)
    assert "120 groups (as informative as 5 of equal size)" in intervals.doubts(uneven)[0]


def test_a_mean_of_groups_is_that_of_their_means():
    values = np.random.default_rng(1).normal(size=12)
    got = intervals.mean_interval(np.repeat(values, 5), 0.9, np.repeat(np.arange(12), 5))
    wanted = stats.t.interval(0.9, 11, values.mean(), stats.sem(values))
    assert got == pytest.approx(wanted)


def test_percentiles_of_few_groups_are_taken_further_out():
    assert intervals.expanded(0.95, None) == 0.95
    wide, wider = (intervals.expanded(0.95, np.arange(count)) for count in (40, 8))
    assert 0.95 < wide < wider < 1
    reach = np.sqrt(8 / 7) * stats.t.ppf(0.975, 7)
    assert wider == pytest.approx(2 * stats.norm.cdf(reach) - 1)


def held(truth, ends):
    return float(np.mean([low <= truth <= high for low, high in ends]))


def test_intervals_hold_the_truth_of_grouped_answers():
    random, groups = np.random.default_rng(0), np.repeat(np.arange(15), 10)
    right = random.binomial(10, random.beta(2 * 0.7, 2 * 0.3, (200, 15)))  # correlation 1/3
    answers = np.tile(np.arange(10), 15) < np.repeat(right, 10, axis=1)
    assert held(0.7, [intervals.wilson(one, 0.95) for one in answers]) < 0.8
    assert held(0.7, [intervals.wilson(one, 0.95, groups) for one in answers]) > 0.9


def test_intervals_hold_the_true_difference_of_two_heads():
    """One of two heads alone is right about 0.1 and 0.02 of the examples."""
    random, groups = np.random.default_rng(0), np.repeat(np.arange(15), 10)
    chances = random.dirichlet([0.2, 0.04, 1.76], (200, 15))
    counts = random.multinomial(10, chances).reshape(200, -1)
    gains = [np.repeat(np.tile([1.0, -1.0, 0.0], 15), count) for count in counts]
    student, added = (
        held(0.08, [interval(one, 0.95, groups) for one in gains])
        for interval in (intervals.mean_interval, intervals.difference_interval)
    )
    assert student < 0.94 < added


def test_two_heads_with_the_same_answers_may_differ_on_others():
    low, high = intervals.difference_interval(np.zeros(98), 0.95)
    assert -low == high == pytest.approx(0.028, abs=0.001)  # Bonett and Price: 1.96 √2 / 100


def test_what_is_warned_of_is_what_the_page_has():
    lines = (ROOT / "benchmarks" / "intervals.md").read_text().splitlines()
    few = next(line for line in lines if line.startswith("| it warns |"))
    of_proportions, of_others = (float(cell) for cell in few.strip("| ").split(" | ")[1:])
    assert of_proportions == pytest.approx(intervals.PROPORTIONS_HELD, abs=0.01)
    assert of_others == pytest.approx(intervals.FEW_HELD, abs=0.01)
    # What the intervals have to hold with even groups.
    rows = [line.strip("| ").split(" | ") for line in lines if "| ten each |" in line]
    held = {(accuracy, int(groups)): float(row[-2]) for groups, _, accuracy, *row in rows}
    assert min(held["0.7", groups] for groups in (15, 40, 100)) >= 0.92
    assert min(held["0.9", groups] for groups in (40, 100)) >= 0.92

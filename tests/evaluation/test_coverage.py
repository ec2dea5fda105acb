"""Whether test examples show that prediction sets do not hold the truth as often as asked."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation.coverage import doubts
from pipeline.heads.sets import PredictionSets
from pipeline.tables.features import Split


@pytest.mark.parametrize("grouped", [False, True])
def test_a_low_coverage_is_doubted_and_one_that_is_kept_rarely(grouped):
    """Each example of a group of ten is held, or none: they are as good as one."""
    random, alarms = np.random.default_rng(0), 0
    sets = PredictionSets(0.9, reach=(1.0,), examples=500, groups=500 if grouped else None)
    names = np.array([f"{number:064x}" for number in range(1000)])
    features = np.zeros((1000, 1), np.float32)

    def doubted(share):
        count = 100 if grouped else 1000
        held = np.repeat(random.random(count) < share, 1000 // count)
        labels = np.where(held, 0.0, 2.0)[:, None]
        test = Split(names, names, np.zeros(1000, np.int32), labels, features)
        groups = np.arange(1000) // 10 if grouped else None
        return doubts(sets, np.zeros((1000, 1)), test, ["n"], groups=groups)

    for _ in range(200):
        # What a quantile of 500 scores at rank 451 holds of all examples.
        alarms += len(doubted(random.beta(451, 50)))
    assert alarms <= 8
    assert "the coverage of n on the test examples is too low" in doubted(0.7)[0]


def test_few_groups_are_not_tested():
    sets = PredictionSets(0.9, reach=(1.0,), examples=500, groups=200)
    names = np.array([f"{number:064x}" for number in range(50)])
    test = Split(names, names, np.zeros(50, int), np.full((50, 1), 9.0), np.zeros((50, 1)))
    groups = np.arange(50) // 10
    (line,) = doubts(sets, np.zeros((50, 1)), test, ["n"], groups=groups)
    assert "not tested: too few groups (5)" in line


def test_groups_of_the_calibration_count_though_no_test_examples_share_one():
    names = np.array([f"{number:064x}" for number in range(1000)])
    labels = np.where(np.arange(1000) < 860, 0.0, 2.0)[:, None]
    test = Split(names, names, np.zeros(1000, np.int32), labels, np.zeros((1000, 1), np.float32))
    sets = PredictionSets(0.9, reach=(1.0,), examples=1000)
    assert doubts(sets, np.zeros((1000, 1)), test, ["n"])
    assert not doubts(replace(sets, groups=100), np.zeros((1000, 1)), test, ["n"])

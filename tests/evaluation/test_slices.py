"""Figures by slice, their order, and the correction for their number."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.evaluation import regrouped
from pipeline.evaluation.slices import COLUMNS, holm, slice_errors, slice_table, worst


def test_the_worst_slice_comes_first_with_a_corrected_p_value():
    camera = ["A"] * 60 + ["B"] * 30 + ["C"] * 30
    slices = pd.DataFrame({"camera": camera, "site": ["x", ""] * 60})
    correct = np.array([True] * 58 + [False] * 2 + [True] * 18 + [False] * 12 + [True] * 30)
    table = slice_table(slices, correct, 0.95)
    assert table.columns.tolist() == COLUMNS
    first = table.iloc[0]
    assert (first["column"], first["value"], first["examples"]) == ("camera", "B", 30)
    assert first["accuracy"] == pytest.approx(0.6)
    assert first["other_accuracy"] == pytest.approx(88 / 90)
    wilson = stats.binomtest(18, 30).proportion_ci(0.95, method="wilson")
    assert (first["low"], first["high"]) == pytest.approx((wilson.low, wilson.high))
    p_value = stats.fisher_exact([[18, 12], [88, 2]]).pvalue
    assert first["p_value"] == pytest.approx(p_value)
    # Three cameras, and one comparison of the two sites.
    assert first["corrected_p_value"] == pytest.approx(4 * p_value)
    assert set(table["value"]) == {"A", "B", "C", "x", "(empty)"}
    of_site = table[table["column"] == "site"]["corrected_p_value"]
    assert of_site.nunique() == 1
    assert worst(table).startswith("The worst slice is camera = B: accuracy 0.6000 on 30 test")
    assert "chance" not in worst(table)


def test_what_may_be_chance_is_called_so():
    slices = pd.DataFrame({"camera": ["A"] * 20 + ["B"]})
    found = slice_table(slices, np.array([True] * 20 + [False]), 0.95)
    assert worst(found).endswith("corrected for the number of slices).")  # p = 1/21
    found = slice_table(slices, np.array([False] + [True] * 19 + [False]), 0.95)
    assert worst(found).endswith("That may be chance.")
    assert worst(slice_table(slices, np.ones(21, bool), 0.95)) == "No slice is worse than the rest."


def test_a_column_of_one_value_has_nothing_to_be_compared_with():
    table = slice_table(pd.DataFrame({"site": ["x"] * 5}), np.ones(5, bool), 0.95)
    assert table["accuracy"].tolist() == [1.0]
    assert table["low"].iloc[0] < 0.7  # five right are no proof
    assert table[["other_accuracy", "p_value", "corrected_p_value"]].isna().all(axis=None)
    assert worst(table) == ""
    none = slice_table(pd.DataFrame(index=range(5)), np.ones(5, bool), 0.95)
    assert (len(none), none.columns.tolist(), worst(none)) == (0, COLUMNS, "")


def test_holm_steps_down():
    corrected = holm(np.array([0.04, 0.01, 0.03, 0.9]))
    assert corrected == pytest.approx([0.09, 0.04, 0.09, 0.9])
    # Hardly ever one of many equal slices is called worse.
    generator = np.random.default_rng(0)
    called = 0
    for _ in range(20):
        slices = pd.DataFrame({"day": generator.integers(20, size=400).astype(str)})
        table = slice_table(slices, generator.random(400) < 0.8, 0.95)
        called += (table["corrected_p_value"] <= 0.05).any()
    assert called <= 2


def test_a_slice_of_one_patient_is_not_tested_and_one_of_many_is():
    patients = np.repeat(np.arange(20), 10)
    generator = np.random.default_rng(0)
    of_patient = np.where(np.arange(20) == 3, 0.1, generator.uniform(0.7, 1, 20))
    correct = generator.random(200) < of_patient[patients]
    slices = pd.DataFrame({"patient": patients.astype(str)})
    assert slice_table(slices, correct, 0.95)["corrected_p_value"].min() < 0.001  # by example
    table = slice_table(slices, correct, 0.95, groups=patients)
    assert table["value"].iloc[0] == "3"
    assert table["p_value"].notna().all()  # 1 of 20 ways is just the level
    assert table["corrected_p_value"].min() > 0.05
    few = slice_table(slices[:150], correct[:150], 0.95, groups=patients[:150])
    assert few["p_value"].isna().all()
    assert few["other_accuracy"].notna().all()
    assert worst(few) == "15 slices were not tested: too few groups."
    assert (few["low"].iloc[0], few["high"].iloc[0]) == (0, 1)  # nothing is known of others like it

    old = np.where(patients < 10, "old", "new")
    worse = correct & (generator.random(200) < np.where(patients < 10, 0.4, 1))
    found = slice_table(pd.DataFrame({"device": old}), worse, 0.95, groups=patients)
    assert worst(found).startswith("The worst slice is device = old")
    assert found["corrected_p_value"].max() < 0.01


def test_equal_slices_of_groups_are_rarely_called_different():
    generator = np.random.default_rng(0)
    by_example = by_group = 0
    for _ in range(60):
        groups = np.repeat(np.arange(16), generator.integers(4, 16, 16))
        correct = generator.random(len(groups)) < generator.beta(1.6, 0.4, 16)[groups]
        # Some groups lie on one side, others on both.
        inside = np.where(groups < 8, groups < 4, generator.random(len(groups)) < 0.4)
        slices = pd.DataFrame({"camera": np.where(inside, "A", "B")})
        by_example += slice_table(slices, correct, 0.95)["p_value"].iloc[0] <= 0.05
        by_group += slice_table(slices, correct, 0.95, groups=groups)["p_value"].iloc[0] <= 0.05
    assert by_group <= 6 < by_example


def test_errors_of_groups():
    groups = np.repeat(np.arange(12), 5)
    errors = np.random.default_rng(2).exponential(size=12)[groups] + np.where(groups < 6, 5, 0)
    slices = pd.DataFrame({"site": np.where(groups < 6, "x", "y")})
    table = slice_errors(slices, errors, 0.95, groups)
    assert table["value"].tolist() == ["x", "y"]
    ways = 924  # of 12 groups, 6 and 6; two of them are as far apart
    assert table["p_value"].iloc[0] == pytest.approx(2 / ways, abs=0.002)
    x = errors[groups < 6][::5]
    assert table["high"].iloc[0] == pytest.approx(
        stats.t.interval(0.95, 5, x.mean(), stats.sem(x))[1]
    )


def test_sides_within_groups_are_swapped():
    groups, inside = np.repeat(np.arange(8), 4), np.tile([True, False], 16)
    figures = np.where(inside, 0.0, 1.0) + np.repeat(np.random.default_rng(0).random(8) * 9, 4)
    assert regrouped.p_value(figures, inside, groups) == pytest.approx(2 / 2**8, abs=0.003)
    assert np.isnan(regrouped.p_value(figures[:20], inside[:20], groups[:20]))  # five groups

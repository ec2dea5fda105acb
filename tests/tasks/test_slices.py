"""Figures by slice, their order, and the correction for their number."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.tasks.slices import COLUMNS, holm, slice_table, worst


def test_the_worst_slice_comes_first_with_a_corrected_p_value() -> None:
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


def test_what_may_be_chance_is_called_so() -> None:
    slices = pd.DataFrame({"camera": ["A"] * 20 + ["B"]})
    found = slice_table(slices, np.array([True] * 20 + [False]), 0.95)
    assert worst(found).endswith("corrected for the number of slices).")  # p = 1/21
    found = slice_table(slices, np.array([False] + [True] * 19 + [False]), 0.95)
    assert worst(found).endswith("That may be chance.")
    assert worst(slice_table(slices, np.ones(21, bool), 0.95)) == "No slice is below the rest."


def test_a_column_of_one_value_has_nothing_to_be_compared_with() -> None:
    table = slice_table(pd.DataFrame({"site": ["x"] * 5}), np.ones(5, bool), 0.95)
    assert table["accuracy"].tolist() == [1.0]
    assert table["low"].iloc[0] < 0.7  # five right are no proof
    assert table[["other_accuracy", "p_value", "corrected_p_value"]].isna().all(axis=None)
    assert worst(table) == ""
    none = slice_table(pd.DataFrame(index=range(5)), np.ones(5, bool), 0.95)
    assert (len(none), none.columns.tolist(), worst(none)) == (0, COLUMNS, "")


def test_holm_steps_down() -> None:
    corrected = holm(np.array([0.04, 0.01, 0.03, 0.9]))
    assert corrected == pytest.approx([0.09, 0.04, 0.09, 0.9])
    # Of many equal slices hardly ever one is called worse.
    generator = np.random.default_rng(0)
    called = 0
    for _ in range(20):
        slices = pd.DataFrame({"day": generator.integers(20, size=400).astype(str)})
        table = slice_table(slices, generator.random(400) < 0.8, 0.95)
        called += (table["corrected_p_value"] <= 0.05).any()
    assert called <= 2

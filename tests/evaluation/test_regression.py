"""Numbers: the measures are scikit-learn's, and what evaluate writes of them."""

import json
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics

from pipeline.core.params import EvaluateParams
from pipeline.core.paths import (
    CLASSES,
    HEAD,
    HEAD_WEIGHTS,
    METRICS,
    PLOTS,
    PREDICTIONS,
    REPEATS,
    SETS,
    SLICES,
)
from pipeline.evaluate import evaluate
from pipeline.evaluation import Asked, tables
from pipeline.evaluation.metrics import Scores, resample, whole
from pipeline.heads.head import load_head, save_head
from pipeline.heads.sets import PredictionSets
from pipeline.tables.features import Split
from pipeline.tables.figures import Metrics
from pipeline.tasks.regression import measuring as regression
from pipeline.tasks.regression.metrics import weighted
from pipeline.tasks.regression.residuals import draw_residuals, extremes, residual_table
from tests.evaluation.made import make, measured


def numbers(examples=80, outputs=3, seed=0):
    random = np.random.default_rng(seed)
    targets = random.standard_normal((examples, outputs)) * [1, 10, 1000][:outputs] + 5
    return targets, targets + random.standard_normal(targets.shape) * [1, 4, 2000][:outputs]


def test_measures_equal_scikit_learns():
    targets, given = numbers()
    found = whole(partial(weighted, targets=targets, answers=given), len(targets))
    wanted = {
        "mae": metrics.mean_absolute_error,
        "rmse": metrics.root_mean_squared_error,
        "r2": metrics.r2_score,
    }
    assert list(found.overall) == list(found.of_class) == list(wanted)
    for name, function in wanted.items():
        assert found.overall[name][0] == pytest.approx(function(targets, given))
        each = function(targets, given, multioutput="raw_values")
        np.testing.assert_allclose(found.of_class[name][0], each)


def test_a_weighting_measures_examples_as_often_as_they_are_drawn():
    targets, given = numbers()
    weights = np.random.default_rng(1).integers(0, 4, size=(5, len(given))).astype(float)
    found = weighted(weights, targets, given)
    for row, times in enumerate(weights):
        r2 = metrics.r2_score(targets, given, sample_weight=times)
        assert found.overall["r2"][row] == pytest.approx(r2)
        mae = metrics.mean_absolute_error(targets, given, sample_weight=times)
        assert found.overall["mae"][row] == pytest.approx(mae)


def test_r2_is_not_defined_where_nothing_varies():
    targets, given = numbers(20, 2)
    targets[:, 0] = 1e6 + 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = whole(partial(weighted, targets=targets, answers=given), 20)
        one = whole(partial(weighted, targets=targets[:1], answers=given[:1]), 1)
        drawn = resample(partial(weighted, targets=targets[:2], answers=given[:2]), 2, 2, 50, 0)
    assert np.isnan(found.of_class["r2"][0, 0])
    assert found.overall["r2"][0] == pytest.approx(metrics.r2_score(targets[:, 1], given[:, 1]))
    assert np.isnan(one.overall["r2"][0])
    assert 0 < np.isnan(drawn.overall["r2"]).sum() < 50  # where one was drawn twice


def test_a_measure_that_no_resample_defines_has_no_interval():
    scores = [Scores({"r2": np.array([value])}, {}) for value in (0.5, np.nan)]
    assert tables.metrics(*scores, 0.95, 2) == Metrics({"r2": 0.5, "pictures": 2}, {})
    whole, drawn = reversed(scores)
    assert tables.metrics(whole, drawn, 0.95, 2) == Metrics({"pictures": 2}, {})


def test_the_digits_tell_what_targets_differ_by():
    assert regression.digits_of(np.array([0.0, 1.0])) == 6
    assert regression.digits_of(np.array([1e9, 1e9 + 10])) == 14
    assert regression.digits_of(np.array([3.0, 3.0])) == 6


@pytest.fixture
def of_numbers(project):
    """A project of a number, in which a head can be evaluated."""
    make("regression", ["weight"], *measured())
    project.set(**{"evaluate.bootstrap": 100})
    return project


def test_evaluate_writes_figures_that_are_those_of_its_predictions(of_numbers, capsys):
    evaluate()
    said = capsys.readouterr().out
    reported = json.loads(METRICS.read_text())
    test, ends = reported["test"], reported["interval"]
    assert list(test) == ["mae", "rmse", "r2", "pictures"]
    table = pd.read_csv(PREDICTIONS)
    assert table.columns.tolist() == [
        "path", "label", "target(weight)", "predicted(weight)", "camera"
    ]  # fmt: skip
    mae = metrics.mean_absolute_error(table["target(weight)"], table["predicted(weight)"])
    assert test["mae"] == pytest.approx(mae, abs=1e-4)
    for name, interval in ends.items():
        assert interval["low"] < test[name] < interval["high"]
    assert f"evaluate: MAE {test['mae']:.4g} on 30 test examples, 95 % interval" in said
    assert "evaluate: R² 0." in said
    classes = pd.read_csv(CLASSES)
    assert classes[["class", "pictures"]].to_numpy().tolist() == [["weight", 30]]
    assert classes["rmse"].tolist() == pytest.approx([test["rmse"]], rel=1e-5)
    assert (
        SETS.read_text()
        == "class,examples,coverage,size,randomised_coverage,randomised_size,empty\n"
    )
    by_camera = pd.read_csv(SLICES)
    assert by_camera.columns.tolist() == [
        "column", "value", "examples", "mae", "low", "high", "other_mae", "p_value",
        "corrected_p_value",
    ]  # fmt: skip
    errors = (table["target(weight)"] - table["predicted(weight)"]).abs()
    of_camera = errors.groupby(table["camera"]).mean()
    found = dict(zip(by_camera["value"], by_camera["mae"], strict=True))
    assert found == pytest.approx(of_camera.to_dict(), abs=1e-4)
    assert f"evaluate: the worst slice is camera = {of_camera.idxmax()}: MAE " in said


def test_residuals_are_a_table_and_a_picture(of_numbers):
    evaluate()
    assert {file.name for file in PLOTS.iterdir()} == {"residuals.csv", "residuals.png"}
    table = pd.read_csv(PLOTS / "residuals.csv")
    assert table.columns.tolist() == ["path", "name", "predicted", "target", "residual"]
    assert len(table) == 30
    np.testing.assert_allclose(table["residual"], table["target"] - table["predicted"], atol=1e-3)
    with Image.open(PLOTS / "residuals.png") as picture:
        assert "Software" not in picture.info
        assert 600 <= min(picture.size) <= max(picture.size) <= 2600
    files = [METRICS, PREDICTIONS, CLASSES, SLICES, *sorted(PLOTS.iterdir())]
    before = [file.read_bytes() for file in files]
    evaluate()
    assert [file.read_bytes() for file in files] == before


def test_several_numbers_have_a_row_a_panel_and_columns_each(of_numbers):
    names = ["height", "$weight$", "age"]
    make("regression", names, *measured(outputs=3))
    evaluate()
    assert pd.read_csv(CLASSES)["class"].tolist() == names
    columns = pd.read_csv(PREDICTIONS).columns.tolist()
    assert columns[1:6] == [
        "label", "target(height)", "predicted(height)", "target($weight$)", "predicted($weight$)"
    ]  # fmt: skip
    assert pd.read_csv(PLOTS / "residuals.csv")["name"].unique().tolist() == names


def test_intervals_stand_beside_what_was_predicted():
    targets, given = numbers(10, 2)
    paths, nothing = np.array([f"{n}.png" for n in range(10)]), np.zeros((10, 1), np.float32)
    test = Split(paths, paths, np.zeros(10, np.int32), targets, nothing)
    asked = Asked(test, ["a", "b"], given, [], pd.DataFrame(), EvaluateParams(), [0.5, 20])
    table = regression.PART.predictions(asked)
    order = ["target", "predicted", "low", "high"]
    assert table.columns.tolist()[2:] == [f"{one}({name})" for name in "ab" for one in order]
    for name, reach in (("a", 0.5), ("b", 20)):
        low, predicted, high = (
            table[f"{one}({name})"].astype(float) for one in ("low", "predicted", "high")
        )
        np.testing.assert_allclose(high - predicted, reach, atol=1e-3)
        np.testing.assert_allclose(predicted - low, reach, atol=1e-3)


def test_prediction_intervals_are_those_that_the_table_of_sets_tells_of(of_numbers, capsys):
    evaluate()
    assert "low(weight)" not in pd.read_csv(PREDICTIONS)  # no coverage was set
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    save_head(head, replace(about, sets=PredictionSets(0.9, reach=(1.5,))), HEAD_WEIGHTS, HEAD)
    evaluate()
    table, sets = pd.read_csv(PREDICTIONS), pd.read_csv(SETS)
    target, low, high = (table[f"{one}(weight)"] for one in ("target", "low", "high"))
    assert sets["class"].tolist() == ["weight"]
    assert sets["coverage"].tolist() == [pytest.approx(((low <= target) & (target <= high)).mean())]
    assert sets["size"].tolist() == [pytest.approx((high - low).mean(), abs=1e-3)]
    assert "evaluate: prediction intervals for coverage 0.9 contain" in capsys.readouterr().out


def test_the_extremes_are_the_largest_residuals_on_both_sides(tmp_path):
    targets = np.zeros((12, 1))
    given = np.array([5, -4, 3, -2, 1, 0, 0.1, 0.2, -0.3, 0.4, -0.5, 0.6])[:, None]
    paths = np.array([f"{number:02}.png" for number in range(12)])
    table = residual_table(paths, ["x"], targets, given)
    found = extremes(table)
    assert found["path"].tolist() == ["00.png", "01.png", "02.png", "03.png", "04.png", "10.png"]
    assert extremes(table[table["residual"] == 0]).empty
    draw_residuals(table[table["residual"] == 0], tmp_path / "one.png")
    assert (tmp_path / "one.png").exists()


def test_a_number_that_is_the_same_in_all_test_examples_is_named(of_numbers, capsys):
    features, values = measured(outputs=2)
    values[3::4, 1] = 7
    make("regression", ["height", "weight"], features, values)
    evaluate()
    said = "warning: all test examples have the same weight, so its R² is not defined"
    assert said in capsys.readouterr().out
    assert pd.read_csv(CLASSES)["r2"].isna().tolist() == [False, True]
    values[3::4] = 7
    make("regression", ["height", "weight"], features, values)
    evaluate()
    assert list(json.loads(METRICS.read_text())["test"]) == ["mae", "rmse", "pictures"]


def test_repeats_measure_numbers_in_their_own_unit(of_numbers, capsys):
    of_numbers.set(**{"evaluate.repeats": 5})
    evaluate()
    table = pd.read_csv(REPEATS, index_col="measure")
    assert table.index.tolist() == ["mae", "rmse", "r2"]
    assert (table["low"] < table["mean"]).all()
    assert (table["mean"] < table["high"]).all()
    assert table.loc["r2", "high"] <= 1
    said = f"evaluate: MAE {table.loc['mae', 'mean']:.4g} on average over 5 other splits"
    assert said in capsys.readouterr().out
    assert not regression.PART.learnable(np.ones((3, 1)), np.ones((5, 1)))

"""Several labels: the measures are scikit-learn's, and what evaluate writes of them."""

import json
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from pipeline.core.errors import DataError
from pipeline.core.params import EvaluateParams
from pipeline.core.paths import (
    CLASSES,
    HEAD,
    HEAD_WEIGHTS,
    MANIFEST,
    METRICS,
    PLOTS,
    PREDICTIONS,
    REPEATS,
    SETS,
    SLICES,
)
from pipeline.evaluate import evaluate
from pipeline.evaluation import tables
from pipeline.evaluation.metrics import resample, whole
from pipeline.tasks.multilabel import measuring as multilabel
from pipeline.tasks.multilabel.metrics import Answers, Ranking, weighted
from tests.evaluation.made import LABELS, labelled, make


def answers(examples=150, labels=4, seed=0):
    """Labels, probabilities of which many are equal, and those above a threshold."""
    random = np.random.default_rng(seed)
    given = (random.random((examples, labels)) < 0.3).astype(float)
    shares = 1 / (1 + np.exp(1 - 2 * given - random.standard_normal(given.shape)))
    shares = np.round(shares, 2)
    return given, shares, shares >= 0.5


def test_measures_equal_scikit_learns():
    given, shares, chosen = answers()
    found = whole(partial(weighted, about=Answers.of(given, shares, chosen)), len(given))
    overall = {name: float(value[0]) for name, value in found.overall.items()}
    assert overall == pytest.approx(
        {
            "loss": np.mean(
                [metrics.log_loss(y, p) for y, p in zip(given.T, shares.T, strict=True)]
            ),
            "mean_average_precision": metrics.average_precision_score(given, shares),
            "micro_f1": metrics.f1_score(given, chosen, average="micro"),
            "macro_f1": metrics.f1_score(given, chosen, average="macro"),
            "exact_match": metrics.accuracy_score(given, chosen),
        }
    )
    wanted = metrics.precision_recall_fscore_support(given, chosen)
    for name, values in zip(("precision", "recall", "f1"), wanted, strict=False):
        np.testing.assert_allclose(found.of_class[name][0], values)
    each = metrics.average_precision_score(given, shares, average=None)
    np.testing.assert_allclose(found.of_class["average_precision"][0], each)


def test_a_weighting_measures_examples_as_often_as_they_are_drawn():
    given, shares, chosen = answers()
    given[:30, 1] = np.nan
    weights = np.random.default_rng(1).integers(0, 4, size=(5, len(given))).astype(float)
    about = Answers.of(given, shares, chosen)
    found = weighted(weights, about)
    for row, times in enumerate(weights.astype(int)):
        drawn = (np.repeat(one, times, axis=0) for one in (given, shares, chosen))
        again = whole(partial(weighted, about=Answers.of(*drawn)), times.sum())
        for name, values in found.overall.items():
            assert values[row] == pytest.approx(again.overall[name][0])
        for name, of_label in found.of_class.items():
            np.testing.assert_allclose(of_label[row], again.of_class[name][0])
    known = ~np.isnan(given[:, 1])
    wanted = metrics.average_precision_score(
        given[known, 1], shares[known, 1], sample_weight=weights[0, known]
    )
    assert Ranking.of(given[:, 1], shares[:, 1]).average_precision(weights)[0] == (
        pytest.approx(wanted)
    )


def test_the_interval_holds_other_draws_as_often_as_it_says():
    # Mean average precision of 200 examples, against that of very many.
    true = whole(partial(weighted, about=Answers.of(*answers(20_000, seed=99))), 20_000)
    held = 0
    for seed in range(40):
        about = Answers.of(*answers(200, seed=seed))
        drawn = resample(partial(weighted, about=about), 200, 4, 200, 0).overall["micro_f1"]
        low, high = np.quantile(drawn, [0.025, 0.975])
        held += low <= true.overall["micro_f1"][0] <= high
    assert held >= 34


def test_unknown_labels_count_neither_for_nor_against():
    given, shares, chosen = answers()
    given[:, 2] = np.nan
    of_all = whole(partial(weighted, about=Answers.of(given, shares, chosen)), len(given))
    rest = [0, 1, 3]
    of_rest = Answers.of(given[:, rest], shares[:, rest], chosen[:, rest])
    without = whole(partial(weighted, about=of_rest), len(given))
    for name, value in without.overall.items():
        assert of_all.overall[name][0] == pytest.approx(value[0])
    assert np.isnan([values[0, 2] for values in of_all.of_class.values()]).all()


def test_what_is_not_defined_is_nan_and_warns_nobody():
    given, shares, chosen = answers(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = whole(partial(weighted, about=Answers.of(0 * given, shares, chosen)), 5)
        empty = whole(partial(weighted, about=Answers.of(np.nan * given, shares, chosen)), 5)
    assert np.isnan(nothing.overall["mean_average_precision"])
    assert nothing.overall["exact_match"] == (~chosen).all(axis=1).mean()
    assert np.isnan(np.concatenate(list(empty.overall.values()))).all()


@pytest.fixture
def of_labels(project):
    """A project of three labels, some unknown, in which a head can be evaluated."""
    make("multilabel", LABELS, *labelled(unknown=0.1))
    project.set(**{"evaluate.bootstrap": 100})
    return project


def test_evaluate_writes_figures_that_are_those_of_its_predictions(of_labels, capsys):
    evaluate()
    said = capsys.readouterr().out
    reported = json.loads(METRICS.read_text())
    test, ends = reported["test"], reported["interval"]
    assert list(test) == [
        "loss", "mean_average_precision", "micro_f1", "macro_f1", "exact_match", "pictures"
    ]  # fmt: skip
    assert set(ends) == set(test) - {"pictures"}
    table = pd.read_csv(PREDICTIONS, keep_default_na=False)
    assert table.columns.tolist() == [
        "path", "label", "predicted", "correct", "unknown", "camera", "p(brick)", "p(moss)",
        "p(wood)",
    ]  # fmt: skip
    manifest = pd.read_parquet(MANIFEST)
    assert table["label"].tolist() == manifest[manifest["split"] == "test"]["label"].tolist()
    assert test["exact_match"] == pytest.approx(table["correct"].mean(), abs=1e-6)
    each = []
    for name in LABELS:
        known = ~table["unknown"].str.split("|").map(lambda labels, name=name: name in labels)
        there = table["label"].str.split("|").map(lambda labels, name=name: name in labels)
        each.append(metrics.average_precision_score(there[known], table[f"p({name})"][known]))
    assert test["mean_average_precision"] == pytest.approx(np.mean(each), abs=1e-4)
    low, high = ends["mean_average_precision"].values()
    assert low < test["mean_average_precision"] < high
    assert f"evaluate: mean average precision {np.mean(each):.4f} on 30 test examples" in said
    assert "evaluate: exact match " in said


def test_labels_have_their_measures_thresholds_and_curves(of_labels):
    evaluate()
    classes = pd.read_csv(CLASSES)
    assert classes["class"].tolist() == LABELS
    assert classes["threshold"].tolist() == [0.4, 0.5, 0.6]
    assert (classes["pictures"] + classes["unknown"] < 30).all()
    assert classes["unknown"].sum() > 0
    for name in ("average_precision", "precision", "recall", "f1"):
        assert (classes[f"{name}_low"] <= classes[name]).all()
        assert (classes[name] <= classes[f"{name}_high"]).all()
    written = {file.name for file in PLOTS.iterdir()}
    assert written == {"precision_recall.csv", "reliability.csv", "roc.csv"}
    assert set(pd.read_csv(PLOTS / "roc.csv")["class"]) == {*LABELS, "(macro mean)"}
    reliability = pd.read_csv(PLOTS / "reliability.csv")
    assert reliability["pictures"].sum() == 90 - classes["unknown"].sum()
    assert SLICES.read_text().startswith("column,value,examples,exact_match,low,high,other_exact_")
    assert (
        SETS.read_text()
        == "class,examples,coverage,size,randomised_coverage,randomised_size,empty\n"
    )
    assert REPEATS.read_text() == "measure,mean,low,high,repeats,given_split\n"


def test_two_runs_write_the_same_bytes(of_labels):
    of_labels.set(**{"evaluate.all_probabilities": True})
    evaluate()
    files = [METRICS, PREDICTIONS, CLASSES, SLICES, *sorted(PLOTS.iterdir())]
    assert PLOTS / tables.PROBABILITIES in files
    before = [file.read_bytes() for file in files]
    evaluate()
    assert [file.read_bytes() for file in files] == before
    every = pd.read_parquet(PLOTS / tables.PROBABILITIES)
    assert every.columns.tolist() == ["path", "label", "p(brick)", "p(moss)", "p(wood)"]


def test_labels_that_no_test_example_has_or_lacks_are_named(of_labels, capsys):
    features, labels = labelled()
    labels[3::4, 0], labels[3::4, 2] = 0, 1
    make("multilabel", LABELS, features, labels)
    evaluate()
    said = capsys.readouterr().out
    assert "warning: no test example has brick; mean average precision is the mean over" in said
    assert "warning: no test example is known to lack wood; mean average precision" in said
    classes = pd.read_csv(CLASSES)
    assert classes["average_precision"].isna().tolist() == [True, False, True]
    labels[3::4] = 0
    make("multilabel", LABELS, features, labels)
    evaluate()
    test = json.loads(METRICS.read_text())["test"]
    assert "mean_average_precision" not in test
    assert test["exact_match"] > 0
    assert len(pd.read_csv(PLOTS / "roc.csv")) == 0


def test_of_many_labels_the_worst_have_curves(of_labels, monkeypatch):
    monkeypatch.setattr(tables, "MANY", 2)
    monkeypatch.setattr(tables, "DRAWN", 1)
    of_labels.set(**{"evaluate.top_k": 1})
    evaluate()
    worst = pd.read_csv(CLASSES).sort_values("average_precision")["class"].iloc[0]
    assert set(pd.read_csv(PLOTS / "roc.csv")["class"]) == {worst, "(macro mean)"}
    table = pd.read_csv(PREDICTIONS)
    assert table.columns[-2:].tolist() == ["class_1", "probability_1"]


def test_a_head_of_another_task_is_refused_in_a_line(of_labels):
    trained = [file.read_bytes() for file in (HEAD, HEAD_WEIGHTS)]
    make("regression", LABELS, *labelled())
    for file, data in zip((HEAD, HEAD_WEIGHTS), trained, strict=True):
        file.write_bytes(data)
    with pytest.raises(DataError, match=r"was trained for multilabel, but .* is for regression"):
        evaluate()


def test_what_another_task_left_is_removed(of_labels):
    evaluate()
    make("regression", LABELS, *labelled())
    evaluate()
    assert {file.name for file in PLOTS.iterdir()} == {"residuals.csv", "residuals.png"}


def test_repeats_draw_splits_from_which_every_label_can_be_learned(of_labels, capsys):
    of_labels.set(**{"evaluate.repeats": 5})
    evaluate()
    table = pd.read_csv(REPEATS, index_col="measure")
    assert table.index.tolist() == [
        "mean_average_precision", "micro_f1", "macro_f1", "exact_match"
    ]  # fmt: skip
    mean, low, high, repeats, _ = table.loc["mean_average_precision"]
    assert 0.5 < low < mean < high <= 1
    assert repeats == 5
    said = f"evaluate: mean average precision {mean:.4f} on average over 5 other splits"
    assert said in capsys.readouterr().out
    rare = np.array([[1.0, 0], [0, 0], [0, 1], [0, 0]])
    assert multilabel.PART.learnable(rare, rare)
    assert not multilabel.PART.learnable(rare[1:], rare)


def test_thresholds_say_which_labels_are_answered():
    given, shares, _ = answers()
    settings = EvaluateParams()
    low, high = (
        whole(multilabel.PART.weigh(given, shares, [one] * 4, settings), len(given)).of_class
        for one in (0.1, 0.9)
    )
    assert (low["recall"] > high["recall"]).all()

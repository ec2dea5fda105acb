"""Prediction sets and intervals hold the truth as often as is set."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation import coverage
from pipeline.heads import calibration as priors
from pipeline.heads import conformal, cross_fit, sets
from pipeline.heads.fit import class_weights, fit_heads, refit
from pipeline.heads.head import Head, against_thresholds, with_priors
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.sets import PredictionSets
from pipeline.heads.trained import Schedule, Trained
from pipeline.tables.features import Split
from tests.heads.test_fit import blobs

HEADS: dict[str, dict[str, Any]] = {
    "lbfgs": {"optimizer": "lbfgs", "weight_decay": 0.01},
    "ridge": {"optimizer": "ridge", "weight_decay": 0.1},
    "nearest_mean": {"optimizer": "nearest_mean"},
}
NONE = blobs(3, 0)


def trained(pool, used, loss="softmax"):
    """The head, fitted on all rows, and how."""
    outputs = 3 if loss == "softmax" else pool.labels.shape[1]
    schedule = Schedule(1, 256, 0, np.ones(outputs, np.float32), loss=loss)
    (one,) = fit_heads(pool, pool.take(slice(0)), [Hyperparameters(**used)], schedule, "cpu")
    return one, schedule


def held_out(pool, used, group="", refits=True, least=0):
    """By a head that was trained on all rows, a quarter of which were for validation."""
    one, schedule = trained(pool, used, "softmax" if pool.labels.ndim == 1 else "squared")
    place = np.arange(len(pool.labels)) % 4 == 0
    manifest = pd.DataFrame({"digest": pool.digests, "group": group})
    of = pool.take(~place), pool.take(place), manifest, schedule, "cpu"
    return cross_fit.out_of_fold(one, *of, refits=refits, least=least)


def calibrated(pool, used, of=0.9, **how):
    task = "classification" if pool.labels.ndim == 1 else "regression"
    held = held_out(pool, used, least=conformal.needed(of, task), **how)
    found = conformal.calibrated(of, held, 1.5, task)
    assert found is not None
    # As `models/head.json` and `bundle.json` keep it.
    outputs = held.logits.shape[1]
    assert PredictionSets.of(found.content(), outputs, task) == found
    return found


def test_sets_hold_the_label_as_often_as_asked_and_are_never_empty():
    covered, randomised = [], []
    for seed in range(6):
        pool, test = blobs(240, seed, distance=0.4), blobs(600, 100 + seed, distance=0.4)
        told = calibrated(pool, HEADS["lbfgs"])
        assert (told.examples, told.folds) == (240, 10)
        shares = trained(pool, HEADS["lbfgs"])[0].head.answers(test.features, 1.5)
        found = coverage.table(told, shares, test, [*"abc"]).set_index("class")
        assert found["examples"].tolist() == [600, 200, 200, 200]
        assert 1 < found.loc["all", "size"] < 3
        assert (shares.argmax(axis=1) == test.labels).mean() < 0.85
        assert sets.sizes(shares, told.labels).min() >= 1
        covered.append(found.loc["all", "coverage"])
        randomised.append(found.loc["all", "randomised_coverage"])
    assert 0.88 < np.mean(covered) < 0.93
    assert 0.88 < np.mean(randomised) < 0.93


def test_where_a_head_is_nearly_always_right_a_set_is_one_label():
    pool, test = blobs(300, 0, distance=1.5), blobs(300, 1, distance=1.5)
    told = calibrated(pool, HEADS["lbfgs"])
    assert (told.labels.quantile, told.labels.k_reg) == (0, 1)
    shares = trained(pool, HEADS["lbfgs"])[0].head.answers(test.features, 1.5)
    table = coverage.table(told, shares, test, [*"abc"]).set_index("class")
    assert table.loc["all", "size"] == 1
    assert table.loc["all", "coverage"] > 0.97
    # The paper's sets leave some empty, to cover no more than is set.
    assert table.loc["all", "empty"] > 0
    assert table.loc["all", "randomised_coverage"] < table.loc["all", "coverage"]
    assert "contain the right class of" in coverage.summary(told, table.reset_index())


def test_examples_that_are_alone_in_their_class_are_held_by_no_set():
    scores = np.arange(99) / 99
    assert conformal.quantile(scores, 0.9) == pytest.approx(scores[89], rel=1e-5)
    assert conformal.quantile(scores, 0.9, lost=9) == pytest.approx(scores[98], rel=1e-5)
    assert conformal.quantile(scores, 0.9, lost=11) == math.inf
    assert conformal.quantile(scores[:8], 0.9) == math.inf
    assert conformal.quantile(np.array([1.2345678e-9]), 0.4) == pytest.approx(1.23457e-9)


def test_too_few_examples_for_the_coverage_are_one_sentence():
    told = calibrated(blobs(60, 0), HEADS["ridge"])
    why = "60 training and validation examples are too few for a coverage of 0.9, which needs 100"
    assert told == PredictionSets(0.9, why)
    table = coverage.table(told, np.eye(3), NONE, ["a", "b", "c"])
    assert table.empty
    assert coverage.summary(told, table) == f"no prediction sets: {why}"
    assert calibrated(blobs(60, 0), HEADS["ridge"], of=0.8).labels is not None
    assert "0 groups of training" in calibrated(blobs(300, 0), HEADS["ridge"], group="one").why_none
    held = held_out(blobs(300, 0), HEADS["ridge"])
    assert "several labels" in conformal.calibrated(0.9, held, 1.0, "multilabel").why_none
    assert conformal.calibrated(None, held, 1.0, "classification") is None


def test_a_head_that_was_not_trained_again_is_calibrated_on_validation():
    told = calibrated(blobs(600, 0, distance=0.4), HEADS["lbfgs"], refits=False)
    assert (told.examples, told.folds) == (150, 0)
    few = calibrated(blobs(300, 0), HEADS["lbfgs"], refits=False)
    assert few.why_none.startswith("75 validation examples are too few")


def test_an_interval_reaches_as_far_as_what_was_held_out_was_wrong():
    random = np.random.default_rng(0)
    pool = blobs(900, 0)
    weights = random.standard_normal((pool.features.shape[1], 2)) * [1, 100]
    noise = random.standard_normal((900, 2)) * [0.5, 5]
    numbers = pool.features @ weights + noise
    pool = Split(pool.digests, pool.paths, pool.views, numbers, pool.features)
    learnt, test = pool.take(np.arange(300)), pool.take(np.arange(300, 900))
    head = trained(learnt, HEADS["ridge"] | {"weight_decay": 1e-6}, "squared")[0].head
    told = calibrated(learnt, HEADS["ridge"] | {"weight_decay": 1e-6})
    table = coverage.table(told, head.logits(test.features), test, ["little", "large"])
    assert table["class"].tolist() == ["little", "large"]
    assert table["coverage"].between(0.85, 0.95).all()
    # Nine tenths of normal noise are within 1.645 standard deviations.
    np.testing.assert_allclose(told.reach, np.array([0.5, 5]) * 1.645, rtol=0.15)
    np.testing.assert_allclose(table["size"], 2 * np.array(told.reach), rtol=1e-5)
    assert "of little" in coverage.summary(told, table)


def test_one_example_and_many_have_the_same_sets():
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(6) / 2, 400)
    shares[::7] = np.round(shares[::7], 1)  # with equal ones
    labels = random.integers(0, 6, 400)
    rank, ahead, _ = sets.before(shares, labels)
    for told in (sets.LabelSets(0.0, 0.1, 1), sets.LabelSets(0.7, 0.1, 2), sets.LabelSets(2, 0, 1)):
        sizes = sets.sizes(shares, told)
        for number, row in enumerate(shares):
            count, order = sets.size(row, told)
            assert count == sizes[number]
            held = labels[number] in order[:count]
            assert held == (rank[number] <= count)
            penalty = told.penalty * max(rank[number] - told.k_reg, 0)
            assert held == (ahead[number] + penalty <= told.quantile + 1e-12)


def groups_of_residuals(count, seed):
    """Examples with numbers: the larger a group, the smaller they are."""
    random = np.random.default_rng(seed)
    sizes = np.clip(np.ceil(2 * (1 + random.pareto(1.2, count))), 2, 200).astype(int)
    of = np.repeat(np.arange(count), sizes)
    labels = random.standard_normal(len(of)) * np.exp(random.standard_normal(count))[of]
    labels /= np.sqrt(sizes)[of]
    names = np.array([f"{seed:032x}{number:032x}" for number in range(len(of))])
    features = np.zeros((len(of), 1), np.float32)
    pool = Split(names, names, np.zeros(len(of), np.int32), labels[:, None], features)
    return pool, of


def test_an_interval_holds_a_new_group_as_often_as_asked_whatever_its_size():
    head = Head(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
    one = Trained(Hyperparameters(**HEADS["ridge"]), head, None, [], "solved")
    schedule = Schedule(1, 256, 0, np.ones(1, np.float32), loss="squared")
    covered = []
    for seed in range(40):
        val, groups = groups_of_residuals(150, seed)
        new, of_new = groups_of_residuals(100, 1000 + seed)
        names = [f"{seed} {number}" for number in groups]
        manifest = pd.DataFrame({"digest": val.digests, "group": names})
        of = val.take(slice(0)), val, manifest, schedule, "cpu"
        held = cross_fit.out_of_fold(one, *of, refits=False)
        told = conformal.calibrated(0.9, held, 1.0, "regression")
        assert told is not None
        assert (told.examples, told.groups) == (len(groups), 150)
        inside = np.abs(new.labels[:, 0]) <= told.reach[0]
        covered.append(pd.Series(inside).groupby(of_new).mean().mean())
    assert 0.89 <= np.mean(covered) < 0.92
    table = coverage.table(told, np.zeros((len(of_new), 1)), new, ["n"], groups=of_new)
    assert table.loc[0, "coverage"] == pytest.approx(covered[-1])
    assert "100 groups, each with weight one" in coverage.summary(told, table, of_new)


def test_sets_of_groups_rest_on_groups_that_no_head_has_seen():
    pool = blobs(480, 0, distance=0.4)
    groups = [f"group {number // 4}" for number in range(480)]
    told = calibrated(pool, HEADS["lbfgs"], group=groups)
    assert (told.groups, told.examples, told.folds) == (120, 480, 10)
    np.testing.assert_allclose(held_out(pool, HEADS["lbfgs"], groups).weights, 0.25)
    # Groups of one are examples.
    scores = np.random.default_rng(0).random(333)
    for share in (0.5, 0.9, 0.99, 0.999):
        by_group = conformal.quantile(scores, share, 2, np.ones(333))
        assert by_group == conformal.quantile(scores, share, 2)


def test_sets_are_made_wherever_there_are_as_many_groups_as_they_need():
    """Two of three parts of more than 2,000 examples are held out: 80 groups of 120."""
    pool = blobs(2400, 0, dimension=4, distance=0.4)
    for count, of, wanted in ((120, 0.9, (3, 120)), (150, 0.9, (2, 100)), (120, 0.85, (2, 80))):
        groups = [f"group {number * count // 2400}" for number in range(2400)]
        sets = calibrated(pool, HEADS["nearest_mean"], of, group=groups)
        assert (sets.folds, sets.groups) == wanted
    groups = [f"group {number * 60 // 2400}" for number in range(2400)]
    why = calibrated(pool, HEADS["nearest_mean"], group=groups).why_none
    assert why.startswith("60 groups of training and validation examples are too few")
    assert conformal.needed(None, "classification") == conformal.needed(0.9, "multilabel") == 0


def test_balanced_sets_hold_the_class_that_is_answered():
    """`blobs` of which one class is rare; the head was trained with class weights."""
    pool, test = blobs(900, 0, distance=0.4), blobs(900, 1, distance=0.4)
    few = [~((one.labels == 2) & (np.arange(900) % 4 > 0)) for one in (pool, test)]
    pool, test = pool.take(few[0]), test.take(few[1])
    place = np.arange(len(pool.labels)) % 4 == 0
    learnt, val = pool.take(~place), pool.take(place)
    weights = class_weights("balanced", learnt.labels, 3)
    schedule = Schedule(1, 256, 0, weights)
    (one,) = fit_heads(learnt, val, [Hyperparameters(**HEADS["lbfgs"])], schedule, "cpu")
    manifest = pd.DataFrame({"digest": pool.digests, "group": ""})
    held = cross_fit.out_of_fold(one, learnt, val, manifest, schedule, "cpu", refits=True)
    fitted = priors.calibrated(held.logits, held.labels, "classification", weights)
    assert fitted.calibrated_on == len(pool.labels)
    told = conformal.calibrated(0.9, held, fitted.temperature, "classification")
    head = with_priors(refit(one, learnt, val, schedule, "cpu"), fitted)
    shares = head.answers(test.features, fitted.temperature)
    for row in against_thresholds(shares, fitted.thresholds):
        count, order = sets.size(row, told.labels)
        assert count >= 1
        assert order[0] == row.argmax()
    table = coverage.table(told, shares, test, [*"abc"], fitted.thresholds).set_index("class")
    assert 0.87 < table.loc["all", "coverage"] < 0.94
    assert table.loc["c", "coverage"] > 0.8

"""Sets and intervals that hold the truth as often as they promise."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import yaml

from pipeline.core.params import TrainParams
from pipeline.evaluate import evaluate
from pipeline.evaluation import conformal
from pipeline.heads import calibration as priors
from pipeline.heads import sets
from pipeline.heads.description import Calibration, HeadDescription
from pipeline.heads.fit import class_weights, fit_heads
from pipeline.heads.head import Head, against_thresholds, probabilities, with_priors
from pipeline.heads.hyperparameters import from_used
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split
from tests.heads.test_fit import blobs

HEADS: dict[str, dict[str, Any]] = {
    "lbfgs": {"optimizer": "lbfgs", "weight_decay": 0.01},
    "ridge": {"optimizer": "ridge", "weight_decay": 0.1},
    "nearest_mean": {"optimizer": "nearest_mean"},
}
NONE = blobs(3, 0)


def trained(pool: Split, used: dict[str, Any], loss: str = "softmax") -> Any:
    """The head, fitted on all rows, and its description."""
    outputs = 3 if loss == "softmax" else pool.labels.shape[1]
    schedule = Schedule(1, 256, 0, np.ones(outputs, np.float32), loss=loss)
    (one,) = fit_heads(pool, pool.take(slice(0)), [from_used(used)], schedule, "cpu")
    about = HeadDescription(
        classes=[*"abc"][:outputs],
        power=1.0,
        calibration=Calibration(1.5 if loss == "softmax" else 1.0),
        task="classification" if loss == "softmax" else "regression",
        hyperparameters=from_used(used),
        epoch=1,
        refit=True,
    )
    return one.head, about


def calibrated(
    pool: Split, used: dict[str, Any], coverage: float = 0.9, group: str = "", **about: Any
) -> dict[str, Any]:
    """Of a head that was trained on all rows, a quarter of which were for validation."""
    numbers = pool.labels.ndim == 2
    head, told = trained(pool, used, "squared" if numbers else "softmax")
    place = np.arange(len(pool.labels)) % 4 == 0
    manifest = pd.DataFrame({"digest": pool.digests, "group": group})
    train, val = pool.take(~place), pool.take(place)
    return conformal.calibrated(
        coverage, head, replace(told, **about), train, val, manifest, TrainParams(**used)
    )


def test_sets_hold_the_label_as_often_as_asked_and_are_never_empty() -> None:
    covered, randomised = [], []
    for seed in range(6):
        pool, test = blobs(240, seed, distance=0.4), blobs(600, 100 + seed, distance=0.4)
        head, about = trained(pool, HEADS["lbfgs"])
        told = calibrated(pool, HEADS["lbfgs"])
        assert (told["examples"], told["folds"]) == (240, 10)
        shares = head.answers(test.features, about.calibration.temperature)
        found = conformal.table(told, shares, test, about.classes).set_index("class")
        assert found["examples"].tolist() == [600, 200, 200, 200]
        assert 1 < found.loc["all", "size"] < 3
        assert (shares.argmax(axis=1) == test.labels).mean() < 0.85
        sizes = sets.sizes(shares, sets.label_sets(told))
        assert sizes.min() >= 1
        covered.append(found.loc["all", "coverage"])
        randomised.append(found.loc["all", "randomised_coverage"])
    assert 0.88 < np.mean(covered) < 0.93
    assert 0.88 < np.mean(randomised) < 0.93


def test_where_a_head_is_nearly_always_right_a_set_is_one_label() -> None:
    pool, test = blobs(300, 0, distance=1.5), blobs(300, 1, distance=1.5)
    head, about = trained(pool, HEADS["lbfgs"])
    told = calibrated(pool, HEADS["lbfgs"])
    assert (told["quantile"], told["k_reg"]) == (0, 1)
    shares = head.answers(test.features, about.calibration.temperature)
    table = conformal.table(told, shares, test, about.classes).set_index("class")
    assert table.loc["all", "size"] == 1
    assert table.loc["all", "coverage"] > 0.97
    # The paper's sets leave some empty, to cover no more than was asked for.
    assert table.loc["all", "empty"] > 0
    assert table.loc["all", "randomised_coverage"] < table.loc["all", "coverage"]
    assert "hold the class of" in conformal.said(told, table.reset_index())


@pytest.mark.parametrize("name", HEADS)
def test_examples_are_asked_about_with_heads_that_had_not_seen_them(name: str) -> None:
    used = HEADS[name]
    pool = blobs(75, 0, distance=0.5).take(np.repeat(np.arange(75), 2))
    features = pool.features + np.arange(150)[:, None] % 2  # an example has an augmented view
    views = (np.arange(150) % 2).astype(np.int32)
    pool = Split(pool.digests, pool.paths, views, pool.labels, features.astype(np.float32))
    head, about = trained(pool, used)
    fold = conformal.folds(pool.digests.tolist(), pool.labels)
    held = conformal.out_of_fold(pool, fold, head, about, TrainParams(**used), counts=False)
    asked = np.flatnonzero(pool.views == 0)
    assert sorted(held.digests) == sorted(pool.digests[asked])
    # One fold, done by hand; the scale is that of the head.
    some = fold == fold[asked[0]]
    other, _ = trained(pool.take(~some), used)
    wanted = other.logits(pool.features[some & (pool.views == 0)])
    got = held.answers[np.isin(held.digests, pool.digests[some])]
    order = np.argsort(held.digests[np.isin(held.digests, pool.digests[some])])
    np.testing.assert_allclose(probabilities(got[order]), probabilities(wanted), atol=0.05)


def test_a_group_is_in_one_fold_and_other_folds_have_every_label() -> None:
    labels = np.arange(90) % 3
    keys = [f"group {number // 2}" for number in range(90)]
    fold = conformal.folds(keys, labels)
    assert (fold.reshape(45, 2)[:, :1] == fold.reshape(45, 2)).all()
    assert set(fold) == set(range(conformal.FOLDS))
    for number in range(conformal.FOLDS):
        assert set(labels[fold != number]) == {0, 1, 2}
    few = conformal.folds([*"abcd"], np.array([0, 1, 1, 2]))
    assert few[0] == few[3] == -1  # alone in their class, so they are always learned
    assert few[1] != few[2]


def test_examples_that_are_alone_in_their_class_are_held_by_no_set() -> None:
    scores = np.arange(99) / 99
    assert conformal.quantile(scores, 0.9) == pytest.approx(scores[89], rel=1e-5)
    assert conformal.quantile(scores, 0.9, lost=9) == pytest.approx(scores[98], rel=1e-5)
    assert conformal.quantile(scores, 0.9, lost=11) == math.inf
    assert conformal.quantile(scores[:8], 0.9) == math.inf
    assert conformal.quantile(np.array([1.2345678e-9]), 0.4) == pytest.approx(1.23457e-9)


def test_too_few_examples_for_the_promise_are_one_sentence() -> None:
    told = calibrated(blobs(60, 0), HEADS["ridge"])
    assert told == {
        "coverage": 0.9,
        "why_no_sets": "60 training and validation examples are too few to promise a coverage of"
        " 0.9, which takes 100",
    }
    table = conformal.table(told, np.eye(3), NONE, ["a", "b", "c"])
    assert table.empty
    assert conformal.said(told, table) == f"no sets: {told['why_no_sets']}"
    assert "quantile" in calibrated(blobs(60, 0), HEADS["ridge"], coverage=0.8)
    of_groups = calibrated(blobs(300, 0), HEADS["ridge"], group="one")
    assert "1 groups of training" in of_groups["why_no_sets"]
    several = calibrated(blobs(300, 0), HEADS["ridge"], task="multilabel")
    assert "several labels" in several["why_no_sets"]


def test_a_head_that_was_not_trained_again_is_calibrated_on_validation() -> None:
    told = calibrated(blobs(600, 0, distance=0.4), HEADS["lbfgs"], refit=False)
    assert (told["examples"], told["folds"]) == (150, 0)
    few = calibrated(blobs(300, 0), HEADS["lbfgs"], refit=False)
    assert few["why_no_sets"].startswith("75 validation examples are too few")


def test_an_interval_reaches_as_far_as_what_was_held_out_was_wrong() -> None:
    random = np.random.default_rng(0)
    pool = blobs(900, 0)
    weights = random.standard_normal((pool.features.shape[1], 2)) * [1, 100]
    noise = random.standard_normal((900, 2)) * [0.5, 5]
    numbers = pool.features @ weights + noise
    pool = Split(pool.digests, pool.paths, pool.views, numbers, pool.features)
    learnt, test = pool.take(np.arange(300)), pool.take(np.arange(300, 900))
    head, _ = trained(learnt, HEADS["ridge"] | {"weight_decay": 1e-6}, "squared")
    told = calibrated(learnt, HEADS["ridge"] | {"weight_decay": 1e-6})
    table = conformal.table(told, head.logits(test.features), test, ["little", "large"])
    assert table["class"].tolist() == ["little", "large"]
    assert table["coverage"].between(0.86, 0.95).all()
    # Of normal noise nine tenths are within 1.645 standard deviations.
    np.testing.assert_allclose(told["reach"], np.array([0.5, 5]) * 1.645, rtol=0.15)
    np.testing.assert_allclose(table["size"], 2 * np.array(told["reach"]), rtol=1e-5)
    assert "of little" in conformal.said(told, table)


def test_one_example_and_many_have_the_same_sets() -> None:
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


def groups_of_residuals(count: int, seed: int) -> tuple[Split, npt.NDArray[np.int64]]:
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


def test_an_interval_holds_a_new_group_as_often_as_asked_whatever_its_size() -> None:
    head = Head(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
    about = HeadDescription(["n"], 1.0, task="regression")
    covered = []
    for seed in range(40):
        val, groups = groups_of_residuals(150, seed)
        new, of_new = groups_of_residuals(100, 1000 + seed)
        names = [f"{seed} {number}" for number in groups]
        manifest = pd.DataFrame({"digest": val.digests, "group": names})
        told = conformal.calibrated(
            0.9, head, about, val.take(slice(0)), val, manifest, TrainParams()
        )
        assert told["examples"] == len(groups)
        inside = np.abs(new.labels[:, 0]) <= told["reach"][0]
        covered.append(pd.Series(inside).groupby(of_new).mean().mean())
    assert 0.89 <= np.mean(covered) < 0.92
    assert told["groups"] == 150
    table = conformal.table(told, np.zeros((len(of_new), 1)), new, ["n"], groups=of_new)
    assert table.loc[0, "coverage"] == pytest.approx(covered[-1])
    assert "100 groups, each of which weighs one" in conformal.said(told, table, of_new)


def test_sets_of_groups_rest_on_groups_that_no_head_has_seen() -> None:
    pool = blobs(480, 0, distance=0.4)
    groups = [f"group {number // 4}" for number in range(480)]
    told = calibrated(pool, HEADS["lbfgs"], group=groups)  # type: ignore[arg-type]
    assert (told["groups"], told["examples"], told["folds"]) == (120, 480, 10)
    fold = conformal.folds(groups, pool.labels)
    head, about = trained(pool, HEADS["lbfgs"])
    held = conformal.out_of_fold(pool, fold, head, about, TrainParams(), False, groups)
    assert held.weights is not None
    np.testing.assert_allclose(held.weights, 0.25)
    # Groups of one are examples.
    scores = np.random.default_rng(0).random(333)
    for coverage in (0.5, 0.9, 0.99, 0.999):
        by_group = conformal.quantile(scores, coverage, 2, np.ones(333))
        assert by_group == conformal.quantile(scores, coverage, 2)


def test_balanced_sets_hold_the_class_that_is_answered() -> None:
    """`blobs` of which one class is rare; the head was trained with class weights."""
    pool, test = blobs(900, 0, distance=0.4), blobs(900, 1, distance=0.4)
    few = [~((one.labels == 2) & (np.arange(900) % 4 > 0)) for one in (pool, test)]
    pool, test = pool.take(few[0]), test.take(few[1])
    place = np.arange(len(pool.labels)) % 4 == 0
    learnt, val = pool.take(~place), pool.take(place)
    weights = class_weights("balanced", learnt.labels, 3)
    used = from_used(HEADS["lbfgs"])
    (one,) = fit_heads(learnt, val, [used], Schedule(1, 256, 0, weights), "cpu")
    fitted = priors.calibrated(one.head.logits(val.features), val.labels, "classification", weights)
    about = HeadDescription([*"abc"], 1.0, fitted, hyperparameters=used, epoch=1, refit=True)
    head = with_priors(one.head, fitted)
    manifest = pd.DataFrame({"digest": pool.digests, "group": ""})
    training = TrainParams(**HEADS["lbfgs"], class_weights="balanced")
    told = conformal.calibrated(0.9, head, about, learnt, val, manifest, training)
    shares = head.answers(test.features, about.calibration.temperature)
    strengths = against_thresholds(shares, fitted.thresholds)
    for row in strengths:
        count, order = sets.size(row, sets.label_sets(told))
        assert count >= 1
        assert order[0] == row.argmax()
    table = conformal.table(told, shares, test, [*"abc"], fitted.thresholds).set_index("class")
    assert 0.87 < table.loc["all", "coverage"] < 0.94
    assert table.loc["c", "coverage"] > 0.8


@pytest.mark.parametrize("grouped", [False, True])
def test_a_promise_is_doubted_if_it_is_broken_and_rarely_if_it_is_kept(grouped: bool) -> None:
    """Each example of a group of ten is held, or none: they are as good as one."""
    random, alarms = np.random.default_rng(0), 0
    told = {"coverage": 0.9, "examples": 500, "reach": [1.0], "groups": 500 if grouped else None}
    names = np.array([f"{number:064x}" for number in range(1000)])
    features = np.zeros((1000, 1), np.float32)

    def doubted(coverage: float) -> list[str]:
        count = 100 if grouped else 1000
        held = np.repeat(random.random(count) < coverage, 1000 // count)
        labels = np.where(held, 0.0, 2.0)[:, None]
        test = Split(names, names, np.zeros(1000, np.int32), labels, features)
        groups = np.arange(1000) // 10 if grouped else None
        return conformal.doubts(told, np.zeros((1000, 1)), test, ["n"], groups=groups)

    for _ in range(200):
        # What a quantile of 500 scores at rank 451 holds of all examples.
        alarms += len(doubted(random.beta(451, 50)))
    assert alarms <= 8
    assert "the promise of n is not kept" in doubted(0.7)[0]


def test_few_groups_are_not_tested() -> None:
    told = {"coverage": 0.9, "examples": 500, "reach": [1.0], "groups": 200}
    names = np.array([f"{number:064x}" for number in range(50)])
    test = Split(names, names, np.zeros(50, int), np.full((50, 1), 9.0), np.zeros((50, 1)))
    groups = np.arange(50) // 10
    (line,) = conformal.doubts(told, np.zeros((50, 1)), test, ["n"], groups=groups)
    assert "not tested: too few groups (5)" in line


def test_evaluate_calibrates_and_the_bundle_takes_it_over(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bundled, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    before = json.loads(Path("reports/metrics.json").read_text())
    document = yaml.safe_load(Path("params.yaml").read_text())
    document["evaluate"]["coverage"] = 0.7
    Path("params.yaml").write_text(yaml.safe_dump(document))
    evaluate()
    assert json.loads(Path("reports/metrics.json").read_text()) == before
    told = json.loads(Path("reports/sets.json").read_text())
    assert (told["coverage"], told["method"]) == (0.7, "RAPS")
    manifest = pd.read_parquet("data/manifest.parquet")
    assert told["examples"] == (manifest["split"] != "test").sum()
    table = pd.read_csv("reports/sets.csv")
    assert table["class"].tolist() == ["all", "disc", "square"]
    first = Path("reports/sets.json").read_bytes()
    evaluate()
    assert Path("reports/sets.json").read_bytes() == first

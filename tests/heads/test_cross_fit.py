"""Answers about examples by heads that had not seen them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.heads.cross_fit import VIEW, division, enough, out_of_fold, write
from pipeline.heads.description import Calibration
from pipeline.heads.fit import class_weights, fit_heads
from pipeline.heads.head import probabilities
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split
from pipeline.tables.folds import folds
from tests.heads.test_fit import blobs

HEADS: dict[str, dict[str, Any]] = {
    "lbfgs": {"optimizer": "lbfgs", "weight_decay": 0.003},
    "ridge": {"optimizer": "ridge", "weight_decay": 0.1},
    "lda": {"optimizer": "lda"},
    "nearest_mean": {"optimizer": "nearest_mean"},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.01},
}


def chosen(rows, val, schedule, used):
    (one,) = fit_heads(rows, val, [Hyperparameters(**used)], schedule, "cpu")
    return one


def crossed(pool, used, groups=None, loss="softmax", least=0):
    """A quarter of the examples is for validation."""
    val = np.isin(pool.digests, np.unique(pool.digests)[::4])
    rows, val_rows = pool.take(~val), pool.take(val & (pool.views == 0))
    outputs = 3 if loss == "softmax" else pool.labels.shape[1]
    schedule = Schedule(6, 32, 3, class_weights("none", rows.labels, outputs), loss=loss)
    one = chosen(rows, val_rows, schedule, used)
    manifest = pd.DataFrame({"digest": pool.digests, "group": groups or ""})
    manifest = manifest.drop_duplicates("digest")
    of = one, rows, val_rows, manifest, schedule, "cpu"
    held = out_of_fold(*of, refits=True, least=least)
    return held, one, schedule


def cold(pool, held, number, one, schedule):
    """What a head says of a fold that knows nothing but the other folds."""
    asked = held.fold == number
    learnt = pool.take(~np.isin(pool.digests, held.digests[asked]))
    epochs = one.kept.epoch if one.kept else 0
    (again,) = fit_heads(
        learnt, pool.take(slice(0)), [one.hyperparameters], replace(schedule, epochs=epochs), "cpu"
    )
    assert again.head is not None
    place = {d: n for n, d in enumerate(pool.digests) if pool.views[n] == 0}
    rows = [place[digest] for digest in held.digests[asked]]
    return again.head.scaled(one.scale / again.scale).logits(pool.features[rows])


@pytest.mark.parametrize("distance", [2.0, 0.3], ids=["easy", "noisy"])
@pytest.mark.parametrize("name", HEADS)
def test_answers_are_those_of_heads_trained_from_scratch(name, distance):
    single = blobs(90, 0, dimension=40, distance=distance)
    pool = single.take(np.repeat(np.arange(90), 2))
    views = (np.arange(180) % 2).astype(np.int32)  # an example has an augmented view
    noise = np.random.default_rng(1).normal(0, 0.1, pool.features.shape) * views[:, None]
    pool = replace(pool, views=views, features=(pool.features + noise).astype(np.float32))
    # Validation rows come after training rows, as `train` has them.
    val = np.isin(pool.digests, np.unique(pool.digests)[::4])
    held, one, schedule = crossed(pool, HEADS[name])
    pool = Split.concat([pool.take(~val), pool.take(val & (views == 0))])
    assert sorted(held.digests) == sorted(single.digests)
    assert held.folds == 10
    for number in (0, 7):
        wanted = cold(pool, held, number, one, schedule)
        got = held.logits[held.fold == number]
        np.testing.assert_allclose(probabilities(got), probabilities(wanted), atol=1e-3)


@pytest.mark.parametrize("name", ["lbfgs", "adamw"])
def test_no_label_of_a_fold_changes_what_is_said_of_it(name):
    """A start from the head that was chosen, which has seen them, would."""
    pool = blobs(90, 0, dimension=40, distance=0.3)
    held, one, schedule = crossed(pool, HEADS[name])
    asked = held.fold == 0
    lied = np.isin(pool.digests, held.digests[asked])
    other = replace(pool, labels=np.where(lied, (pool.labels + 1) % 3, pool.labels))
    wanted = cold(pool, held, 0, one, schedule)
    np.testing.assert_allclose(cold(other, held, 0, one, schedule), wanted, atol=1e-6)


def test_a_group_is_in_one_fold_and_each_class_in_several():
    labels = np.arange(90) % 3
    keys = [f"group {number // 2}" for number in range(90)]
    fold = folds(keys, labels, 10, numbers=False)
    assert (fold.reshape(45, 2)[:, :1] == fold.reshape(45, 2)).all()
    assert set(fold) == set(range(10))
    for number in range(10):
        assert set(labels[fold != number]) == {0, 1, 2}
    few = folds([*"abcd"], np.array([0, 1, 1, 2]), 10, numbers=False)
    assert few[0] == few[3] == -1  # alone in their class, so they are always learned from
    assert few[1] != few[2]
    assert folds([*"aaa"], np.array([0, 1, 1]), 10, numbers=False).tolist() == [-1] * 3
    assert set(folds([*"abcd"], np.ones((4, 1)), 10, numbers=True)) == set(range(4))


def test_each_of_several_labels_is_learned_in_every_fold():
    random = np.random.default_rng(0)
    for _ in range(50):
        labels = (random.random((60, 4)) < [0.5, 0.1, 0.05, 0.03]).astype(float)
        labels[random.random((60, 4)) < 0.2] = np.nan
        fold = folds([f"{number}" for number in range(60)], labels, 10, numbers=False)
        for number in range(10):
            for value in (0, 1):
                there = (labels == value).any(axis=0)
                assert ((labels[fold != number] == value).any(axis=0) == there).all()


def test_of_more_than_two_thousand_examples_two_parts_are_held_out():
    assert division(2000) == (10, 10)
    for examples in (2001, 3000, 8000, 10_000, 50_000, 1_000_000):
        count, asked = division(examples)
        assert asked == 2
        assert 500 <= examples // count <= 1000
    assert division(10_000, groups=400) == (4, 2)  # a hundred groups each
    assert division(10_000, groups=30) == (3, 2)
    pool = blobs(2400, 0, dimension=4, distance=0.4)
    held, _, _ = crossed(pool, HEADS["nearest_mean"])
    assert (held.folds, held.lost) == (2, 0)
    assert np.bincount(held.fold).tolist() == [600, 600]
    assert len(set(held.digests)) == 1200


def test_more_parts_are_held_out_only_if_prediction_sets_need_them():
    pool = blobs(2400, 0, dimension=4, distance=0.4)
    few = [f"group {number // 20}" for number in range(2400)]  # 120, of which 40 are in a part
    for groups, least, folds_held, units in (
        (None, 1200, 2, 1200),
        (None, 1201, 3, 1800),
        (None, 2401, 2, 1200),  # too few anyway
        (few, 80, 2, 80),
        (few, 100, 3, 120),
        (few, 121, 2, 80),
    ):
        held, _, _ = crossed(pool, HEADS["nearest_mean"], groups, least=least)
        assert held.folds == folds_held
        assert len(held.labels) == units * (20 if groups else 1)
        assert held.whole == (120 if groups else 2400)


def test_what_is_lost_counts_towards_what_prediction_sets_need():
    fold = np.array([-1, 0, 0, 0, 1, 1, 1, 2, 2, VIEW])
    units = np.array([*"abbcdefghh"])  # a is never held out, and b has two examples
    assert enough(units, fold, 1, 0) == (1, 1, 8)  # b and c, and a in proportion
    assert enough(units, fold, 1, 3) == (1, 1, 8)
    assert enough(units, fold, 1, 4) == (2, 1, 8)
    assert enough(units, fold, 1, 6) == (2, 1, 8)
    assert enough(units, fold, 1, 7) == (3, 1, 8)
    assert enough(units, fold, 1, 9) == (1, 1, 8)
    assert enough(units, np.full(10, -1), 2, 1) == (2, 0, 0)


def test_examples_that_are_alone_in_their_class_count_as_lost():
    pool = blobs(120, 0)
    few = pool.take((pool.labels != 2) | (np.arange(120) < 3))
    held, _, _ = crossed(few, HEADS["nearest_mean"])
    assert (held.lost, len(held.labels)) == (1, 80)
    assert set(held.labels) == {0, 1}


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_table_has_the_answers_that_a_bundle_would_give(task, tmp_path):
    pool = blobs(60, 0)
    loss = "softmax"
    if task == "regression":
        pool, loss = replace(pool, labels=pool.features[:, :2].astype(float)), "squared"
    held, _, _ = crossed(pool, HEADS["ridge"], loss=loss)
    for name in ("one", "two"):
        write(tmp_path / name, held, Calibration(2.0), task)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    table = pd.read_parquet(tmp_path / "one").set_index("digest")
    assert table.index.is_monotonic_increasing
    found = table.loc[held.digests]
    assert found["fold"].tolist() == held.fold.tolist()
    wanted = held.logits if task == "regression" else probabilities(held.logits, 2.0)
    np.testing.assert_allclose(np.stack(found["answers"]), wanted, atol=1e-6)

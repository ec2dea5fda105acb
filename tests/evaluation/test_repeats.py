"""The chosen head on other splits: which splits, and what interval."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.core.errors import DataError
from pipeline.core.params import EvaluateParams, IngestParams, TrainParams
from pipeline.evaluation import repeats
from pipeline.heads.description import Calibration, HeadDescription
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.tables.draw import draw
from tests.heads.test_fit import blobs

RIDGE = Hyperparameters("ridge", weight_decay=0.1)
ABOUT = HeadDescription([*"abc"], 1.0, hyperparameters=RIDGE, epoch=1, refit=True)


def drawn_manifest(pool, groups=False, seed=0):
    group = [f"g{int(digest) // 5}" if groups else "" for digest in pool.digests]
    keys = group if groups else pool.digests
    shares = IngestParams().shares.model_dump()
    split = [draw(key, shares, seed) for key in keys]
    return pd.DataFrame({"digest": pool.digests, "split": split, "group": group})


def table(pool, manifest, **settings):
    given = EvaluateParams(**{"repeats": 20} | settings)
    return repeats.repeated(manifest, pool, ABOUT, given, IngestParams(), TrainParams())


def test_mean_and_interval_are_those_of_the_same_head_elsewhere():
    pool = blobs(300, 0, distance=0.5)
    found = table(pool, drawn_manifest(pool)).set_index("measure")
    assert found.index.tolist() == [
        "accuracy", "balanced_accuracy", "top_3_accuracy", "macro_f1"
    ]  # fmt: skip
    accuracy = found.loc["accuracy"]
    assert 0 < accuracy["low"] < accuracy["mean"] < accuracy["high"] < 1
    assert (accuracy["repeats"], accuracy["given_split"]) == (20, False)
    # Other draws of the same examples agree.
    other = table(pool, drawn_manifest(pool), seed=1).set_index("measure").loc["accuracy"]
    assert accuracy["mean"] != other["mean"]
    assert accuracy["low"] < other["mean"] < accuracy["high"]


def test_a_split_that_ingest_did_not_draw_is_told():
    pool = blobs(60, 0)
    manifest = drawn_manifest(pool)
    manifest.loc[7, "split"] = {"train": "test"}.get(manifest.loc[7, "split"], "train")
    assert table(pool, manifest, repeats=2)["given_split"].all()
    assert not table(pool, drawn_manifest(pool), repeats=2)["given_split"].any()


def test_an_example_that_ingest_lent_to_val_is_no_split_of_the_source():
    pool = blobs(60, 0)
    manifest = drawn_manifest(pool)
    moved = manifest.index == manifest.index[manifest["split"] == "train"][0]
    manifest.loc[moved, "split"] = "val"
    asked, alone = EvaluateParams(repeats=2), np.where(moved, "rare", "common")
    for labels, lends, given in ((alone, True, False), (alone, False, True), ("one", True, True)):
        drawing = IngestParams(val_of_each_class=lends)
        of = manifest.assign(label=labels), pool, ABOUT, asked, drawing, TrainParams()
        assert set(repeats.repeated(*of)["given_split"]) == {given}


def test_top_k_of_a_head_with_class_weights_is_left_out():
    pool = blobs(60, 0)
    calibration = Calibration(prior_shift=[0.5, -0.2, -0.3], thresholds=[0.5, 0.3, 0.2])
    about, training = replace(ABOUT, calibration=calibration), TrainParams(class_weights="balanced")
    asked = EvaluateParams(repeats=2)
    found = repeats.repeated(drawn_manifest(pool), pool, about, asked, IngestParams(), training)
    assert found["measure"].tolist() == ["accuracy", "balanced_accuracy", "macro_f1"]


def test_groups_are_not_divided(monkeypatch):
    pool, seen = blobs(100, 0), []

    def noted(pool, learnt, asked, *rest):
        seen.extend([*learnt, *asked])
        return [np.eye(3)[pool.labels[rows]] for rows in asked]

    monkeypatch.setattr(repeats, "on_subsets", noted)
    table(pool, drawn_manifest(pool, groups=True))
    for mask in seen:
        assert (mask.reshape(20, 5) == mask.reshape(20, 5)[:, :1]).all()
    for learnt, asked in zip(seen[:20], seen[20:], strict=True):
        assert (learnt ^ asked).all()


def test_the_interval_is_wider_than_that_of_independent_runs():
    values = np.random.default_rng(0).normal(0.8, 0.03, 50)
    mean, low, high = repeats.interval(values, 0.25, 0.95)
    assert mean == pytest.approx(values.mean())
    # Nadeau and Bengio: 1/50 + 1/4 of the variance.
    half = 2.0096 * values.std(ddof=1) * np.sqrt(0.27)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=1e-4)
    assert repeats.interval(np.array([0.99, 1.0]), 0.25, 0.95)[2] == 1


def test_too_few_examples_to_draw_from_are_told():
    pool = blobs(3, 0)  # of a class each
    with pytest.raises(DataError, match=r"evaluate\.repeats is 2, but only 0 of 40 random"):
        table(pool, drawn_manifest(pool), repeats=2)

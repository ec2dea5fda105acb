"""The learning curve: nested draws, heads that see no validation picture, and its table."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.core.errors import DataError
from pipeline.core.paths import (
    FEATURES,
    HEAD,
    HEAD_WEIGHTS,
    LEARNING_CURVE,
    LEARNING_CURVE_PLOT,
    MANIFEST,
)
from pipeline.heads.head import load_head
from pipeline.learning_curve import learning_curve
from pipeline.tables.features import read_splits
from pipeline.tables.manifest import read_manifest
from pipeline.train import train
from pipeline.transfer.draws import drawn, interval, numbers
from tests.test_train import COUNTS, make_features


@pytest.fixture
def asked_project(project):
    """Features of three classes and a trained head."""
    make_features(COUNTS, views=2)
    project.set(
        **{"train.device": "cpu", "learning_curve.run": ["asked"], "learning_curve.draws": 3}
    )
    train()
    return project


def split(name):
    return read_splits(FEATURES, read_manifest(MANIFEST), sorted(COUNTS["train"]), [name])[name]


def test_more_pictures_help_and_the_table_says_so_twice_in_the_same_bytes(asked_project):
    learning_curve()
    table = pd.read_csv(LEARNING_CURVE)
    assert table["examples_per_class"].tolist() == sorted([1, 2, 4, 8, 16, 30] * 2)
    assert set(table["views"]) == {"original", "augmented"}
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()
    # A class that has but 20 pictures gives them all.
    assert table["examples"].tolist()[-1] == 80
    of_one, of_all = (table.loc[table["examples_per_class"] == n, "accuracy"] for n in (1, 30))
    assert of_one.mean() < of_all.mean()
    with Image.open(LEARNING_CURVE_PLOT) as picture:
        assert picture.format == "PNG"
    first = LEARNING_CURVE.read_bytes(), LEARNING_CURVE_PLOT.read_bytes()
    learning_curve()
    assert (LEARNING_CURVE.read_bytes(), LEARNING_CURVE_PLOT.read_bytes()) == first


def test_all_pictures_give_the_head_of_the_train_stage(asked_project):
    asked_project.set(**{"train.refit": False})
    train()
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    val = read_splits(FEATURES, read_manifest(MANIFEST), about.classes, ["val"], about.power)
    right = head.logits(val["val"].features).argmax(axis=1) == val["val"].labels
    learning_curve()
    table = pd.read_csv(LEARNING_CURVE)
    assert table["accuracy"].iloc[-1] == pytest.approx(right.mean(), abs=1e-6)


def test_without_augmented_views_there_is_one_curve(project):
    make_features(COUNTS, views=0)
    project.set(**{"learning_curve.run": ["asked"], "learning_curve.draws": 2})
    train()
    learning_curve()
    assert set(pd.read_csv(LEARNING_CURVE)["views"]) == {"original"}


def test_without_validation_pictures_it_says_what_to_do(asked_project):
    make_features({split: of for split, of in COUNTS.items() if split != "val"})
    with pytest.raises(
        DataError, match=r"learning_curve has no validation example.*ingest\.shares\.val"
    ):
        learning_curve()


def test_a_head_that_descends_gets_the_epochs_that_were_kept(asked_project):
    asked_project.set(**{"train.optimizer": "adamw", "train.epochs": 3, "train.batch_size": 16})
    train()
    assert json.loads(HEAD.read_text())["epoch"] <= 3
    learning_curve()
    assert pd.read_csv(LEARNING_CURVE)["accuracy"].iloc[-1] > 0.4


def test_draws_are_nested_balanced_and_differ(project):
    make_features(COUNTS, views=2)
    rows = split("train")
    small, large, other = (
        drawn(rows, count, draw, augmented=True) for count, draw in ((4, 0), (8, 0), (4, 1))
    )
    assert set(small.digests) < set(large.digests)
    assert set(small.digests) != set(other.digests)
    assert np.bincount(small.labels).tolist() == [12, 12, 12]  # four pictures, three views each
    assert drawn(rows, 4, 0, augmented=False).views.tolist() == [0] * 12


def test_the_numbers_double_and_end_with_all():
    assert numbers(1) == [1]
    assert numbers(8) == [1, 2, 4, 8]
    assert numbers(24) == [1, 2, 4, 8, 16, 24]


def test_the_interval_covers_both_draws_and_pictures():
    generator = np.random.default_rng(5)
    # The same answers in every draw: what is left is the spread over the pictures.
    one = generator.random(100) < 0.8
    mean, low, high = interval(np.stack([one] * 5), 0.95)
    half = 1.96 * np.sqrt(mean * (1 - mean) / 100)
    assert high - low == pytest.approx(2 * half, rel=0.1)
    # Draws that disagree make it wider.
    draws = np.stack([generator.random(100) < share for share in (0.4, 0.8, 0.9)])
    assert np.ptp(interval(draws, 0.95)[1:]) > 2 * half


def test_groups_of_pictures_are_drawn_as_one():
    right = np.random.default_rng(5).random(10) < 0.8
    answers, groups = np.stack([np.repeat(right, 10)] * 5), np.repeat(np.arange(10), 10)
    alone, together = (np.ptp(interval(answers, 0.95, of)[1:]) for of in (None, groups))
    assert together > 2.5 * alone

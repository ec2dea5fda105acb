"""The map: places by the principal axes, in the same order and with the same signs each time."""

import numpy as np
import pandas as pd
import pytest

from pipeline.quality import map as mapping
from pipeline.quality.doubtful import unanswered
from pipeline.quality.landmarks import GRID
from pipeline.quality.map import NEAREST, chosen, drawn, neighbours, placed


def features_of(examples, dimension=60, seed=0):
    """Three clouds, whose first two axes stand out."""
    random = np.random.default_rng(seed)
    middles = 2 * random.standard_normal((3, dimension))
    noise = random.standard_normal((examples, dimension))
    return (middles[np.arange(examples) % 3] + noise).astype(np.float32)


def rows_of(examples):
    numbers = np.arange(examples)
    splits = np.where(numbers % 5 == 0, "test", "train")
    digests = [f"{7919 * number % examples:064x}" for number in numbers]
    return pd.DataFrame({"digest": digests, "path": numbers.astype(str), "split": splits})


def test_the_plane_is_that_of_the_first_two_principal_axes():
    features = features_of(300)
    found = placed(features)
    centred = (features - features.mean(axis=0)).astype(np.float64)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    for axis in range(2):
        row = axes[axis] * np.sign(axes[axis][np.abs(axes[axis]).argmax()])
        assert np.corrcoef(found.places[:, axis], centred @ row)[0, 1] > 0.9999
    assert found.places.min() == 0
    assert found.places.max() == GRID


def test_what_none_of_the_axes_shows_is_novel():
    features = features_of(300)
    apart = 0.4 * features_of(300, seed=1)[7]
    ordinary = placed(features).novelty
    features[7] += apart - apart.mean()
    novel = placed(features).novelty
    assert np.median(ordinary) == pytest.approx(1)
    assert novel[7] > 1.2 * ordinary[7]


def test_ten_more_examples_move_the_median_by_at_most_a_hundredth_of_the_plane():
    features = features_of(1010)
    before, after = placed(features[:1000]).places, placed(features).places[:1000]
    assert np.median(np.abs(after - before)) <= GRID / 100
    assert (placed(features).places[:1000] == after).all()


@pytest.mark.parametrize("examples", [1, 2, 5])
def test_few_or_equal_examples_have_places_too(examples):
    for features in (features_of(examples), np.ones((examples, 3), np.float32)):
        found = placed(features)
        assert found.places.shape == (examples, 2)
        assert np.isfinite(found.novelty).all()
        assert neighbours(features).shape == (examples, NEAREST)


def test_test_examples_and_findings_come_first(monkeypatch):
    monkeypatch.setattr(mapping, "MOST", 30)
    rows = rows_of(100)
    at = chosen(rows, {"1", "2", "3"})
    assert len(at) == 30
    assert set(at) >= {*range(0, 100, 5), 1, 2, 3}
    others = rows.drop(at).query("split == 'train'")["digest"]
    drawn_at = [place for place in at if place % 5 and place not in (1, 2, 3)]
    assert rows["digest"][drawn_at].max() < others.min()


def test_neighbours_are_the_nearest_on_the_map(monkeypatch):
    rows, features = rows_of(30), features_of(30)
    table = drawn(rows, features, unanswered(30), set())
    assert list(table["digest"]) == list(rows["digest"])
    centred = features - features.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    cosines = centred @ centred.T - 5 * np.eye(30)
    assert list(table["near_1"]) == list(rows["digest"][cosines.argmax(axis=1)])
    monkeypatch.setattr(mapping, "EXACT", 20)
    monkeypatch.setattr(mapping, "BROAD", 10)
    monkeypatch.setattr(mapping, "ROWS", 7)
    near = drawn(rows, features, unanswered(30), set())
    both = zip(
        table.filter(like="near_").to_numpy(), near.filter(like="near_").to_numpy(), strict=True
    )
    assert np.mean([len({*one} & {*other}) for one, other in both]) > NEAREST / 2
    few = drawn(rows[:3], features[:3], unanswered(3), set())
    assert set(few["near_3"]) == {""}

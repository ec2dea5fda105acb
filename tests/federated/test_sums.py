"""Sums of several sites make the head that all their rows make."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.federated import sums
from pipeline.heads import closed_forms
from pipeline.heads.fit import fit_heads
from pipeline.heads.head import probabilities
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule
from tests.heads.test_fit import NO_VAL, blobs

CLASSES = ("ants", "bees", "moths", "wasps")
# Sites have some classes each, and as many rows as they have.
OF_SITES = ({0, 1}, {1, 2, 3}, {0, 3})


def pool(rows=240, seed=0, distance=1.0):
    return blobs(rows, seed, len(CLASSES), distance=distance)


def dealt(split):
    """The sums of each site, none of whose rows another one has."""
    random = np.random.default_rng(5)
    holders = [[s for s, has in enumerate(OF_SITES) if c in has] for c in range(len(CLASSES))]
    place = np.array([random.choice(holders[label]) for label in split.labels])
    parts = []
    for site, has in enumerate(OF_SITES):
        own, names = place == site, sorted(has)
        labels = np.searchsorted(names, split.labels[own])
        parts.append(sums.of(split.features[own], labels, [CLASSES[c] for c in names]))
    return parts


@pytest.mark.parametrize("optimizer", sums.SOLVERS)
def test_the_joined_head_is_the_pooled_one(optimizer):
    split, new = pool(), pool(100, 1)
    whole = sums.joined(dealt(split))
    assert whole.classes == CLASSES
    assert whole.total == len(split.labels)
    pooled = sums.of(split.features, split.labels, CLASSES)
    for decay in (0.001, 0.1):
        (one,), (other,) = (sums.SOLVERS[optimizer](part, [decay]) for part in (whole, pooled))
        wanted = other.logits(new.features)
        assert np.abs(one.logits(new.features) - wanted).max() <= 1e-10 * np.abs(wanted).max()


@pytest.mark.parametrize("optimizer", sums.SOLVERS)
def test_it_is_the_head_of_train_but_for_float32_and_its_scale(optimizer):
    split, new = pool(), pool(100, 1)
    knobs = Hyperparameters(optimizer, 0, 0.01, 0, 0, 0, 0)
    ones = np.ones(len(CLASSES), np.float32)
    (trained,) = fit_heads(split, NO_VAL, [knobs], Schedule(1, 1, 0, ones), "cpu")
    (solved,) = sums.SOLVERS[optimizer](sums.joined(dealt(split)), [0.01])
    wanted, got = trained.head.logits(new.features), solved.logits(new.features) * trained.scale
    np.testing.assert_allclose(got, wanted, atol=1e-3 * np.abs(wanted).max())


def test_the_sites_join_in_any_order_and_one_may_come_late():
    parts = dealt(pool())
    at_once = sums.joined(parts)
    late = sums.joined([sums.joined([parts[2], parts[0]]), parts[1]])
    assert late.classes == at_once.classes
    for name in ("gram", "class_sums", "rows"):
        np.testing.assert_allclose(getattr(late, name), getattr(at_once, name), rtol=1e-12)


def test_moments_are_those_of_the_rows():
    split = pool()
    whole = sums.joined(dealt(split))
    features = split.features.astype(np.float64)
    np.testing.assert_allclose(whole.mean, features.mean(axis=0))
    np.testing.assert_allclose(whole.covariance, np.cov(features.T, bias=True), atol=1e-10)
    means = np.stack([features[split.labels == c].mean(axis=0) for c in range(len(CLASSES))])
    np.testing.assert_allclose(whole.class_means, means)
    within = np.cov((features - means[split.labels]).T, bias=True)
    np.testing.assert_allclose(whole.within, within, atol=1e-10)


def test_the_triangle_comes_back_as_the_matrix():
    matrix = sums.of(pool().features, pool().labels, CLASSES).gram
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(sums.symmetric(sums.packed(matrix)), matrix)
    np.testing.assert_allclose(matrix, pool().features.astype(float).T @ pool().features)


def test_the_squared_error_of_a_head_is_told_exactly_from_sums():
    split, new = pool(), pool(80, 3)
    (head,) = sums.ridge(sums.of(split.features, split.labels, CLASSES), [0.1])
    told = sums.squared_error(head, sums.of(new.features, new.labels, CLASSES))
    wanted = np.square(head.logits(new.features) - np.eye(len(CLASSES))[new.labels]).sum()
    assert told == pytest.approx(wanted, rel=1e-9)


def test_sums_alone_choose_the_penalty_that_new_rows_would():
    decays = [1e-6, 0.1, 1000.0]
    few, new = (blobs(n, n, len(CLASSES), dimension=40) for n in (60, 2000))
    whole = sums.of(few.features, few.labels, CLASSES)
    heads = sums.ridge(whole, decays)
    wanted = [np.square(h.logits(new.features) - np.eye(4)[new.labels]).sum() for h in heads]
    assert sums.best(whole, decays) == int(np.argmin(wanted)) == 1


@pytest.mark.parametrize("optimizer", sums.SOLVERS)
@pytest.mark.parametrize("rows", [60, 400])
def test_probabilities_are_about_as_sure_as_new_rows_say(optimizer, rows):
    whole, new = sums.joined(dealt(pool(rows, distance=0.5))), pool(2000, 9, distance=0.5)
    (head,) = sums.SOLVERS[optimizer](whole, [0.1])
    logits = head.logits(new.features)

    def loss(scale):
        shares = probabilities(logits * scale)[np.arange(len(logits)), new.labels]
        return -np.log(shares).mean()

    best = closed_forms.fair_scale(logits, new.labels)
    assert loss(sums.fair_scale(whole, head, optimizer, 0.1)) < loss(best) + 0.02


def test_noise_raises_the_penalty_to_what_noise_alone_would_show():
    exact = sums.joined(dealt(pool()))
    random = np.random.default_rng(0).standard_normal(exact.gram.shape)
    loud = replace(exact, gram=exact.gram + 1e5 * (random + random.T) / 2**0.5, noise=1e5)
    (head,) = sums.ridge(loud, [1e-6])
    assert np.isfinite(head.weight).all()
    assert np.linalg.eigvalsh(sums.possible(loud).within)[0] > -1e-6 * np.abs(loud.gram).max()
    assert np.abs(head.weight).max() < np.abs(sums.ridge(exact, [1e-6])[0].weight).max()

"""Features that are aligned with another domain, and classes that come in other shares."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from pipeline.transfer import coral, domains, prior_shift


def rows(count: int, dimension: int, seed: int) -> np.ndarray:
    """Rows whose features vary together, around a mean of their own."""
    random = np.random.default_rng(seed)
    mixed = np.eye(dimension) + random.normal(size=(dimension, dimension)) / (2 * dimension)
    mean = random.normal(size=dimension)
    return (random.normal(size=(count, dimension)) @ mixed + mean).astype(np.float32)


def test_aligned_features_have_the_mean_and_the_covariance_of_the_target() -> None:
    source, target = rows(20000, 5, 0), rows(30000, 5, 1)
    aligned = coral.fitted(source, target).aligned(source)
    np.testing.assert_allclose(aligned.mean(axis=0), target.mean(axis=0), atol=1e-4)
    # With so many rows next to nothing is shrunk.
    np.testing.assert_allclose(np.cov(aligned.T), np.cov(target.T), atol=5e-3)


@pytest.mark.parametrize(("ours", "theirs"), [(60, 40), (500, 300)])
def test_the_shrunk_covariances_are_mapped_to_each_other(ours: int, theirs: int) -> None:
    source, target = rows(ours, 150, 0), rows(theirs, 150, 1)
    found = coral.fitted(source, target)
    basis = found.basis
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-10)
    of_source, spread = coral.covariance((source - source.mean(axis=0)) @ basis, np.ones(ours))
    of_source = coral.shrunk_to_identity(of_source, spread, 150)
    of_target, spread = coral.covariance((target - target.mean(axis=0)) @ basis, np.ones(theirs))
    of_target = coral.shrunk(of_target, spread, of_source)
    np.testing.assert_allclose(found.turn.T @ of_source @ found.turn, of_target, atol=1e-6)


def test_the_source_is_shrunk_as_scikit_learn_does_it() -> None:
    features = rows(80, 30, 0).astype(np.float64)
    centred = features - features.mean(axis=0)
    found, spread = coral.covariance(centred, np.ones(80))
    wanted, _ = ledoit_wolf(features)
    np.testing.assert_allclose(coral.shrunk_to_identity(found, spread, 30), wanted, atol=1e-10)


def test_few_target_rows_move_the_features_and_hardly_turn_them() -> None:
    source, target = rows(2000, 40, 0), rows(8, 40, 1)
    aligned = coral.fitted(source, target).aligned(source)
    np.testing.assert_allclose(aligned.mean(axis=0), target.mean(axis=0), atol=1e-3)
    before, after = (one - one.mean(axis=0) for one in (source, aligned))
    cosines = (before * after).sum(axis=1) / np.linalg.norm(before, axis=1)
    assert (cosines / np.linalg.norm(after, axis=1)).mean() > 0.8


def test_the_same_rows_stay_where_they_are() -> None:
    source = rows(5000, 6, 0)
    np.testing.assert_allclose(coral.fitted(source, source).aligned(source), source, atol=1e-3)


def test_a_feature_that_never_varies_is_no_harm() -> None:
    source, target = rows(50, 4, 0), rows(50, 4, 1)
    source[:, 2] = target[:, 2] = 3
    assert np.isfinite(coral.fitted(source, target).aligned(source)).all()


def gaussians(shares: list[float], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of three classes, which overlap, in these shares."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, size=count, p=shares)
    means = np.array([[0, 0], [2, 0], [0, 2]])
    return means[labels] + random.normal(size=(count, 2)), labels


def test_shares_of_classes_are_found_and_make_answers_better() -> None:
    features, labels = gaussians([0.4, 0.3, 0.3], 20000, 0)
    source = np.bincount(labels) / len(labels)
    head = LinearDiscriminantAnalysis().fit(features, labels)
    target, truth = gaussians([0.1, 0.2, 0.7], 5000, 1)
    probabilities = head.predict_proba(target)
    found = prior_shift.shares(probabilities, source)
    np.testing.assert_allclose(found, [0.1, 0.2, 0.7], atol=0.02)
    # The head that is told the true shares answers the same.
    told = LinearDiscriminantAnalysis(priors=found).fit(features, labels).predict(target)
    adjusted = (probabilities * (found / source)).argmax(axis=1)
    assert (adjusted == told).mean() > 0.995
    assert (adjusted == truth).mean() > (probabilities.argmax(axis=1) == truth).mean() + 0.03


def test_shares_stay_where_nothing_tells_of_others() -> None:
    source = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(prior_shift.shares(np.tile(source, (50, 1)), source), source)
    assert (prior_shift.shares(np.tile([1.0, 0, 0], (5, 1)), source) > 0).all()


def test_the_kernel_test_tells_domains_apart_and_raises_few_alarms() -> None:
    alarms = [domains.apart(rows(60, 20, 2)[:30], rows(60, 20, 2)[30:], seed) for seed in (0, 1)]
    assert min(alarms) > 0.05
    assert domains.apart(rows(60, 20, 0), rows(60, 20, 0) + np.float32(0.8)) == 0.001


def test_rows_are_taken_in_the_shares_that_are_asked_for() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    taken = labels[domains.in_shares(labels, np.array([0.25, 0.5, 0.25]))]
    np.testing.assert_array_equal(np.bincount(taken), [10, 20, 10])
    every = domains.in_shares(labels, np.array([0.6, 0.3, 0.1]))
    np.testing.assert_array_equal(every, np.arange(100))


def test_classes_that_are_predicted_more_often_are_told_from_chance() -> None:
    same, other = np.repeat([0, 1], [50, 50]), np.repeat([0, 1], [90, 10])
    assert domains.other_shares(same, same, 3) == 1
    assert domains.other_shares(same, other, 3) < 1e-8
    assert domains.other_shares(same[:5], same[:5], 3) == 1  # one class in both

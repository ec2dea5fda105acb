"""Features that are aligned with another domain."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from pipeline.transfer import coral


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

"""LogME against the evidence written out, and on features that do or do not tell classes apart."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from pipeline.transfer.logme import logme


def made_up(apart, rows=40, dimension=6, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    centres = apart * generator.standard_normal((3, dimension))
    features = centres[labels] + generator.standard_normal((rows, dimension))
    return features.astype(np.float32), labels


def highest_evidence(features, wanted):
    """By the density of the targets, N(0, I / β + F Fᵀ / α), at its best α and β."""

    def negative(powers):
        alpha, beta = np.exp(powers)
        spread = np.eye(len(wanted)) / beta + features @ features.T / alpha
        return -multivariate_normal.logpdf(wanted, cov=spread)

    found = minimize(negative, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6})
    return -found.fun / len(wanted)


@pytest.mark.parametrize("dimension", [6, 60])
@pytest.mark.parametrize("apart", [0.5, 2])
def test_it_is_the_highest_evidence_of_the_linear_model(apart, dimension):
    features, labels = made_up(apart, dimension=dimension)
    wide = features.astype(np.float64)
    direct = np.mean([highest_evidence(wide, (labels == c) * 1.0) for c in range(3)])
    assert logme(features, labels, 3) == pytest.approx(direct, abs=1e-5)


def test_better_features_score_higher_and_the_scale_does_not_matter():
    scores = [logme(*made_up(apart, rows=120), 3) for apart in (0, 0.5, 1, 3)]
    assert scores == sorted(scores)
    features, labels = made_up(1)
    assert logme(100 * features, labels, 3) == pytest.approx(logme(features, labels, 3), abs=1e-6)


def test_features_that_fit_exactly_are_no_error():
    features, labels = made_up(1, rows=12, dimension=200)
    assert np.isfinite(logme(features, labels, 3))


def test_pictures_that_are_all_alike_are_no_error():
    score = logme(np.ones((10, 4), np.float32), np.arange(10) % 2, 2)
    assert np.isfinite(score)

"""A threshold for each label: the best F1 on validation examples, and 0.5 if none shows one."""

import numpy as np
import pytest

from pipeline.heads.calibration import calibrated, fit_priors, fit_thresholds, log_priors
from pipeline.heads.fit import class_weights
from pipeline.heads.head import Head, fit_temperature, probabilities, sigmoid, with_priors
from pipeline.heads.losses import cell_losses

GENERATOR = np.random.default_rng(0)


def f1(there, said):
    return 2 * (said & (there == 1)).sum() / (said.sum() + there.sum())


def test_no_other_threshold_has_a_much_better_f1():
    labels = (GENERATOR.random((200, 3)) < [0.5, 0.2, 0.05]).astype(float)
    shares = sigmoid(GENERATOR.standard_normal((200, 3)) + 2 * labels - 1)
    shares[:, 0] = np.round(shares[:, 0], 1)  # many are equal
    labels[GENERATOR.random((200, 3)) < 0.1] = np.nan
    thresholds = fit_thresholds(shares, labels)
    for share, told, threshold in zip(shares.T, labels.T, thresholds, strict=True):
        share, told = share[~np.isnan(told)], told[~np.isnan(told)]
        best = max(f1(told, share > cut) for cut in np.linspace(0.001, 0.999, 999))
        error = np.sqrt(best * (1 - best) / told.sum())
        assert f1(told, share > threshold) >= best - error / 2 - 1e-9


@pytest.mark.parametrize("label", [0.0, 1.0, np.nan])
def test_a_label_that_validation_cannot_tell_has_the_usual_threshold(label):
    assert fit_thresholds(np.full((4, 1), 0.2), np.full((4, 1), label)) == [0.5]


def test_without_examples_all_are_usual():
    assert fit_thresholds(np.zeros((0, 2)), np.zeros((0, 2))) == [0.5, 0.5]


def test_of_equals_the_one_nearest_to_half_of_f1_and_never_0_or_1():
    shares = np.array([[0.9], [0.6], [0.55], [0.1]])
    assert fit_thresholds(shares, np.array([[1.0], [0], [0], [0]])) == [0.75]
    sure = fit_thresholds(np.array([[1.0], [1 - 1e-12], [0.0]]), np.array([[1.0], [0], [1]]))
    assert 0 < sure[0] < 1


def test_a_threshold_is_no_slave_of_a_few_examples():
    labels = (GENERATOR.random((60, 40)) < 0.3).astype(float)
    shares = sigmoid(2 * GENERATOR.standard_normal((60, 40)) + 4 * labels - 3)
    found = np.array(fit_thresholds(shares, labels))
    assert found.std() < 0.15


def test_one_temperature_for_all_labels_is_the_one_with_the_least_loss():
    labels = GENERATOR.integers(0, 2, (1500, 3)).astype(float)
    told = (GENERATOR.standard_normal((1500, 3)) + 1.5 * (2 * labels - 1)).astype(np.float32)
    labels[GENERATOR.random((1500, 3)) < 0.3] = np.nan

    def loss(logits, temperature):
        return np.nanmean(cell_losses("binary", logits / temperature, labels))

    for factor in (0.2, 5.0):
        fitted = fit_temperature(factor * told, labels)
        assert loss(factor * told, fitted) < loss(factor * told, 0.9 * fitted)
        assert loss(factor * told, fitted) < loss(factor * told, 1.1 * fitted)


def test_a_few_examples_that_are_all_right_make_no_label_certain():
    labels = np.array([[1.0, 0], [0, 1], [1, 0]])
    logits = (10 * labels - 5).astype(np.float32)
    assert 0.8 < sigmoid(logits, fit_temperature(logits, labels)).max() < 0.99
    assert fit_temperature(logits, np.full((3, 2), np.nan)) == 1
    assert fit_temperature(logits[:0], labels[:0]) == 1


@pytest.mark.parametrize("several", [False, True])
def test_weighted_logits_get_the_shares_back_that_they_lack(several):
    """Balanced logits of three classes, or labels, that are too sure by a factor of two."""
    random, shares = np.random.default_rng(7), np.array([0.7, 0.25, 0.05])
    if several:
        labels = (random.random((6000, 3)) < shares).astype(float)
        right = 2 * (labels - 0.5) + random.standard_normal((6000, 3)) * np.sqrt(2)
        lacking = np.log(shares / (1 - shares))
        answer = sigmoid
    else:
        labels = random.choice(3, 6000, p=shares)
        right = np.eye(3)[labels] * 2 + random.standard_normal((6000, 3)) * np.sqrt(2)
        lacking = np.log(shares)
        answer = probabilities
    logits = (2 * right).astype(np.float32)
    weights = class_weights("balanced", labels, 3)
    temperature, strength = fit_priors(logits, labels, log_priors(weights))
    assert temperature == pytest.approx(2, rel=0.1)
    assert strength == pytest.approx(1, abs=0.08)
    about = calibrated(logits, labels, "multilabel" if several else "classification", weights)
    head = with_priors(Head(np.eye(3, dtype=np.float32), np.zeros(3, np.float32)), about)
    found = answer(head.logits(logits), about.temperature)
    np.testing.assert_allclose(found, answer(right + lacking), atol=0.04)
    np.testing.assert_allclose(found.mean(axis=0), shares, atol=0.02)
    if not several:
        np.testing.assert_allclose(about.thresholds, shares, atol=0.02)


def test_a_head_that_hardly_feels_its_weights_gets_little_back():
    """Logits that expect the classes as they are, though they were trained with weights."""
    random, labels = np.random.default_rng(8), np.arange(4000) % 10 == 0
    right = np.stack([np.zeros(4000), 2 * labels - 1 + random.standard_normal(4000)], axis=1)
    right[:, 1] = 2 * right[:, 1] + np.log(1 / 9)
    weights = class_weights("balanced", labels.astype(np.int64), 2)
    of = right.astype(np.float32), labels.astype(np.int64), log_priors(weights)
    temperature, strength = fit_priors(*of)
    assert strength == pytest.approx(0, abs=0.08)
    assert temperature == pytest.approx(1, rel=0.1)
    none = (of[0][:0], of[1][:0], of[2])
    assert fit_priors(*none) == (1.0, 1.0)

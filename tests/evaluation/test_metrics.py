"""The measures are scikit-learn's where it has them, and a resample is measured like the whole."""

import warnings
from functools import partial

import numpy as np
import pytest
from sklearn import metrics

from pipeline.evaluation.metrics import bootstrap, interval, resample, scores, weighted


def answers(pictures=200, classes=5, seed=0):
    """Labels, and probabilities that are right more often than not."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=pictures)
    logits = generator.standard_normal((pictures, classes)) + 1.5 * np.eye(classes)[labels]
    shares = np.exp(logits)
    return labels, shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 5])
def test_measures_equal_scikit_learns(classes):
    labels, shares = answers(classes=classes)
    predicted = shares.argmax(axis=1)
    got = scores(labels, shares, top_k=2, bins=10)
    overall = {name: float(value[0]) for name, value in got.overall.items()}
    assert overall.pop("calibration_error") > 0
    top_2 = (
        metrics.top_k_accuracy_score(labels, shares, k=2, labels=range(classes))
        if classes > 2
        else 1.0
    )
    assert overall == pytest.approx(
        {
            "loss": metrics.log_loss(labels, shares),
            "accuracy": metrics.accuracy_score(labels, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted),
            "top_2_accuracy": top_2,
            "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
        }
    )
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels, predicted)
    np.testing.assert_allclose(got.of_class["precision"][0], precision)
    np.testing.assert_allclose(got.of_class["recall"][0], recall)
    np.testing.assert_allclose(got.of_class["f1"][0], f1)


def test_calibration_error_by_hand():
    # Bin (0.5, 0.6]: sure of 0.6, right 1 of 2; bin (0.9, 1.0]: sure of 0.95, right 2 of 2.
    shares = np.array([[0.6, 0.4], [0.4, 0.6], [0.95, 0.05], [0.05, 0.95]])
    got = scores(np.array([0, 0, 0, 1]), shares, top_k=1, bins=10).overall
    assert got["calibration_error"][0] == pytest.approx((2 * 0.1 + 2 * 0.05) / 4)


def test_a_share_on_the_edge_of_a_bin_belongs_below_and_1_to_the_last():
    shares = np.array([[0.5, 0.5], [1.0, 0.0]])
    got = scores(np.array([0, 0]), shares, top_k=1, bins=2).overall
    assert got["calibration_error"][0] == pytest.approx((0.5 + 0) / 2)


def test_equal_shares_rank_in_the_order_of_the_classes():
    shares = np.full((3, 3), 1 / 3)
    got = scores(np.array([0, 1, 2]), shares, top_k=2, bins=5).overall
    assert got["accuracy"][0] == pytest.approx(1 / 3)
    assert got["top_2_accuracy"][0] == pytest.approx(2 / 3)


def test_an_absent_class_is_undefined_and_left_out_of_the_means():
    labels, shares = answers()
    kept = labels != 3
    labels, shares = labels[kept], shares[kept]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = scores(labels, shares, top_k=2, bins=10)
        resampled = bootstrap(labels, shares, 2, 10, resamples=50, seed=0)
        low, high = interval(resampled.of_class["recall"], 0.9)
    present = [0, 1, 2, 4]
    assert np.isnan(got.of_class["recall"][0, 3])
    assert np.isnan(got.of_class["f1"][0, 3])
    assert got.of_class["precision"][0, 3] == 0
    assert np.isnan([low[3], high[3]]).all()
    assert np.isfinite([low[present], high[present]]).all()
    recall = metrics.recall_score(labels, shares.argmax(1), labels=present, average="macro")
    f1 = metrics.f1_score(labels, shares.argmax(1), labels=present, average="macro")
    assert got.overall["balanced_accuracy"][0] == pytest.approx(recall)
    assert got.overall["macro_f1"][0] == pytest.approx(f1)


def test_the_precision_of_a_class_that_is_never_predicted_is_undefined():
    shares = np.array([[0.9, 0.1], [0.8, 0.2]])
    got = scores(np.array([0, 1]), shares, top_k=1, bins=5)
    assert got.of_class["precision"][0, 0] == 0.5
    assert np.isnan(got.of_class["precision"][0, 1])
    assert got.of_class["f1"][0, 1] == 0


def test_a_resample_is_measured_as_its_pictures_are():
    labels, shares = answers(pictures=60)
    got = bootstrap(labels, shares, 2, 10, resamples=20, seed=7)
    drawn = np.random.default_rng(7).integers(60, size=(20, 60))
    for number, rows in enumerate(drawn):
        whole = scores(labels[rows], shares[rows], 2, 10)
        for name, values in got.overall.items():
            if name != "macro_f1":  # a class that was not drawn counts there when it is predicted
                assert values[number] == pytest.approx(whole.overall[name][0])
        np.testing.assert_allclose(got.of_class["recall"][number], whole.of_class["recall"][0])


def test_resamples_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    labels, shares = answers()
    whole = bootstrap(labels, shares, 2, 10, resamples=30, seed=1)
    monkeypatch.setattr("pipeline.evaluation.metrics.AT_ONCE", 7 * len(labels))
    parts = bootstrap(labels, shares, 2, 10, resamples=30, seed=1)
    for name, values in whole.overall.items():
        np.testing.assert_allclose(parts.overall[name], values)


def test_the_interval_of_accuracy_is_about_that_of_a_share():
    labels, shares = answers(pictures=400)
    accuracy = scores(labels, shares, 1, 10).overall["accuracy"][0]
    low, high = interval(bootstrap(labels, shares, 1, 10, 2000, 0).overall["accuracy"], 0.95)
    error = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 400)
    assert low == pytest.approx(accuracy - error, abs=0.01)
    assert high == pytest.approx(accuracy + error, abs=0.01)


def test_a_wider_confidence_has_a_wider_interval():
    resampled = np.random.default_rng(0).standard_normal((1000, 3))
    narrow, wide = interval(resampled, 0.5), interval(resampled, 0.99)
    assert (wide[0] < narrow[0]).all()
    assert (narrow[1] < wide[1]).all()


def test_whole_groups_are_drawn_and_single_examples_as_before():
    labels, shares = answers(pictures=60)
    weigh = partial(weighted, labels=labels, probabilities=shares, top_k=2, bins=10)
    groups = np.arange(60) // 10
    got = resample(weigh, 60, 5, 20, 7, groups).overall["loss"]
    drawn = np.random.default_rng(7).integers(6, size=(20, 6))
    for number, chosen in enumerate(drawn):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in chosen])
        whole = scores(labels[rows], shares[rows], 2, 10).overall["loss"][0]
        assert got[number] == pytest.approx(whole)
    alone, single = (resample(weigh, 60, 5, 20, 7, of) for of in (None, np.arange(60)[::-1]))
    for name, values in alone.overall.items():
        assert (values == single.overall[name]).all()

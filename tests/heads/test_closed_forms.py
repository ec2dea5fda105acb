"""Closed forms reach the optimum that they are named for, in the units that descent uses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid

from pipeline.heads.fit import fit_heads
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule
from tests.heads.test_fit import CPU, NO_VAL, TRAIN, VAL, blobs

LBFGS = Hyperparameters("lbfgs", 0, 0.1, 0, 0, 0, 0)
NO_VAL_60 = blobs(0, 0, dimension=60)


def schedule(classes, weights=None):
    weights = np.ones(classes) if weights is None else np.array(weights)
    return Schedule(epochs=1, batch_size=1, patience=0, class_weights=weights.astype(np.float32))


def scaled(split, by=TRAIN):
    """What the solvers see of a split: centred, and of one scale."""
    centred = by.features - by.features.mean(axis=0)
    return (split.features - by.features.mean(axis=0)) / np.sqrt((centred**2).mean())


def fit(name, decay=0.1, train=TRAIN, val=VAL, classes=3, weights=None):
    knobs = replace(LBFGS, optimizer=name, weight_decay=decay)
    return fit_heads(train, val, [knobs], schedule(classes, weights), CPU)[0]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("decay", [0.01, 1.0])
def test_lbfgs_is_the_minimum_of_the_loss_that_descent_lowers(classes, decay):
    train = blobs(100, 0, classes)
    weights = [1.0, 2.0, 0.5][:classes]
    head = fit("lbfgs", decay, train, blobs(0, 0, classes), classes, weights).head
    features = torch.from_numpy(scaled(train, train)).double()
    # Back to scaled features, where the penalty is measured.
    scale = float(np.sqrt(train.features.var(axis=0).mean()))
    weight = (torch.from_numpy(head.weight).double() * scale).requires_grad_()
    bias = torch.from_numpy(head.logits(train.features.mean(axis=0)[None])[0]).double()
    bias.requires_grad_()
    loss = torch.nn.functional.cross_entropy(
        features @ weight.T + bias,
        torch.from_numpy(train.labels),
        torch.tensor(weights, dtype=torch.float64),
    )
    (loss + decay / 2 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 2e-3
    assert bias.grad.abs().max() < 2e-3


@pytest.mark.parametrize("decay", [0.001, 0.1, 10.0])
def test_ridge_is_scikit_learns_up_to_one_scale(decay):
    weights = np.array([1.0, 2.0, 0.5])
    head = fit("ridge", decay, weights=weights).head
    importance = weights[TRAIN.labels]
    model = Ridge(alpha=decay * importance.sum()).fit(
        scaled(TRAIN), np.eye(3)[TRAIN.labels], sample_weight=importance
    )
    wanted = model.predict(scaled(VAL))
    got = head.logits(VAL.features)
    scale = np.std(got) / np.std(wanted)
    np.testing.assert_allclose(got, scale * wanted, rtol=1e-2, atol=1e-3 * np.abs(got).max())


def test_ridge_is_the_same_if_rows_are_added_up_by_class(monkeypatch):
    weights = [1.0, 2.0, 0.5]
    one_hot = fit("ridge", weights=weights).head
    monkeypatch.setattr("pipeline.tables.large.LARGE", 0)
    by_class = fit("ridge", weights=weights).head
    np.testing.assert_allclose(by_class.weight, one_hot.weight, rtol=1e-4)
    np.testing.assert_allclose(by_class.bias, one_hot.bias, rtol=1e-4)


def test_ridge_without_a_penalty_and_with_fewer_rows_than_features_is_finite():
    few = blobs(6, 3, dimension=20)
    head = fit("ridge", 0.0, few, blobs(0, 0, dimension=20)).head
    assert np.isfinite(head.weight).all()
    assert (head.logits(few.features).argmax(axis=1) == few.labels).all()


def test_nearest_mean_chooses_as_scikit_learn_does():
    head = fit("nearest_mean").head
    model = NearestCentroid().fit(scaled(TRAIN), TRAIN.labels)
    np.testing.assert_array_equal(
        head.logits(VAL.features).argmax(axis=1), model.predict(scaled(VAL))
    )


@pytest.mark.parametrize("count", [30, 400, 9000])  # fewer rows than features, more, and many
def test_lda_shrinks_as_ledoit_and_wolf_do(count):
    train = blobs(count, 0, dimension=60)
    head = fit("lda", train=train, val=NO_VAL_60).head
    features = scaled(train, train).astype(np.float64)
    means = np.stack([features[train.labels == one].mean(axis=0) for one in range(3)])
    covariance, _ = ledoit_wolf(features - means[train.labels], assume_centered=True)
    weight = np.linalg.solve(covariance, means.T)
    wanted = features @ weight - 0.5 * (means.T * weight).sum(axis=0)
    wanted += np.log(np.bincount(train.labels) / count)
    got = head.logits(train.features)
    got, wanted = (one - one.mean(axis=1, keepdims=True) for one in (got, wanted))
    np.testing.assert_allclose(got, wanted * (got.std() / wanted.std()), atol=2e-3 * got.std())


def test_lda_takes_views_of_one_example_as_one_observation():
    alone = blobs(30, 0, dimension=60)
    knobs = [replace(LBFGS, optimizer="lda")]
    views = alone.take(np.repeat(np.arange(30), 4))
    weights = [
        fit_heads(one, NO_VAL_60, knobs, schedule(3), CPU)[0].head.weight for one in (alone, views)
    ]
    np.testing.assert_allclose(*(one / one.std() for one in weights), atol=1e-3)


@pytest.mark.parametrize("name", ["ridge", "lda", "nearest_mean"])
def test_the_scale_of_the_logits_is_fair_on_the_validation_pictures(name):
    logits = torch.from_numpy(fit(name).head.logits(VAL.features))
    losses = [
        float(torch.nn.functional.cross_entropy(scale * logits, torch.from_numpy(VAL.labels)))
        for scale in (1 / 3, 1, 3)
    ]
    assert losses[1] == min(losses)


@pytest.mark.parametrize("name", ["ridge", "lda", "nearest_mean"])
def test_a_few_validation_pictures_that_are_all_right_do_not_mean_certainty(name):
    train, val = blobs(100, 0, distance=20), blobs(12, 1, distance=20)
    one = fit(name, train=train, val=val)
    assert one.kept.val_accuracy == 1
    assert 0.02 < one.kept.val_loss < 0.5


@pytest.mark.parametrize("name", ["lbfgs", "ridge", "lda", "nearest_mean"])
def test_one_picture_a_class_is_enough(name):
    three = TRAIN.take(slice(3))
    one = fit(name, 1.0, three, NO_VAL)
    assert one.kept.train_accuracy == 1
    assert np.isfinite(one.head.weight).all()


def test_heads_of_several_decays_are_those_of_single_runs():
    knobs = [replace(LBFGS, optimizer="ridge", weight_decay=decay) for decay in (0.01, 1.0)]
    together = fit_heads(TRAIN, VAL, knobs, schedule(3), CPU)
    for one, decay in zip(together, (0.01, 1.0), strict=True):
        np.testing.assert_array_equal(one.head.weight, fit("ridge", decay).head.weight)

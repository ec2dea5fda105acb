"""The loss object: slopes and curvature are those of its values, and rows count by their weight."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.heads.linear_loss import LinearLoss
from pipeline.heads.losses import LOSSES, figures


def problem(name, weights=None):
    """Twelve rows of three features, and three outputs, some unknown where that may be."""
    random = np.random.default_rng(0)
    rows = np.ones((12, 4), np.float32)
    rows[:, 1:] = random.standard_normal((12, 3))
    loss = LOSSES[name]
    if name == "softmax":
        labels = np.arange(12) % 3
    else:
        labels = random.standard_normal((12, 3))
        labels = (labels > 0).astype(float) if name == "binary" else labels
        labels[random.random((12, 3)) < 0.2] = np.nan
    class_weights = np.array([1.0, 2.0, 0.5], np.float32)
    importance = loss.importance(labels, class_weights, weights)
    importance /= importance.sum(axis=0)
    return LinearLoss(loss, rows, loss.labels(labels), importance, 0.1)


@pytest.mark.parametrize("name", LOSSES)
def test_slope_and_curvature_are_those_of_the_value(name):
    objective = problem(name)
    count = objective.importance.shape[1]  # of problems
    weights = np.random.default_rng(1).standard_normal((count, 12 // count))
    every, step = np.arange(count), 0.02

    def heights(moved):
        return objective(moved, every)[0]

    _, slopes = objective(weights, every)
    found = np.zeros_like(weights)
    for at in range(weights.shape[1]):
        along = step * (np.arange(weights.shape[1]) == at)
        found[:, at] = (heights(weights + along) - heights(weights - along)) / (2 * step)
    np.testing.assert_allclose(slopes, found, atol=2e-3)

    # Biases are not penalised, so what their slopes change by is the curvature of the logits.
    of_output, _ = objective.curvature(weights)
    biases = np.arange(0, 12, 4)
    for output, bias in enumerate(biases):
        along = np.zeros(12)
        along[bias] = step
        sides = [objective(weights + s * along.reshape(weights.shape), every)[1] for s in (1, -1)]
        bend = (sides[0] - sides[1]).reshape(12)[bias] / (2 * step)
        if name != "huber":  # whose curvature jumps where a step passes the threshold
            assert of_output[output] == pytest.approx(bend, abs=2e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_that_weighs_2_counts_as_two(name):
    weighed = problem(name, np.where(np.arange(12) < 3, 2, 1).astype(np.float32))
    once = problem(name, np.ones(12, np.float32))
    again = np.r_[np.arange(12), np.arange(3)]
    importance = problem(name).importance[again]
    twice = replace(
        once,
        rows=once.rows[again],
        labels=once.labels[again],
        importance=importance / importance.sum(axis=0),
    )
    every = np.arange(importance.shape[1])
    weights = np.random.default_rng(1).standard_normal((len(every), 12 // len(every)))
    for one, other in zip(weighed(weights, every), twice(weights, every), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_reported_of_no_known_row_is_nan(name):
    labels = np.zeros(0, int) if name == "softmax" else np.full((2, 3), np.nan)
    found = figures(name, lambda _: np.zeros((2, 3), np.float32), labels, np.ones(3, np.float32))
    assert np.isnan(found).all()

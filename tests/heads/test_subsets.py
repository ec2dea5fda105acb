"""One head on many subsets of the same rows: what it is alone, only sooner."""

import numpy as np
import pytest

from pipeline.core.errors import TrainingError
from pipeline.heads.fit import class_weights, fit_heads
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.subsets import on_subsets
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split
from tests.heads.test_fit import blobs


def subsets(pool, repeats):
    generator = np.random.default_rng(3)
    return [generator.random(len(pool.labels)) < 0.8 for _ in range(repeats)]


def schedule(pool, kind="none", **changes):
    given = {"epochs": 12, "batch_size": 40, "patience": 0} | changes
    return Schedule(**given, class_weights=class_weights(kind, pool.labels, 3))


def alone(pool, mask, head, kind, **changes):
    """The scores of a head that knows of no other subset."""
    weights = class_weights(kind, pool.labels[mask], 3)
    told = Schedule(
        **{"epochs": 12, "batch_size": 40, "patience": 0} | changes, class_weights=weights
    )
    none = pool.take(slice(0))
    (one,) = fit_heads(pool.take(mask), none, [head], told, "cpu")
    return one.head.logits(pool.features[~mask])


# More features than rows, and fewer: the closed forms take another way.
@pytest.mark.parametrize("dimension", [6, 150])
@pytest.mark.parametrize("kind", ["none", "balanced"])
@pytest.mark.parametrize("optimizer", ["lbfgs", "ridge", "lda", "nearest_mean"])
def test_a_closed_form_is_the_head_that_it_would_be_alone(optimizer, kind, dimension):
    pool = blobs(120, 0, dimension=dimension)
    head = Hyperparameters(optimizer, weight_decay=0.02)
    masks = subsets(pool, 4)
    asked = [~mask for mask in masks]
    found = on_subsets(pool, masks, asked, head, schedule(pool, kind), kind)
    for mask, scores in zip(masks, found, strict=True):
        wanted = alone(pool, mask, head, kind)
        centred = [each - each.mean(axis=1, keepdims=True) for each in (scores, wanted)]
        scale = np.square(centred[1]).mean() / (centred[0] * centred[1]).mean()
        np.testing.assert_allclose(scale * centred[0], centred[1], atol=0.05 * centred[1].std())


@pytest.mark.parametrize(
    "used",
    [
        {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.01},
        {"optimizer": "sgd", "learning_rate": 0.3, "label_smoothing": 0.1},
        {"optimizer": "adam", "learning_rate": 0.01, "width": 16, "dropout": 0.2},
    ],
)
def test_heads_that_descend_are_as_good_and_learn_nothing_of_what_is_held_out(used):
    pool, head = blobs(180, 0, dimension=8, distance=0.5), Hyperparameters(**used)
    masks = subsets(pool, 15)  # two stacks
    asked = [~mask for mask in masks]

    def answers(pool):
        return list(on_subsets(pool, masks, asked, head, schedule(pool), "none"))

    found = answers(pool)
    right = [(s.argmax(1) == pool.labels[~m]).mean() for s, m in zip(found, masks, strict=True)]
    wanted = [(alone(pool, m, head, "none").argmax(1) == pool.labels[~m]).mean() for m in masks[:5]]
    assert np.mean(right[:5]) == pytest.approx(np.mean(wanted), abs=0.06)
    # The labels of the first subset's held-out rows are changed: its head is the same.
    labels = np.where(masks[0], pool.labels, (pool.labels + 1) % 3)
    lied = answers(Split(pool.digests, pool.paths, pool.views, labels, pool.features))
    np.testing.assert_allclose(lied[0], found[0], atol=1e-5)
    assert np.abs(lied[1] - found[1]).max() > 1e-3


def test_a_head_that_diverges_is_told():
    pool, head = blobs(60, 0), Hyperparameters("sgd", learning_rate=1e30, width=4)
    masks = subsets(pool, 2)
    with pytest.raises(TrainingError, match=r"lower train\.learning_rate"):
        list(on_subsets(pool, masks, [~m for m in masks], head, schedule(pool), "none"))

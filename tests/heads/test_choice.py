"""The head and the layers that cross-validation chooses."""

from dataclasses import replace

import numpy as np

from pipeline.heads.choice import choose
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule
from pipeline.tables.layers import Layer
from tests.heads.test_fit import blobs

HEADS = [Hyperparameters("lda"), Hyperparameters("lbfgs", weight_decay=0.003)]
SCHEDULE = Schedule(1, 1, 0, np.ones(3, np.float32), row_weights="example")
LAST, BLOCK = Layer("last", 8), Layer("block", 40)


def chosen(pool, heads=HEADS):
    layers = (LAST, BLOCK) if pool.features.shape[1] > LAST.width else ()
    best, *others = choose(pool, pool.digests.tolist(), heads, layers, SCHEDULE)
    assert len(others) in (0, len(heads) * max(1, len(layers)) - 1)
    assert all(one.behind > -np.inf for one in others)
    return best.hyperparameters.optimizer, best.of


def beside(pool, other):
    return replace(pool, features=np.concatenate([pool.features, other], axis=1))


def test_the_first_head_on_all_layers_is_kept_unless_another_is_better():
    easy = blobs(120, 0, dimension=LAST.width, distance=30.0)
    noise = np.random.default_rng(0).normal(0, 1, (120, BLOCK.width)).astype(np.float32)
    assert chosen(easy) == ("lda", "")
    assert chosen(beside(easy, noise)) == ("lda", "all")  # all are right, whatever the loss
    assert chosen(beside(easy, noise), HEADS[::-1]) == ("lbfgs", "all")
    hard = blobs(120, 0, dimension=LAST.width, distance=0.6)
    assert chosen(beside(hard, noise))[1] == "last"
    both = blobs(120, 0, dimension=LAST.width + BLOCK.width, distance=0.6)
    assert chosen(both)[1] == "all"


def test_with_one_example_a_class_the_first_head_is_taken():
    three = beside(blobs(3, 0, dimension=LAST.width), np.zeros((3, BLOCK.width), np.float32))
    assert chosen(three) == ("lda", "all")
    (best,) = choose(three, three.digests.tolist(), HEADS, (LAST, BLOCK), SCHEDULE)
    assert best.row() == {"optimizer": "lda", "layers": "all"}  # no mean of nothing


def test_classes_that_are_not_drawn_take_no_part():
    pool = blobs(60, 0, dimension=LAST.width)
    without = pool.take(pool.labels != 1)
    best, other = choose(without, without.digests.tolist(), HEADS, (), SCHEDULE)
    assert len(best.losses) == len(without.labels)
    assert best.right.mean() > 0.8
    np.testing.assert_array_equal(best.rows, np.arange(len(without.labels)))
    assert other.row()["behind_chosen"] == float(f"{other.behind:.6g}")

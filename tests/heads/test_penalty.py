"""The weight decay that cross-validation chooses, beside the same cross-validation one by one."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from pipeline.heads import penalty
from pipeline.heads.fit import class_weights, fit_heads
from pipeline.heads.head import fit_temperature
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.losses import LOSSES, Units
from pipeline.heads.scaling import GLOBAL, PER_FEATURE
from pipeline.heads.subsets import on_subsets
from pipeline.heads.trained import Schedule
from pipeline.tables.folds import folds
from pipeline.tables.layers import Layer
from tests.heads.test_fit import blobs
from tests.heads.test_multi_output import forget, labelled, measured

TASKS = {
    "softmax": blobs(150, 0, dimension=30, distance=0.3),
    "binary": forget(labelled(150, 0, outputs=3)),
    "squared": measured(150, 0),
    "huber": measured(150, 0, outliers=0.1),
}


def schedule(pool, loss="softmax", kind="none"):
    outputs = pool.labels.max() + 1 if pool.labels.ndim == 1 else pool.labels.shape[1]
    return Schedule(1, 1, 0, class_weights(kind, pool.labels, outputs), loss=loss)


def choose(pool, optimizer="lbfgs", loss="softmax", keys=None, kind="none", **given):
    learned = given.pop("learned", len(set(pool.digests)))
    keys = pool.digests.tolist() if keys is None else keys
    return penalty.choose(pool, keys, optimizer, schedule(pool, loss, kind), learned, **given)


def one_by_one(pool, optimizer, loss, decay):
    """The out-of-fold loss after one temperature, by a call of `fit_heads` for each fold."""
    of = LOSSES[loss]
    fold = folds(pool.digests.tolist(), pool.labels, 5, numbers=of.of_numbers, seed="penalty")
    logits = np.zeros((len(fold), len(schedule(pool, loss).class_weights)), np.float32)
    for number in range(5):
        inside = fold != number
        used = Hyperparameters(optimizer, weight_decay=decay * 150 / inside.sum())
        none = pool.take(slice(0))
        (one,) = fit_heads(pool.take(inside), none, [used], schedule(pool, loss), "cpu")
        logits[~inside] = one.head.logits(pool.features[~inside])
    labels, scaled = pool.labels, logits.astype(np.float64)
    if of.of_numbers:
        units = Units.of(loss, labels)
        labels, scaled = units.learned(labels), (scaled - units.centre) / units.unit
    else:
        scaled /= fit_temperature(logits, labels)
    importance = of.importance(labels, np.ones(logits.shape[1], np.float32))
    losses = of.at(scaled, of.labels(labels))[0] * importance
    return (losses.sum(axis=1) / np.maximum(importance.sum(axis=1), 1)).mean()


@pytest.mark.parametrize(
    ("optimizer", "loss"),
    [(o, loss) for loss in TASKS for o in ("lbfgs", "ridge") if (o, loss) != ("ridge", "huber")],
)
def test_the_losses_are_those_of_heads_trained_one_by_one(optimizer, loss):
    pool = TASKS[loss]
    choice = choose(pool, optimizer, loss, candidates=[penalty.Candidate(GLOBAL)])
    wanted = [one_by_one(pool, optimizer, loss, point.weight_decay) for point in choice.path]
    found = [point.loss for point in choice.path]
    at = [point.weight_decay for point in choice.path].index(choice.weight_decay)
    lowest = min(choice.path, key=lambda point: point.loss)
    assert lowest.behind >= -lowest.error
    assert wanted[found.index(lowest.loss)] < 1.02 * min(wanted)
    np.testing.assert_allclose(found, wanted, rtol=0.1)
    assert (choice.examples, choice.folds) == (150, 5)
    assert choice.path[at].behind == choice.path[at].error == 0


def test_the_end_of_the_path_is_said():
    pool = measured(60, 0)
    noise = replace(pool, labels=np.random.default_rng(1).standard_normal((60, 2)))
    choice = choose(noise, loss="squared", candidates=[penalty.Candidate(GLOBAL)])
    assert choice.weight_decay == penalty.PATH[0]
    assert choice.end == "strongest"
    assert "strongest" in choice.lines()[1]
    assert choice.noted() == {"examples": 60, "folds": 5, "end": "strongest"}
    clear = choose(blobs(300, 0, distance=0.3))
    assert not clear.end
    assert clear.lines() == [
        f"weight decay {clear.weight_decay:g}, chosen by cross-validation on 300 examples"
    ]


def test_a_fold_takes_a_penalty_as_much_stronger_as_it_has_fewer_examples():
    pool, one = blobs(100, 0), [penalty.Candidate(GLOBAL)]
    few, many = (choose(pool, learned=count, candidates=one) for count in (100, 1000))
    of_few = {point.weight_decay: point.loss for point in few.path}
    # Ten times as many examples and a tenth of the weight decay are the same penalty of a fold.
    for point in many.path:
        if (stronger := round(10 * point.weight_decay, 6)) in of_few:
            assert point.loss == pytest.approx(of_few[stronger], rel=0.02)


def test_views_and_the_number_of_threads_change_nothing():
    pool = blobs(90, 0)
    noise = np.random.default_rng(0).standard_normal(pool.features.shape).astype(np.float32)
    view = replace(pool, views=pool.views + 1, features=pool.features + noise)
    with threadpool_limits(2):
        alone = choose(pool)
    assert choose(type(pool).concat([pool, view])) == alone


def test_examples_of_a_group_are_never_in_two_folds():
    # Ten copies of each example: unless they are held out together, they are known by heart.
    pool = blobs(60, 0, dimension=30, distance=0.1)
    copies = pool.take(np.repeat(np.arange(60), 10))
    names = np.array([f"{name} {n % 10}" for n, name in enumerate(copies.digests)])
    many = replace(copies, digests=names)
    one = [penalty.Candidate(GLOBAL)]
    together, apart = (choose(many, keys=k, candidates=one) for k in (copies.digests, None))
    least = [min(point.loss for point in choice.path) for choice in (together, apart)]
    assert least[0] > 0.8 > 0.2 > least[1]
    assert together.weight_decay > apart.weight_decay


def test_many_examples_are_drawn_by_their_digests():
    pool = blobs(2300, 0, distance=0.3)
    choice = choose(pool)
    assert choice.examples == penalty.MOST
    # The order of the rows, and ten more of them, hardly matter.
    again = choose(pool.take(np.arange(2299, 9, -1)))
    places = [penalty.PATH.index(one.weight_decay) for one in (choice, again)]
    assert abs(places[0] - places[1]) <= 1
    pairs = zip(again.path, choice.path, strict=False)
    assert max(abs(one.loss - other.loss) for one, other in pairs) < 0.02


def test_features_are_scaled_one_by_one_only_if_that_is_better():
    pool = blobs(300, 0, dimension=30, distance=0.3)
    even = replace(pool, features=pool.features / np.linspace(0.1, 5, 30, dtype=np.float32))
    uneven = even.features * np.geomspace(1, 1e-4, 30, dtype=np.float32)[::-1]
    assert choose(even).candidate.scaling == GLOBAL
    assert choose(replace(even, features=uneven)).candidate.scaling == PER_FEATURE


def test_a_candidate_is_also_some_of_the_columns():
    pool = blobs(200, 0, dimension=20, distance=0.5)
    noise = np.random.default_rng(1).standard_normal((200, 20)).astype(np.float32)
    both = replace(pool, features=np.concatenate([noise, pool.features], axis=1))
    left, whole = penalty.Candidate(GLOBAL, slice(0, 20)), penalty.Candidate(GLOBAL)
    assert choose(both, candidates=[left, whole]).candidate == whole
    right = penalty.Candidate(GLOBAL, slice(20, 40))
    assert choose(both, candidates=[right, whole]).candidate == right


def test_with_many_classes_one_fold_is_predicted_and_the_scale_is_that_of_all():
    options = penalty.candidates((Layer("last", 15), Layer("inner", 5)), auto=True)
    pool = blobs(606, 0, classes=101, dimension=20, distance=2.0)
    choice = choose(pool, candidates=options)
    assert choice.folds == 1
    assert all(point.candidate == options[0] for point in choice.path)
    assert "compares no inner blocks; to use them, set train.layers to all" in choice.lines()[-1]
    assert "inner blocks" not in choose(pool).lines()[-1]


def test_classes_of_one_example_leave_the_weight_decay_as_it_was():
    choice = choose(blobs(3, 0))
    assert choice.weight_decay == penalty.USUAL
    assert choice.examples == 0
    assert "too few" in choice.lines()[0]
    some = blobs(31, 0)  # classes whose labels are 5 and 3, and one of a single example
    odd = replace(some, labels=np.where(np.arange(31) == 0, 1, np.where(some.labels == 1, 5, 3)))
    assert choose(odd).examples == 31


@pytest.mark.parametrize("kind", ["none", "balanced"])
def test_a_head_on_features_of_variance_1_is_scikit_learns(kind):
    pool, none = blobs(120, 0), blobs(0, 1)
    used = Hyperparameters("lbfgs", weight_decay=0.02, scaling=PER_FEATURE)
    (one,) = fit_heads(pool, none, [used], schedule(pool, kind=kind), "cpu")
    scaler = StandardScaler().fit(pool.features)
    weight = None if kind == "none" else "balanced"
    model = LogisticRegression(C=1 / (120 * 0.02), class_weight=weight, tol=1e-8, max_iter=1000)
    model.fit(scaler.transform(pool.features), pool.labels)
    found, new = one.head.logits(pool.features), blobs(50, 1)
    wanted = model.decision_function(scaler.transform(new.features))
    found = one.head.logits(new.features)
    np.testing.assert_allclose(
        found - found.mean(axis=1, keepdims=True), wanted, atol=0.01 * np.abs(wanted).max()
    )
    # So is one of a subset.
    asked = np.ones(120, dtype=bool)
    (again,) = on_subsets(pool, [asked], [asked], used, schedule(pool, kind=kind), kind)
    np.testing.assert_allclose(again, one.head.logits(pool.features), atol=1e-5)

"""Heads of many classes: the minimum that scikit-learn finds, or below, in bounded memory."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pipeline.heads import duration, lbfgs, linear_loss, many_classes
from pipeline.heads import head as heads
from pipeline.heads.fit import fit_heads, refit
from pipeline.heads.head import Head, fit_temperature, probabilities
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.linear_loss import LinearLoss
from pipeline.heads.many_classes import MANY
from pipeline.heads.scaling import centre_and_scale
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split

CLASSES, DIMENSION = MANY + 20, 24
LBFGS = Hyperparameters("lbfgs", 0, 0.003, 0, 0, 0, 0)


def rows(each, seed, centred=True):
    """`each` rows of every class around its centre; two features are all but constant."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((CLASSES, DIMENSION))
    labels = np.tile(np.arange(CLASSES), each)
    features = 0.7 * random.standard_normal((len(labels), DIMENSION)) + centres[labels]
    features[:, :2] *= 1e-3
    names = np.array([f"{row:04}" for row in range(len(labels))])
    found = features.astype(np.float32)
    if centred:
        mean, scale = centre_and_scale(found)
        found = (found - mean) / scale
    return Split(names, names, np.zeros(len(labels), np.int32), labels, found)


def test_lbfgs_prints_how_long_it_takes_if_that_is_long(monkeypatch):
    given = rows(2, 0).features, CLASSES, 3, "classes", "softmax"
    assert not duration.line(*given)
    monkeypatch.setattr(duration, "LEAST", 0.0)
    assert duration.line(*given).startswith("lbfgs takes about 0 minutes for 240 rows and 120")


def minimum(train, importance, decay, start):
    given = train.features, train.labels, importance, CLASSES, decay, start
    return many_classes.minimum(*given)


def objective(head, train, importance, decay):
    logits = train.features.astype(np.float64) @ head.weight.T + head.bias
    given = probabilities(logits)[np.arange(len(logits)), train.labels]
    penalty = decay / 2 * np.square(head.weight, dtype=np.float64).sum()
    return float(-np.log(given) @ importance / importance.sum() + penalty)


@pytest.mark.parametrize("decay", [0.0003, 0.003, 0.1])
def test_the_loss_is_that_of_scikit_learn_or_lower(decay):
    train = rows(6, 0)
    importance = np.where(train.labels % 2, 1.0, 3.0).astype(np.float32)
    strength = 1 / (importance.sum() * decay)
    model = LogisticRegression(C=strength, max_iter=1000, tol=1e-4)
    model.fit(train.features, train.labels, sample_weight=importance)
    theirs = Head(model.coef_, model.intercept_)
    head, converged = minimum(train, importance, decay, None)
    assert converged
    loss = objective(head, train, importance, decay)
    assert loss <= objective(theirs, train, importance, decay) * (1 + 1e-8)
    again, _ = minimum(train, importance, decay, head)
    assert objective(again, train, importance, decay) <= loss * (1 + 1e-6)


def test_without_a_penalty_the_head_is_finite():
    head, _ = minimum(rows(2, 0), np.ones(2 * CLASSES, np.float32), 0.0, None)
    assert np.isfinite(head.weight).all()


def test_it_ends_where_it_may_not_go_on(monkeypatch, capsys):
    monkeypatch.setattr(lbfgs, "MOST_ITERATIONS", 2)
    none = replace(rows(1, 1), **{n: v[:0] for n, v in vars(rows(1, 1)).items()})
    schedule = Schedule(1, 1, 0, np.ones(CLASSES, np.float32))
    fit_heads(rows(6, 0), none, [LBFGS], schedule, "cpu")
    warned = (
        "warning: lbfgs with weight_decay 0.003 did not converge; try a larger train.weight_decay"
    )
    assert warned in capsys.readouterr().out


def test_the_head_is_trained_again_from_where_it_was(monkeypatch):
    passes = []
    call = LinearLoss.__call__
    monkeypatch.setattr(LinearLoss, "__call__", lambda *given: passes.append(1) or call(*given))
    train, val = rows(6, 0, centred=False), rows(1, 1, centred=False)
    schedule = Schedule(1, 1, 0, np.ones(CLASSES, np.float32))
    (first,) = fit_heads(train, val, [LBFGS], schedule, "cpu")
    fitted = len(passes)
    again = refit(first, train, val, schedule, "cpu")
    assert len(passes) - fitted < fitted / 2
    right = [(head.logits(val.features).argmax(axis=1) == val.labels).mean() for head in
             (first.head, again)]  # fmt: skip
    assert right[1] > right[0]  # it has seen them now


def test_the_number_of_threads_changes_no_bit():
    schedule = Schedule(1, 1, 0, np.ones(CLASSES, np.float32))
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            (one,) = fit_heads(rows(4, 0), rows(1, 1), [LBFGS], schedule, "cpu")
        found.append(one.head)
    np.testing.assert_array_equal(found[0].weight, found[1].weight)


def test_chunks_change_no_more_than_rounding(monkeypatch):
    train, ones = rows(4, 0), np.ones(4 * CLASSES, np.float32)
    whole, _ = minimum(train, ones, 0.003, None)
    monkeypatch.setattr(linear_loss, "AT_ONCE", 50 * CLASSES)
    monkeypatch.setattr(many_classes, "GATHERED", 7 * many_classes.OWN * DIMENSION)
    monkeypatch.setattr(lbfgs, "PAIRS_BYTES", 1)  # two steps are remembered all the same
    parts, _ = minimum(train, ones, 0.003, None)
    losses = [objective(head, train, ones, 0.003) for head in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-4)


def test_the_temperature_of_many_is_the_same(monkeypatch):
    random = np.random.default_rng(0)
    labels = random.integers(9, size=80)
    logits = random.standard_normal((80, 9)).astype(np.float32)
    right = logits.copy()
    right[np.arange(80), labels] += 9
    for scores in (logits, 4 * logits + 3 * np.eye(9, dtype=np.float32)[labels], right, 0 * logits):
        with monkeypatch.context() as patch:
            whole = fit_temperature(scores, labels)
            patch.setattr(heads, "MANY_LOGITS", 100)
            assert fit_temperature(scores, labels) == pytest.approx(whole, rel=1e-5)


def test_answers_by_chunks_are_the_same(monkeypatch):
    val = rows(2, 1)
    random = np.random.default_rng(0)
    head = Head(
        random.standard_normal((CLASSES, DIMENSION), dtype=np.float32),
        np.zeros(CLASSES, np.float32),
    )
    whole = head.answers(val.features, 0.8)
    monkeypatch.setattr(heads, "MANY_LOGITS", CLASSES)
    np.testing.assert_allclose(head.answers(val.features, 0.8), whole, rtol=1e-4)

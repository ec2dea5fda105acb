"""Labels by themselves and numbers: heads in closed form and by descent reach the same optimum."""

import itertools
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.multiclass import OneVsRestClassifier

from pipeline.heads import losses
from pipeline.heads.fit import class_weights, fit_heads, refit
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.scaling import centre_and_scale
from pipeline.heads.subsets import on_subsets
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split

DIMENSION = 12


def split(features, labels):
    names = np.array([f"{row:05}" for row in range(len(features))], dtype=str)
    return Split(names, names, np.zeros(len(names), np.int32), labels, features.astype(np.float32))


def labelled(rows, seed, outputs=4, dimension=DIMENSION):
    """Labels that follow from the features with some noise; the last one is rare."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((rows, dimension)) * np.linspace(0.2, 3, dimension) + 2
    slopes = np.random.default_rng(77).standard_normal((dimension, outputs))
    noise = generator.logistic(size=(rows, outputs))
    likely = (features - 2) @ slopes / 2 + noise - np.linspace(0, 2.5, outputs)
    return split(features, (likely > 0).astype(float))


def measured(rows, seed, outliers=0.0):
    """Two numbers in units far apart."""
    found, generator = labelled(rows, seed, 2), np.random.default_rng(seed + 100)
    slopes = np.random.default_rng(78).standard_normal((DIMENSION, 2))
    noise = generator.standard_normal((rows, 2))
    noise += 30 * (generator.random((rows, 2)) < outliers)
    numbers = (found.features - 2) @ slopes + noise
    return replace(found, labels=numbers * [1, 1000] + [5, -70_000])


def schedule(rows, loss, kind="none", **changes):
    given = {"epochs": 20, "batch_size": 50, "patience": 0} | changes
    weights = class_weights(kind, rows.labels, rows.labels.shape[1])
    return Schedule(**given, class_weights=weights, loss=loss)


def fit(rows, loss, used, val=None, kind="none", **changes):
    val = rows.take(slice(0)) if val is None else val
    plan = schedule(rows, loss, kind, **changes)
    return fit_heads(rows, val, [Hyperparameters(**used)], plan, "cpu")[0]


def scaled(features, by):
    mean, scale = centre_and_scale(by.features)
    return ((features - mean) / scale).astype(np.float64)


def forget(rows, share=0.3, seed=5):
    """The same rows, with some cells unknown."""
    unknown = np.random.default_rng(seed).random(rows.labels.shape) < share
    return replace(rows, labels=np.where(unknown, np.nan, rows.labels))


TRAIN, VAL = labelled(300, 0), labelled(150, 1)
NUMBERS, NUMBERS_VAL = measured(300, 0), measured(150, 1)


@pytest.mark.parametrize("decay", [0.001, 0.1])
@pytest.mark.parametrize("kind", ["none", "balanced"])
def test_lbfgs_is_scikit_learns_one_vs_rest(decay, kind):
    head = fit(TRAIN, "binary", {"optimizer": "lbfgs", "weight_decay": decay}, kind=kind).head
    asked = {"class_weight": None if kind == "none" else kind, "tol": 1e-8, "max_iter": 5000}
    model = OneVsRestClassifier(LogisticRegression(C=1 / (300 * decay), **asked))
    model.fit(scaled(TRAIN.features, TRAIN), TRAIN.labels)
    wanted = model.decision_function(scaled(VAL.features, TRAIN))
    np.testing.assert_allclose(head.logits(VAL.features), wanted, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("optimizer", ["lbfgs", "ridge"])
def test_rows_that_are_unknown_are_left_out_label_by_label(optimizer):
    some, used = forget(TRAIN), {"optimizer": optimizer, "weight_decay": 0.02}
    head = fit(some, "binary", used).head
    features, got = scaled(TRAIN.features, TRAIN), head.logits(VAL.features)
    for number in range(4):
        known = ~np.isnan(some.labels[:, number])
        wanted = some.labels[known, number]
        if optimizer == "lbfgs":
            model = LogisticRegression(C=1 / (known.sum() * 0.02), tol=1e-8, max_iter=5000)
            said = model.fit(features[known], wanted).decision_function
        else:
            model = Ridge(alpha=known.sum() * 0.02).fit(features[known], wanted)
            said = lambda rows, model=model: model.predict(rows) - 0.5  # noqa: E731
        expected = said(scaled(VAL.features, TRAIN))
        factor = 1 if optimizer == "lbfgs" else got[0, number] / expected[0]
        np.testing.assert_allclose(got[:, number], factor * expected, rtol=3e-3, atol=3e-3)


def test_a_label_is_what_it_would_be_alone_beside_many_others():
    many, used = labelled(200, 3, 70), {"optimizer": "lbfgs", "weight_decay": 0.05}
    together = fit(many, "binary", used).head
    alone = fit(replace(many, labels=many.labels[:, 60:61]), "binary", used).head
    np.testing.assert_allclose(together.weight[60], alone.weight[0], rtol=1e-3, atol=1e-4)


def test_more_features_than_rows_and_hardly_a_penalty():
    few = labelled(60, 4, 3, 200)
    head = fit(few, "binary", {"optimizer": "lbfgs", "weight_decay": 1e-5}).head
    assert ((head.logits(few.features) > 0) == few.labels).all()
    model = OneVsRestClassifier(LogisticRegression(C=1 / (60 * 1e-5), tol=1e-8, max_iter=9999))
    wanted = model.fit(scaled(few.features, few), few.labels).decision_function(
        scaled(few.features, few)
    )
    np.testing.assert_allclose(head.logits(few.features), wanted, rtol=0.05, atol=0.2)


@pytest.mark.parametrize("optimizer", ["lbfgs", "ridge", "nearest_mean"])
def test_a_label_that_the_rows_cannot_tell_is_answered_by_its_share(optimizer):
    labels = TRAIN.labels.copy()
    labels[:, 1], labels[:, 2] = 1, np.nan
    rows = replace(TRAIN, labels=labels)
    one = fit(rows, "binary", {"optimizer": optimizer, "weight_decay": 0.1})
    shares = one.head.answers(VAL.features, 1.0, "multilabel")
    assert np.ptp(shares[:, 1]) < 1e-5
    assert shares[0, 1] > 0.5
    assert np.isfinite(shares).all()
    assert np.isfinite(one.kept.train_loss)


def test_nearest_mean_says_which_mean_is_nearer_and_its_scale_is_fair():
    one = fit(TRAIN, "binary", {"optimizer": "nearest_mean"}, VAL)
    logits = one.head.logits(VAL.features)
    features, asked = scaled(TRAIN.features, TRAIN), scaled(VAL.features, TRAIN)
    for number, column in enumerate(TRAIN.labels.T):
        no, yes = (features[column == value].mean(axis=0) for value in (0, 1))
        nearer = np.square(asked - no).sum(axis=1) - np.square(asked - yes).sum(axis=1)
        assert ((logits[:, number] > 0) == (nearer > 0)).all()

    def loss(factor):
        return losses.cell_losses("binary", factor * logits, VAL.labels).mean()

    assert loss(1) < min(loss(2), loss(0.5))


@pytest.mark.parametrize("decay", [0.001, 0.1, 10.0])
def test_ridge_of_numbers_is_scikit_learns(decay):
    head = fit(NUMBERS, "squared", {"optimizer": "ridge", "weight_decay": decay}).head
    model = Ridge(alpha=300 * decay).fit(scaled(NUMBERS.features, NUMBERS), NUMBERS.labels)
    wanted = model.predict(scaled(NUMBERS_VAL.features, NUMBERS))
    got = head.answers(NUMBERS_VAL.features, 1.0, "regression")
    spread = NUMBERS.labels.std(axis=0)
    np.testing.assert_allclose(got / spread, wanted / spread, atol=2e-5)
    again = fit(NUMBERS, "squared", {"optimizer": "lbfgs", "weight_decay": decay}).head
    np.testing.assert_array_equal(again.weight, head.weight)


def test_ridge_with_the_penalty_of_ridgecv_is_ridgecv():
    model = RidgeCV(alphas=np.geomspace(0.01, 1000, 11))
    model.fit(scaled(NUMBERS.features, NUMBERS), NUMBERS.labels)
    head = fit(NUMBERS, "squared", {"optimizer": "ridge", "weight_decay": model.alpha_ / 300}).head
    wanted = model.predict(scaled(NUMBERS_VAL.features, NUMBERS))
    np.testing.assert_allclose(head.logits(NUMBERS_VAL.features), wanted, rtol=1e-4)


def test_numbers_that_are_unknown_are_left_out():
    some = forget(NUMBERS)
    head = fit(some, "squared", {"optimizer": "ridge", "weight_decay": 0.1}).head
    known = ~np.isnan(some.labels[:, 1])
    model = Ridge(alpha=known.sum() * 0.1)
    model.fit(scaled(NUMBERS.features, NUMBERS)[known], NUMBERS.labels[known, 1])
    wanted = model.predict(scaled(NUMBERS_VAL.features, NUMBERS))
    np.testing.assert_allclose(head.logits(NUMBERS_VAL.features)[:, 1], wanted, rtol=1e-4)


@pytest.mark.parametrize("loss", ["squared", "huber"])
@pytest.mark.parametrize("used", [{"optimizer": "lbfgs"}, {"optimizer": "adam", "width": 8}])
def test_the_unit_of_a_number_makes_no_difference(loss, used):
    used = used | {"learning_rate": 0.01, "weight_decay": 0.01}
    kelvin = replace(NUMBERS, labels=NUMBERS.labels * 1e4 + 300)
    one, other = fit(NUMBERS, loss, used), fit(kelvin, loss, used)
    assert one.kept.train_loss == pytest.approx(other.kept.train_loss, rel=1e-3)
    answers = [each.head.answers(NUMBERS_VAL.features, 1.0, "regression") for each in (one, other)]
    spread = NUMBERS.labels.std(axis=0)
    np.testing.assert_allclose((answers[1] - 300) / 1e4 / spread, answers[0] / spread, atol=5e-3)


def test_hubers_head_is_the_minimum_and_outliers_hardly_move_it():
    spoiled = measured(300, 0, outliers=0.1)
    used = {"optimizer": "lbfgs", "weight_decay": 0.001}
    robust, squared = (fit(spoiled, loss, used).head for loss in ("huber", "squared"))

    units = losses.Units.of("huber", spoiled.labels)
    centre, scale = centre_and_scale(spoiled.features)
    weight = robust.weight * scale / units.unit[:, None]
    away = (robust.logits(spoiled.features) - spoiled.labels) / units.unit
    slopes = np.clip(away, -1, 1) / 300
    assert np.abs(slopes.T @ ((spoiled.features - centre) / scale) + 0.001 * weight).max() < 1e-4
    assert np.abs(slopes.sum(axis=0)).max() < 1e-4

    asked = measured(500, 9)
    wrong = [np.abs(one.logits(asked.features) - asked.labels).mean() for one in (robust, squared)]
    assert wrong[0] < 0.5 * wrong[1]


def test_hubers_threshold_is_a_robust_standard_deviation_or_the_ordinary_one():
    generator = np.random.default_rng(0)
    column = generator.normal(7, 3, 20_000)
    column[:1000] = 1e6
    flat = np.where(np.arange(20_000) % 10, 5.0, 15.0)
    units = losses.Units.of("huber", np.stack([column, flat], axis=1))
    assert units.unit[0] == pytest.approx(3, rel=0.1)
    assert (units.centre[1], units.unit[1]) == (5, flat.std())


@pytest.mark.parametrize(
    ("loss", "unknown"), [("binary", True), ("squared", False), ("huber", True)]
)
def test_descent_ends_where_the_closed_form_is(loss, unknown):
    rows = TRAIN if loss == "binary" else measured(300, 0, outliers=0.1)
    rows = forget(rows) if unknown else rows
    solved = fit(rows, loss, {"optimizer": "lbfgs", "weight_decay": 0.05})
    used = {"optimizer": "momentum", "weight_decay": 0.05, "learning_rate": 0.2}
    descended = fit(rows, loss, used, epochs=400, batch_size=300)
    assert descended.kept.train_loss == pytest.approx(solved.kept.train_loss, rel=1e-3)
    assert descended.kept.train_accuracy == pytest.approx(solved.kept.train_accuracy, abs=2e-3)
    spread = np.abs(solved.head.weight).max()
    np.testing.assert_allclose(descended.head.weight, solved.head.weight, atol=5e-3 * spread)


@pytest.mark.parametrize(
    "used",
    [
        {"optimizer": "sgd", "weight_decay": 0.1, "learning_rate": 0.05},
        {"optimizer": "adamw", "learning_rate": 0.01, "width": 16, "seed": 3},
        {"optimizer": "adam", "learning_rate": 0.01, "label_smoothing": 0.2, "seed": 1},
    ],
    ids=lambda used: used["optimizer"],
)
@pytest.mark.parametrize("loss", ["binary", "squared", "huber"])
def test_a_head_that_descends_is_the_one_that_torch_trains(used, loss):
    rows, asked = (TRAIN, VAL) if loss == "binary" else (NUMBERS, NUMBERS_VAL)
    knobs = Hyperparameters(**used)
    trained = fit(rows, loss, used, epochs=5)
    units = None if loss == "binary" else losses.Units.of(loss, rows.labels)
    labels = torch.from_numpy(rows.labels if units is None else units.learned(rows.labels))
    outputs, seeded = labels.shape[1], torch.Generator().manual_seed(knobs.seed)
    sizes = [(DIMENSION, knobs.width), (knobs.width, outputs)] if knobs.width else []
    layers = [torch.nn.Linear(*size) for size in sizes or [(DIMENSION, outputs)]]
    for layer in layers:
        bound = layer.in_features**-0.5 if knobs.width else 0
        for tensor in (layer.weight, layer.bias):
            drawn = torch.empty(tensor.shape[::-1]).uniform_(-bound, bound, generator=seeded)
            tensor.data = (drawn.mT if drawn.dim() == 2 else drawn).contiguous()
    model = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1]) if sizes else layers[0]
    groups = [
        {"params": [layer.weight for layer in layers], "weight_decay": knobs.weight_decay},
        {"params": [layer.bias for layer in layers], "weight_decay": 0.0},
    ]
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = kind[knobs.optimizer](groups, lr=knobs.learning_rate)
    smooth = knobs.label_smoothing if loss == "binary" else 0
    wanted = (labels + smooth * (0.5 - labels)).float()
    of_loss = {
        "binary": torch.nn.BCEWithLogitsLoss(reduction="sum"),
        "squared": lambda given, told: (given - told).square().sum() / 2,
        "huber": torch.nn.HuberLoss(reduction="sum", delta=1.0),
    }[loss]
    features = torch.from_numpy(scaled(rows.features, rows)).float()
    shuffle = torch.Generator().manual_seed(knobs.seed)
    for _ in range(5):
        for some in torch.randperm(300, generator=shuffle).split(50):
            optimizer.zero_grad()
            (of_loss(model(features[some]), wanted[some]) / len(some)).backward()
            optimizer.step()
    with torch.no_grad():
        said = model(torch.from_numpy(scaled(asked.features, rows)).float()).double().numpy()
    got = trained.head.logits(asked.features)
    got = got if units is None else units.learned(got)
    np.testing.assert_allclose(got, said, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("loss", ["binary", "squared", "huber"])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adamw"])
@pytest.mark.parametrize("unknown", [False, True])
def test_the_figures_are_those_of_the_head_that_is_kept(loss, optimizer, unknown):
    rows, val = (TRAIN, VAL) if loss == "binary" else (NUMBERS, NUMBERS_VAL)
    rows, val = (forget(rows), forget(val)) if unknown else (rows, val)
    used = {"optimizer": optimizer, "learning_rate": 0.1, "weight_decay": 0.001, "width": 8}
    if optimizer == "lbfgs":
        used = {"optimizer": optimizer, "weight_decay": 0.001}
    one = fit(rows, loss, used, val, epochs=60, patience=5)
    logits, known = one.head.logits(val.features), ~np.isnan(val.labels)
    if loss == "binary":
        shares = one.head.answers(val.features, 1.0, "multilabel")[known]
        wanted = (
            log_loss(val.labels[known], shares),
            accuracy_score(val.labels[known], shares > 0.5),
        )
    else:
        units = losses.Units.of(loss, rows.labels)
        away = np.abs(units.learned(logits) - units.learned(val.labels))[known]
        lost = away**2 / 2
        if loss == "huber":
            lost = np.where(away < 1, lost, away - 0.5)
        columns = zip(val.labels.T, logits.T, known.T, strict=True)
        wanted = lost.mean(), np.mean([r2_score(y[k], z[k]) for y, z, k in columns])
    assert one.kept.val_loss == pytest.approx(wanted[0], rel=1e-3)
    assert one.kept.val_accuracy == pytest.approx(wanted[1], abs=1e-4)
    if optimizer == "adamw":
        told = [point.val_loss for point in one.curve]
        assert one.kept.epoch == 1 + int(np.argmin(told))
        assert len(told) == min(60, one.kept.epoch + 5)


def test_label_smoothing_and_balance_change_what_is_learned_as_they_say():
    used = {"optimizer": "adam", "learning_rate": 0.04, "weight_decay": 0.001}
    plain, smooth = (
        fit(TRAIN, "binary", used | {"label_smoothing": share}, epochs=60).head
        for share in (0.0, 0.3)
    )
    balanced = fit(TRAIN, "binary", used, kind="balanced", epochs=60).head

    def shares(head):
        return head.answers(VAL.features, 1.0, "multilabel")

    assert np.abs(shares(smooth) - 0.5).mean() < np.abs(shares(plain) - 0.5).mean() - 0.02
    assert shares(balanced)[:, -1].mean() > shares(plain)[:, -1].mean() + 0.02


def test_a_stack_gives_the_heads_that_single_runs_give():
    knobs = [
        Hyperparameters(optimizer, rate, 0.01, 8, dropout, smoothing, seed)
        for optimizer in ("sgd", "adamw")
        for rate, dropout, smoothing in ((0.01, 0.0, 0.1), (0.03, 0.3, 0.0))
        for seed in (0, 1)
    ]
    plan = schedule(TRAIN, "binary", epochs=4)
    for one in fit_heads(forget(TRAIN), forget(VAL), knobs, plan, "cpu"):
        alone = fit_heads(forget(TRAIN), forget(VAL), [one.hyperparameters], plan, "cpu")[0]
        np.testing.assert_allclose(one.head.weight, alone.head.weight, rtol=2e-4, atol=2e-4)
        assert one.kept.val_loss == pytest.approx(alone.kept.val_loss, rel=1e-4)


@pytest.mark.parametrize("loss", ["binary", "squared", "huber"])
def test_the_number_of_cores_changes_no_byte(loss, monkeypatch):
    rows = forget(labelled(200, 3, 70, 60) if loss == "binary" else measured(200, 3))
    names = ["lbfgs"] if loss == "huber" else ["lbfgs", "ridge"]
    used = [{"optimizer": name, "weight_decay": 0.1} for name in names]
    found = []
    for cores in (1, 4):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        heads = [fit(rows, loss, one).head for one in used]
        found.append([head.weight.tobytes() + head.bias.tobytes() for head in heads])
    assert found[0] == found[1]


@pytest.mark.parametrize("loss", ["binary", "squared", "huber"])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adamw"])
def test_refit_learns_from_both_and_answers_as_well(loss, optimizer):
    rows, val = (TRAIN, VAL) if loss == "binary" else (NUMBERS, NUMBERS_VAL)
    one = fit(rows, loss, {"optimizer": optimizer, "learning_rate": 0.05}, val)
    again = refit(one, rows, val, schedule(rows, loss), "cpu")
    assert not np.array_equal(again.weight, one.head.weight)
    asked = labelled(400, 8) if loss == "binary" else measured(400, 8)
    weights = np.ones(asked.labels.shape[1], np.float32)
    scores = [
        losses.figures(
            "binary" if loss == "binary" else "squared",
            head.logits(asked.features).__getitem__,
            asked.labels,
            weights,
        )[1]
        for head in (one.head, again)
    ]
    assert scores[1] > scores[0] - 0.02


def alone(pool, mask, loss, used, kind):
    return fit(pool.take(mask), loss, used, kind=kind).head.logits(pool.features[~mask])


@pytest.mark.parametrize(
    ("loss", "optimizer", "kind"),
    [
        *itertools.product(
            ["binary"], ["lbfgs", "ridge", "nearest_mean", "adamw"], ["none", "balanced"]
        ),
        *itertools.product(["squared", "huber"], ["lbfgs", "adamw"], ["none"]),
        ("squared", "ridge", "none"),
    ],
)
def test_on_subsets_each_head_is_what_it_would_be_alone(loss, optimizer, kind):
    pool = TRAIN if loss == "binary" else NUMBERS
    used = {"optimizer": optimizer, "weight_decay": 0.05}
    if optimizer == "adamw":
        used["learning_rate"] = 0.05
    masks = [np.random.default_rng(seed).random(300) < 0.8 for seed in range(3)]
    asked = [~mask for mask in masks]
    plan = schedule(pool, loss, kind)
    found = list(on_subsets(pool, masks, asked, Hyperparameters(**used), plan, kind))
    tolerance = 0.3 if optimizer == "adamw" else 0.02
    for mask, answers in zip(masks, found, strict=True):
        wanted = alone(pool, mask, loss, used, kind)
        spread = wanted.std(axis=0)
        np.testing.assert_allclose(answers / spread, wanted / spread, atol=tolerance)


@pytest.mark.parametrize("dimension", [DIMENSION, 400])
def test_on_subsets_unknown_cells_are_left_out(dimension):
    pool = forget(labelled(300, 0, 3, dimension))
    masks = [np.random.default_rng(seed).random(300) < 0.8 for seed in range(2)]
    used = {"optimizer": "ridge", "weight_decay": 0.05}
    found = on_subsets(
        pool, masks, [~m for m in masks], Hyperparameters(**used), schedule(pool, "binary"), "none"
    )
    for mask, answers in zip(masks, found, strict=True):
        wanted = alone(pool, mask, "binary", used, "none")
        np.testing.assert_allclose(answers, wanted, atol=0.01 * wanted.std())


def test_what_is_held_out_of_a_stack_is_not_learned():
    pool = NUMBERS
    masks = [np.random.default_rng(seed).random(300) < 0.7 for seed in range(3)]
    asked = [~mask for mask in masks]
    head = Hyperparameters("adam", learning_rate=0.05, width=8)
    plan = schedule(pool, "squared")
    told = next(iter(on_subsets(pool, masks, asked, head, plan, "none")))
    # Rows of the first subset's held-out part trade places; units stay the same.
    labels = pool.labels.copy()
    labels[~masks[0]] = labels[~masks[0]][::-1]
    lied = list(on_subsets(replace(pool, labels=labels), masks, asked, head, plan, "none"))
    np.testing.assert_allclose(lied[0], told, rtol=1e-3)


def test_balanced_weights_make_positives_and_negatives_of_a_label_alike():
    rows = forget(TRAIN)
    cells = losses.LOSSES["binary"].importance(
        rows.labels, class_weights("balanced", rows.labels, 4)
    )
    sums = [np.where(rows.labels == value, cells, 0).sum(axis=0) for value in (0, 1)]
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-5)
    np.testing.assert_allclose(sums[0] + sums[1], (~np.isnan(rows.labels)).sum(axis=0), rtol=1e-5)


def test_a_loss_of_huge_logits_is_a_number():
    logits = np.array([[1e5, -1e5]], dtype=np.float32)
    np.testing.assert_allclose(
        losses.cell_losses("binary", logits, np.array([[1.0, 1.0]])), [[0, 1e5]]
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("loss", ["binary", "squared", "huber"])
def test_a_gpu_gives_the_heads_of_the_cpu(loss):
    rows, val = (forget(TRAIN), forget(VAL)) if loss == "binary" else (NUMBERS, NUMBERS_VAL)
    knobs = [Hyperparameters("adamw", 0.01, 0.01, width, 0.0, 0.0, 0) for width in (0, 8)]
    here, there = (
        fit_heads(rows, val, knobs, schedule(rows, loss), device) for device in ("cpu", "cuda")
    )
    for one, other in zip(here, there, strict=True):
        assert one.kept.val_loss == pytest.approx(other.kept.val_loss, rel=1e-3)
        assert one.kept.val_accuracy == pytest.approx(other.kept.val_accuracy, abs=1e-2)


def test_numbers_that_are_all_the_same_but_for_rounding_do_not_vary():
    same = np.full((30, 1), -0.1) + np.arange(30)[:, None] * 1e-17
    labels = np.hstack([same, np.arange(30.0)[:, None]])
    found = losses.spreads(labels)
    assert found[0] == 0
    assert found[1] == pytest.approx(np.var(np.arange(30)) * 30)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_labels_that_a_plane_parts_are_solved_for_with_hardly_any_penalty():
    features = np.random.default_rng(0).normal(size=(40, 30))
    rows = split(features, (features[:, :3] > 0).astype(float))
    none = rows.take(slice(0))
    asked = [Hyperparameters("lbfgs", weight_decay=decay) for decay in (1e-3, 1e-7, 0)]
    schedule = Schedule(1, 256, 0, np.ones(3, np.float32), loss="binary")
    for one in fit_heads(rows, none, asked, schedule, "cpu"):
        assert one.head is not None, one.status
        assert ((one.head.logits(rows.features) > 0) == (rows.labels == 1)).all()

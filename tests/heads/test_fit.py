"""Heads trained together are the heads that one gets alone, and those that torch gets."""

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from pipeline.core.errors import DataError, DeviceError, MissingSetError, TrainingError
from pipeline.heads import gradient_descent
from pipeline.heads.fit import device_for, fit_heads, trained_again
from pipeline.heads.gradient_descent import RULES
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.scaling import centre_and_scale
from pipeline.heads.subsets import on_subsets
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split

CPU = "cpu"
ADAMW = Hyperparameters("adamw", 0.01, 0.1, 0, 0.0, 0.0, 0)
SCHEDULE = Schedule(epochs=6, batch_size=16, patience=0, class_weights=np.ones(3, np.float32))


def blobs(rows, seed, classes=3, dimension=10, distance=1.0):
    """Overlapping classes, with features of unequal scale and one that never changes."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    centres = np.random.default_rng(99).standard_normal((classes, dimension)) * distance
    features = generator.standard_normal((rows, dimension)) + centres[labels]
    features = features * np.linspace(0.1, 5, dimension) + 3
    features[:, 0] = 7
    names = np.array([f"{row:04}" for row in range(rows)])
    views = np.zeros(rows, np.int32)
    return Split(names, names, views, labels.astype(np.int64), features.astype(np.float32))


TRAIN, VAL = blobs(100, 0), blobs(50, 1)
NO_VAL = blobs(0, 2)


def combinations(**listed):
    lists = {name: listed.get(name, [value]) for name, value in vars(ADAMW).items()}
    return [Hyperparameters(*values) for values in itertools.product(*lists.values())]


def arrays(head):
    return {name: array for name, array in vars(head).items() if array is not None}


def assert_same(one, other, tolerance=2e-5):
    assert arrays(one).keys() == arrays(other).keys()
    for name, array in arrays(one).items():
        np.testing.assert_allclose(array, arrays(other)[name], rtol=tolerance, atol=tolerance)


def torch_head(knobs, schedule, train=TRAIN):
    """The same head by torch's own layers, loss and optimizers, one picture order and all."""
    mean = train.features.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = float(np.sqrt(((train.features - mean) ** 2).mean()))
    features = torch.from_numpy((train.features - mean) / scale)
    labels = torch.from_numpy(train.labels)
    classes = len(schedule.class_weights)
    if knobs.width:
        generator = torch.Generator().manual_seed(knobs.seed)
        layers = [torch.nn.Linear(10, knobs.width), torch.nn.Linear(knobs.width, classes)]
        with torch.no_grad():
            for layer in layers:
                bound = layer.in_features**-0.5
                for tensor in (layer.weight, layer.bias):
                    shape = tensor.shape[::-1]
                    drawn = torch.empty(shape).uniform_(-bound, bound, generator=generator)
                    tensor.copy_(drawn.mT if len(shape) == 2 else drawn)
        model = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])
    else:
        layers = [torch.nn.Linear(10, classes)]
        model = layers[0]
        with torch.no_grad():
            model.weight.zero_()
            model.bias.zero_()
    groups = [
        {"params": [layer.weight for layer in layers], "weight_decay": knobs.weight_decay},
        {"params": [layer.bias for layer in layers], "weight_decay": 0.0},
    ]
    optimizer = torch_optimizer(knobs.optimizer, groups, knobs.learning_rate)
    loss = torch.nn.CrossEntropyLoss(
        torch.from_numpy(schedule.class_weights), label_smoothing=knobs.label_smoothing
    )
    shuffle = torch.Generator().manual_seed(knobs.seed)
    for _ in range(schedule.epochs):
        for rows in torch.randperm(len(labels), generator=shuffle).split(schedule.batch_size):
            optimizer.zero_grad()
            loss(model(features[rows]), labels[rows]).backward()
            optimizer.step()
    return model, mean, scale


def torch_optimizer(name, parameters, rate, **options):
    if name in ("sgd", "momentum"):
        momentum = 0.9 if name == "momentum" else 0
        return torch.optim.SGD(parameters, lr=rate, momentum=momentum, **options)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return kind(parameters, lr=rate, **options)


@pytest.mark.parametrize("name", RULES)
def test_update_rules_equal_torch_optim_for_each_head(name):
    rates, decays = [0.001, 0.01, 0.1], [0.0, 0.01, 0.5]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 7, 3, 4, generator=generator)
    alone = [weight[:, :, head].clone().requires_grad_() for head in range(3)]
    optimizers = [
        torch_optimizer(name, [tensor], rate, weight_decay=decay)
        for tensor, rate, decay in zip(alone, rates, decays, strict=True)
    ]
    rate, decay = torch.tensor(rates).view(1, 1, 3, 1), torch.tensor(decays).view(1, 1, 3, 1)
    moments = {}
    for step in range(1, 21):
        gradient = torch.randn(weight.shape, generator=generator)
        for head, (tensor, optimizer) in enumerate(zip(alone, optimizers, strict=True)):
            tensor.grad = gradient[:, :, head].clone()
            optimizer.step()
        RULES[name](weight, gradient.clone(), moments, step, rate, decay)
    for head, tensor in enumerate(alone):
        torch.testing.assert_close(weight[:, :, head], tensor.detach(), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    "knobs",
    [
        replace(ADAMW, optimizer="sgd"),
        replace(ADAMW, optimizer="momentum"),
        replace(ADAMW, optimizer="adam", label_smoothing=0.2),
        replace(ADAMW, seed=5),
        replace(ADAMW, width=16, seed=3),
        replace(ADAMW, optimizer="momentum", width=16, label_smoothing=0.1),
    ],
    ids=lambda knobs: f"{knobs.optimizer}-{knobs.width}",
)
@pytest.mark.parametrize("weights", [[1, 1, 1], [0.53, 1.9, 1.07]], ids=["even", "weighted"])
def test_a_head_equals_the_one_that_torch_trains(knobs, weights):
    schedule = replace(SCHEDULE, class_weights=np.array(weights, dtype=np.float32))
    model, mean, scale = torch_head(knobs, schedule)
    trained = fit_heads(TRAIN, NO_VAL, [knobs], schedule, CPU)[0]
    with torch.no_grad():
        wanted = model(torch.from_numpy((VAL.features - mean) / scale)).numpy()
    np.testing.assert_allclose(trained.head.logits(VAL.features), wanted, rtol=1e-3, atol=1e-4)


def test_a_sweep_gives_the_heads_that_single_runs_give():
    knobs = combinations(
        optimizer=["sgd", "momentum", "adam", "adamw"],
        learning_rate=[0.003, 0.03],
        weight_decay=[0.0, 0.1],
        width=[0, 8],
        dropout=[0.0, 0.3],
        label_smoothing=[0.0, 0.1],
        seed=[0, 1],
    )
    together = fit_heads(TRAIN, VAL, knobs, SCHEDULE, CPU)
    assert [one.hyperparameters for one in together] == knobs
    for one in together[::17]:
        alone = fit_heads(TRAIN, VAL, [one.hyperparameters], SCHEDULE, CPU)[0]
        assert alone.kept.epoch == one.kept.epoch
        assert_same(one.head, alone.head, 2e-4)


def test_stacks_too_large_for_memory_are_divided_without_a_difference(monkeypatch):
    knobs = combinations(learning_rate=[0.001, 0.003, 0.01, 0.03, 0.1], seed=[0, 1])
    whole = fit_heads(TRAIN, VAL, knobs, SCHEDULE, CPU)
    monkeypatch.setattr(gradient_descent, "STACK_LIMIT", 330)
    assert [
        (len(seeds), len(some)) for seeds, some in gradient_descent.stacks(knobs, 10, SCHEDULE)
    ] == [
        (2, 3),
        (2, 2),
    ]
    monkeypatch.setattr(gradient_descent, "STACK_LIMIT", 170)
    assert len(gradient_descent.stacks(knobs, 10, SCHEDULE)) == 4
    for one, other in zip(whole, fit_heads(TRAIN, VAL, knobs, SCHEDULE, CPU), strict=True):
        assert one.kept.epoch == other.kept.epoch
        assert_same(one.head, other.head)


def test_two_runs_give_the_same_bytes():
    knobs = combinations(width=[0, 8], dropout=[0.0, 0.5], seed=[0, 1])
    runs = [fit_heads(TRAIN, VAL, knobs, SCHEDULE, CPU) for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        assert one.curve == other.curve
        for name, array in arrays(one.head).items():
            np.testing.assert_array_equal(array, arrays(other.head)[name])


def test_the_number_of_threads_changes_no_byte():
    # At this size each of these heads but the nearest mean came out otherwise on two threads.
    train, val = blobs(500, 3, 16, 800), blobs(50, 4, 16, 800)
    knobs = [replace(ADAMW, optimizer=name) for name in ("lbfgs", "ridge", "nearest_mean")]
    knobs += combinations(width=[0, 256], dropout=[0.0, 0.5])
    schedule = Schedule(2, 64, 0, np.ones(16, np.float32))
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        with threadpool_limits(limits=threads, user_api="blas"):
            heads = [one.head for one in fit_heads(train, val, knobs, schedule, CPU)]
        assert torch.get_num_threads() == threads
        found.append([array.tobytes() for head in heads for array in arrays(head).values()])
    torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_the_seed_makes_a_difference():
    one, other = fit_heads(TRAIN, VAL, combinations(width=[8], seed=[0, 1]), SCHEDULE, CPU)
    assert not np.allclose(one.head.weight, other.head.weight)


def test_knobs_in_any_order_come_back_in_that_order():
    knobs = combinations(optimizer=["sgd", "lbfgs", "adamw"], width=[0], seed=[1, 0])
    knobs = [one for one in knobs if one.optimizer != "lbfgs" or one.seed == 0][::-1]
    assert [one.hyperparameters for one in fit_heads(TRAIN, VAL, knobs, SCHEDULE, CPU)] == knobs


def test_the_best_epoch_is_kept_and_figures_are_those_of_its_weights():
    schedule = replace(SCHEDULE, epochs=40)
    knobs = combinations(learning_rate=[0.1, 0.3], width=[0, 32])
    for one in fit_heads(TRAIN, VAL, knobs, schedule, CPU):
        losses = [point.val_loss for point in one.curve]
        assert len(losses) == 40
        assert one.kept.epoch == 1 + int(np.argmin(losses))
        logits = torch.from_numpy(one.head.logits(VAL.features))
        labels = torch.from_numpy(VAL.labels)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        assert one.kept.val_loss == pytest.approx(float(loss), rel=1e-3)
        assert one.kept.val_accuracy == float((logits.argmax(dim=1) == labels).double().mean())


def test_each_head_stops_when_its_own_patience_ends():
    schedule = replace(SCHEDULE, epochs=200, patience=3)
    quick, slow = fit_heads(TRAIN, VAL, combinations(learning_rate=[0.3, 1e-4]), schedule, CPU)
    assert len(quick.curve) == quick.kept.epoch + 3 < 200
    assert quick.status == "stopped early"
    assert len(slow.curve) == 200
    assert slow.status == "all epochs"


def test_without_validation_the_last_epoch_is_kept():
    one = fit_heads(TRAIN, NO_VAL, [ADAMW], replace(SCHEDULE, patience=1), CPU)[0]
    assert one.kept.epoch == SCHEDULE.epochs
    assert np.isnan(one.kept.val_loss)
    assert one.head is not None


@pytest.mark.parametrize("val", [VAL, NO_VAL], ids=["with validation", "without"])
def test_a_head_that_diverges_is_lost_and_the_others_stay(val):
    knobs = combinations(optimizer=["sgd"], learning_rate=[0.01, 1e30], width=[8])
    fine, lost = fit_heads(TRAIN, val, knobs, SCHEDULE, CPU)
    alone = fit_heads(TRAIN, val, knobs[:1], SCHEDULE, CPU)[0]
    assert_same(fine.head, alone.head)
    assert lost.head is None
    assert lost.kept is None
    assert lost.status.startswith("diverged: the training loss became nan in epoch 1")


def test_weights_that_overflow_in_the_last_step_are_lost_too():
    one_step = replace(SCHEDULE, epochs=1, batch_size=100)
    knobs = replace(ADAMW, optimizer="sgd", learning_rate=3e38)
    tiny = replace(TRAIN, features=TRAIN.features / 1e6)
    lost = fit_heads(tiny, NO_VAL, [knobs], one_step, CPU)[0]
    assert lost.head is None
    assert lost.status == "diverged: a weight overflowed in epoch 1"
    tiny = replace(TRAIN, features=TRAIN.features / 1e20 / 1e20)
    solved = fit_heads(TRAIN, NO_VAL, [Hyperparameters("lda")], one_step, CPU, measured=False)[0]
    assert np.isnan(solved.kept.train_loss)
    lbfgs = replace(solved, hyperparameters=Hyperparameters("lbfgs"), sums=None)
    with pytest.raises(TrainingError, match="a weight overflowed; scale the features"):
        trained_again(lbfgs, tiny, np.ones(100, bool), one_step, CPU)


def test_class_weights_lift_the_rare_class():
    rows = np.concatenate(
        [np.flatnonzero(TRAIN.labels == 0)[:4], np.flatnonzero(TRAIN.labels != 0)]
    )
    rare = TRAIN.take(rows)
    counts = np.bincount(rare.labels)
    balanced = replace(SCHEDULE, class_weights=(len(rows) / (3 * counts)).astype(np.float32))
    even = fit_heads(rare, NO_VAL, [ADAMW], SCHEDULE, CPU)[0].head
    lifted = fit_heads(rare, NO_VAL, [ADAMW], balanced, CPU)[0].head
    of_class = VAL.features[VAL.labels == 0]
    assert (lifted.logits(of_class).argmax(1) == 0).mean() > (
        even.logits(of_class).argmax(1) == 0
    ).mean()


def test_the_heads_learn():
    for one in fit_heads(
        TRAIN, VAL, combinations(width=[0, 16]), replace(SCHEDULE, epochs=30), CPU
    ):
        assert one.kept.val_accuracy > 0.8


def test_a_gpu_without_enough_memory_is_one_line_that_names_the_cpu(monkeypatch):
    """What PyTorch raises then; no GPU is to be had here."""

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(gradient_descent, "_descend", full)
    with pytest.raises(DeviceError, match=r"100 training views .* set train\.device to cpu"):
        fit_heads(TRAIN, VAL, [ADAMW], SCHEDULE, CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_heads_of_the_cpu():
    knobs = combinations(optimizer=["sgd", "adamw"], width=[0, 8])
    here = fit_heads(TRAIN, VAL, knobs, SCHEDULE, CPU)
    there = fit_heads(TRAIN, VAL, knobs, SCHEDULE, "cuda")
    for one, other in zip(here, there, strict=True):
        assert_same(one.head, other.head, 5e-3)


@pytest.mark.parametrize("factor", [1e30, 1e-30])
@pytest.mark.parametrize("optimizer", ["lbfgs", "ridge", "lda"])
def test_features_of_any_size_are_learned_from(factor, optimizer):
    """Their squares are no float32; a head that says nothing came of them, with scale infinite."""
    rows, fresh = blobs(120, 0, 3, 8, 1.0), blobs(300, 1, 3, 8, 1.0)
    used = Hyperparameters(optimizer, 0, 0.01, 0, 0, 0, 0)
    schedule = Schedule(1, 1, 0, np.ones(3, np.float32))
    none = rows.take(slice(0))

    def learned(by):
        large = replace(rows, features=(rows.features * by).astype(np.float32))
        (one,) = fit_heads(large, none, [used], schedule, "cpu")
        inside = np.arange(120) % 5 > 0
        (held,) = on_subsets(large, [inside], [~inside], used, schedule, "none")
        logits = one.head.logits((fresh.features * by).astype(np.float32))
        return np.concatenate([logits, held])

    wanted = learned(1.0)
    np.testing.assert_allclose(learned(factor), wanted, atol=1e-3 * np.abs(wanted).max())


def test_features_that_have_no_scale_are_refused_in_one_line():
    features = np.array([[3e38, -3e38], [-3e38, 3e38], [3e38, 3e38]], np.float32)
    with pytest.raises(
        DataError, match=r"go up to 3e\+38, which is too large for a head: divide"
    ) as raised:
        centre_and_scale(features - np.float32(0))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("loss", ["softmax", "binary", "squared"])
def test_views_of_an_example_may_weigh_as_one_together(loss):
    rows = blobs(120, 0, dimension=6, distance=0.4)
    if loss != "softmax":
        labels = np.stack([rows.labels == 0, rows.labels == 1], axis=1).astype(float)
        rows = replace(rows, labels=labels)
    views, singles = rows.take(np.arange(60).repeat(5)), rows.take(np.arange(60, 120))
    both = Split.concat([views, singles])
    none = both.take(slice(0))
    plain = Schedule(300, 360, 0, np.ones(3 if loss == "softmax" else 2, np.float32), loss=loss)
    weighed = replace(plain, row_weights="example")
    asked = [
        Hyperparameters("lbfgs", weight_decay=0.03),
        Hyperparameters("momentum", weight_decay=0.03, learning_rate=0.3),
    ]
    solved, descended = fit_heads(both, none, asked, weighed, "cpu")
    spread = np.abs(solved.head.weight).max()
    np.testing.assert_allclose(descended.head.weight, solved.head.weight, atol=5e-3 * spread)
    (other,) = fit_heads(both, none, asked[:1], plain, "cpu")
    assert np.abs(other.head.weight - solved.head.weight).max() > 0.02 * spread

    # As 5 copies of each example with a single view; features are scaled by other rows, so about.
    copies = Split.concat([views, *[singles] * 5])
    (copied,) = fit_heads(copies, none, asked[:1], plain, "cpu")
    np.testing.assert_allclose(copied.head.weight, solved.head.weight, atol=0.05 * spread)


@pytest.mark.parametrize("weights", [[1, 1, 1], [0.53, 1.9, 1.07]], ids=["even", "weighted"])
def test_views_that_weigh_as_one_are_smoothed_as_one(weights):
    """All rows weigh a fifth, so the loss, a weighted mean, is that of rows that weigh one."""
    views = blobs(60, 0).take(np.arange(60).repeat(5))
    plain = Schedule(50, 300, 0, np.array(weights, dtype=np.float32))
    asked = [replace(ADAMW, optimizer="momentum", learning_rate=0.3, label_smoothing=0.2)]
    schedules = plain, replace(plain, row_weights="example")
    one, other = (fit_heads(views, NO_VAL, asked, how, CPU)[0].head for how in schedules)
    assert_same(one, other, tolerance=1e-4)


def test_cuda_without_pytorch_is_one_line_that_says_what_installs_it(monkeypatch):
    """Heads in closed form need no PyTorch, but only PyTorch knows whether there is a GPU."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert device_for("auto", descends=False) == device_for("cpu", descends=False) == "cpu"
    with pytest.raises(MissingSetError, match=r"train\.device cuda needs PyTorch.*: run `"):
        device_for("cuda", descends=False)

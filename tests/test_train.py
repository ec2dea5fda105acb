"""The train stage: every combination of knobs, the best by validation, and its files."""

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline import kinds
from pipeline.core.errors import DataError, DeviceError, ParamsError, TrainingError
from pipeline.core.params import load
from pipeline.core.paths import (
    FEATURES,
    HEAD,
    HEAD_WEIGHTS,
    MANIFEST,
    METRICS,
    OUT_OF_FOLD,
    PREDICTIONS,
    SWEEP,
    TRAINING,
)
from pipeline.evaluate import evaluate
from pipeline.heads import fit
from pipeline.heads.fit import class_weights, fit_heads, refit
from pipeline.heads.head import load_head, probabilities, without_priors
from pipeline.heads.hyperparameters import Hyperparameters, every_combination
from pipeline.heads.trained import Schedule
from pipeline.tables.features import read_splits, write_shards
from pipeline.tables.manifest import read_manifest, write_manifest
from pipeline.train import train
from tests.heads.test_fit import blobs


def make_features(counts, dimension=12, views=1, seed=0):
    """A manifest and its features: `counts` is pictures of each class, by split.

    Picture n has the digest n; classes overlap a little.
    """
    generator = np.random.default_rng(seed)
    names = sorted({name for of_class in counts.values() for name in of_class})
    centres = np.random.default_rng(1).standard_normal((len(names), dimension))
    pictures, rows = [], []
    for split, of_class in counts.items():
        for label, count in of_class.items():
            for _ in range(count):
                digest = f"{7919 * len(pictures) % 256:02x}{len(pictures):062x}"
                path = f"data/raw/{label}/{len(pictures):04}.jpg"
                pictures.append({"digest": digest, "path": path, "label": label, "split": split})
                for view in range(views + 1 if split == "train" else 1):
                    noise = generator.standard_normal(dimension)
                    rows.append((digest, view, centres[names.index(label)] + 1.5 * noise))
    MANIFEST.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(pictures).sort_values("path").to_parquet(MANIFEST)
    digests, numbers, features = zip(*sorted(rows, key=lambda row: row[:2]), strict=True)
    write_shards(FEATURES, [(digests, numbers, np.stack(features).astype(np.float32))])


COUNTS = {
    "train": {"ants": 30, "bees": 30, "wasps": 20},
    "val": {"ants": 10, "bees": 10, "wasps": 8},
    "test": {"ants": 12, "bees": 12, "wasps": 6},
}


@pytest.fixture
def trained_project(project):
    """Where `train()` can run: features are there, and the sweep is small."""
    make_features(COUNTS)
    project.set(**{"train.epochs": 12, "train.batch_size": 32, "train.device": "cpu"})
    project.set(**{"train.optimizer": "adamw", "train.learning_rate": 0.003})
    project.set(**{"train.weight_decay": 0.01, "train.width": 0, "train.label_smoothing": 0.0})
    project.set(**{"train.power": 1.0, "train.refit": False})
    return project


def make_targets(task, targets, dimension=12):
    """A manifest of a task and its features; `targets` is [n, c] by name, of which 80 are train's.

    The first columns of the features tell the targets, with some noise.
    """
    generator = np.random.default_rng(3)
    columns = {name: np.asarray(values, dtype=float) for name, values in targets.items()}
    count = len(next(iter(columns.values())))
    digests = [f"{7919 * number % 256:02x}{number:062x}" for number in range(count)]
    features = generator.standard_normal((count, dimension))
    for number, values in enumerate(columns.values()):
        spread = np.nanstd(values) or 1.0
        known = np.nan_to_num((values - np.nanmean(values)) / spread)
        features[:, number] += 1.5 * known
    manifest = pd.DataFrame(
        {
            "digest": digests,
            "path": [f"data/raw/{number:04}.jpg" for number in range(count)],
            "label": "",
            "split": ["train" if n < 80 else "val" if n < 110 else "test" for n in range(count)],
        }
        | {f"target:{name}": values for name, values in columns.items()}
    )
    MANIFEST.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(manifest, "image", MANIFEST, task=task)
    order = np.argsort(digests)
    write_shards(
        FEATURES,
        [(np.array(digests)[order], np.zeros(count), features[order].astype(np.float32))],
    )


def table(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_writes_the_head_the_curve_and_the_sweep(trained_project, capsys):
    trained_project.set(**{"train.learning_rate": [0.001, 0.01], "train.width": [0, 8]})
    train()
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    sweep = table(SWEEP)
    assert about.classes == ["ants", "bees", "wasps"]
    assert (about.dimension, about.width) == (12, head.width)
    assert len(sweep) == 4
    best = sweep[0]
    assert float(best["val_loss"]) == min(float(row["val_loss"]) for row in sweep)
    assert about.hyperparameters.learning_rate == float(best["learning_rate"])
    assert about.validation == {
        "pictures": 28,
        "loss": float(best["val_loss"]),
        "accuracy": float(best["val_accuracy"]),
    }
    curve = table(TRAINING)
    assert [int(row["epoch"]) for row in curve] == list(range(1, int(best["epochs"]) + 1))
    kept = curve[int(best["epoch"]) - 1]
    assert kept["val_loss"] == best["val_loss"]
    assert min(float(row["val_loss"]) for row in curve) == float(kept["val_loss"])
    assert "160 training views; the best of 4 heads is adamw" in capsys.readouterr().out


def test_the_json_is_sorted_and_says_nothing_of_other_stages(trained_project):
    train()
    text = HEAD.read_text()
    about = json.loads(text)
    assert text == json.dumps(about, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    figures = {"calibrated_on", "epoch", "power", "refit", "temperature", "training", "validation"}
    assert set(about) == {"classes", "dimension", "hyperparameters", "width"} | figures


def test_two_runs_write_the_same_bytes(trained_project):
    trained_project.set(**{"train.width": [0, 16], "train.dropout": [0.0, 0.5]})
    runs = []
    for _ in range(2):
        train()
        runs.append([file.read_bytes() for file in (HEAD, HEAD_WEIGHTS, SWEEP, TRAINING)])
    assert runs[0] == runs[1]


def test_the_classic_recipe_can_be_said(trained_project):
    """1,024 ReLU units, softmax, Adam, cross-entropy, ten epochs."""
    trained_project.set(
        **{
            "train.optimizer": "adam",
            "train.learning_rate": 0.001,
            "train.weight_decay": 0.0,
            "train.width": 1024,
            "train.epochs": 10,
            "train.patience": 0,
        }
    )
    train()
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    assert head.hidden_weight.shape == (1024, 12)
    assert about.hyperparameters.optimizer == "adam"
    assert len(table(TRAINING)) == 10


def test_closed_forms_compete_with_descent_and_leave_unread_knobs_empty(trained_project):
    names = ["adamw", "lbfgs", "ridge", "nearest_mean"]
    trained_project.set(**{"train.optimizer": names, "train.seed": [0, 1]})
    trained_project.set(**{"train.weight_decay": [0.1, 1.0]})
    train()
    sweep = table(SWEEP)
    counts = {name: sum(row["optimizer"] == name for row in sweep) for name in names}
    assert counts == {"adamw": 4, "lbfgs": 2, "ridge": 2, "nearest_mean": 1}
    nearest = next(row for row in sweep if row["optimizer"] == "nearest_mean")
    knobs = ("learning_rate", "weight_decay", "width", "dropout", "label_smoothing", "seed")
    assert [nearest[name] for name in knobs] == [""] * 6


def test_auto_chooses_the_weight_decay_and_says_so(trained_project, capsys):
    trained_project.set(**{"train.optimizer": ["lbfgs", "ridge"], "train.weight_decay": "auto"})
    train()
    about = load_head(HEAD_WEIGHTS, HEAD)[1]
    chosen = about.hyperparameters
    assert about.notes["weight_decay_auto"] == {"examples": 108, "folds": 5}
    lines = capsys.readouterr().out.splitlines()
    said = (
        f"train: weight decay {chosen.weight_decay:g}, chosen by cross-validation on 108 examples"
    )
    assert said in lines
    heads = [row for row in table(SWEEP) if row["status"] == "solved"]
    path = [row for row in table(SWEEP) if row["status"] == "cross-validated"]
    assert {row["optimizer"] for row in heads} == {row["optimizer"] for row in path}
    (of_chosen,) = (
        row
        for row in path
        if (row["optimizer"], row["scaling"]) == (chosen.optimizer, "global")
        and float(row["weight_decay"]) == chosen.weight_decay
    )
    assert float(of_chosen["behind_chosen"]) == 0
    # The number by hand gives the same head.
    weights = HEAD_WEIGHTS.read_bytes()
    by_hand = {"train.optimizer": chosen.optimizer, "train.weight_decay": chosen.weight_decay}
    trained_project.set(**by_hand)
    train()
    assert HEAD_WEIGHTS.read_bytes() == weights
    assert "weight_decay_auto" not in load_head(HEAD_WEIGHTS, HEAD)[1].notes
    assert "scaling" not in table(SWEEP)[0]


@pytest.mark.parametrize("name", ["lbfgs", "ridge", "nearest_mean"])
def test_a_closed_form_alone_is_saved_like_any_head(trained_project, name):
    trained_project.set(**{"train.optimizer": name})
    train()
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    assert head.width == 0
    assert about.validation["accuracy"] > 0.6
    assert len(table(TRAINING)) == 1


def test_a_head_that_diverges_is_told_and_another_is_saved(trained_project, capsys):
    trained_project.set(**{"train.optimizer": "sgd", "train.width": 8})
    trained_project.set(**{"train.learning_rate": [0.01, 1e30]})
    train()
    assert load_head(HEAD_WEIGHTS, HEAD)[1].hyperparameters.learning_rate == 0.01
    assert table(SWEEP)[-1]["status"] == "diverged: the training loss became nan in epoch 1"
    warning = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(warning) == 1
    assert "learning_rate 1e+30" in warning[0]


def test_all_heads_lost_is_an_error(trained_project):
    trained_project.set(**{"train.optimizer": "sgd", "train.width": 8})
    trained_project.set(**{"train.learning_rate": [1e20, 1e30]})
    with pytest.raises(TrainingError, match=r"training failed for all 2 heads.*learning_rate"):
        train()
    assert not HEAD.exists()


def test_without_validation_the_last_epoch_is_kept_with_a_warning(trained_project, capsys):
    make_features(COUNTS | {"val": {}})
    train()
    about = load_head(HEAD_WEIGHTS, HEAD)[1]
    assert about.epoch == 12
    assert about.validation == {"pictures": 0, "loss": None, "accuracy": None}
    assert "warning: there is no validation example" in capsys.readouterr().out
    trained_project.set(**{"train.optimizer": "ridge"})  # which has no epochs
    train()
    assert "last epoch" not in capsys.readouterr().out


def test_without_validation_there_is_no_choosing(trained_project):
    make_features(COUNTS | {"val": {}})
    trained_project.set(**{"train.seed": [0, 1]})
    with pytest.raises(DataError, match=r"no validation example to choose a head with"):
        train()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train": {"ants": 5}, "val": {"ants": 2}, "test": {}}, "labelled 'ants'"),
        ({"train": {}}, "no training example"),
        ({"test": {"hornets": 3}}, "no training example is labelled hornets"),
    ],
)
def test_impossible_data_is_told_in_words(trained_project, changed, message):
    make_features(COUNTS | changed)
    with pytest.raises(DataError, match=message):
        train()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_an_error(trained_project):
    trained_project.set(**{"train.device": "cuda"})
    with pytest.raises(DeviceError, match=r"train\.device is cuda"):
        train()


def combinations(project, **knobs):
    project.set(**{f"train.{name}": value for name, value in knobs.items()})
    return every_combination(load(kinds.schema).train)


def test_a_value_given_twice_is_one_head(trained_project):
    assert len(combinations(trained_project, seed=[1, 1, 2])) == 2


@pytest.mark.parametrize(
    ("optimizer", "count"),
    [
        ("adamw", 2 * 2 * 3),
        (["lbfgs", "lbfgs"], 2),
        (["lbfgs", "nearest_mean", "ridge"], 2 + 1 + 2),
        (["sgd", "nearest_mean", "ridge"], 2 * 2 * 3 + 1 + 2),
    ],
)
def test_ingest_is_told_how_many_heads_there_will_be(trained_project, optimizer, count):
    knobs = {"weight_decay": [0.1, 0.2, 0.1], "width": [0, 4], "seed": [1, 2, 3]}
    assert len(combinations(trained_project, optimizer=optimizer, **knobs)) == count
    assert load(kinds.schema).train.heads() == count


def test_too_many_heads_are_refused(trained_project):
    with pytest.raises(ParamsError, match="the sweep has 10,200 heads"):
        combinations(
            trained_project, seed=list(range(102)), weight_decay=[i / 7 for i in range(100)]
        )


def test_a_closed_form_with_a_hidden_layer_is_refused(trained_project):
    with pytest.raises(ParamsError, match="lbfgs trains only linear heads"):
        combinations(trained_project, optimizer=["adamw", "lbfgs"], width=64)


def test_up_to_two_thousand_examples_take_ten_more_heads_and_evaluate_takes_none(
    trained_project, monkeypatch
):
    fitted = []
    solve = fit._solve
    monkeypatch.setattr(fit, "_solve", lambda *given: fitted.append(given) or solve(*given))
    trained_project.set(**{"train.optimizer": "lbfgs", "train.refit": True})
    train()
    assert len(fitted) == 1 + 10 + 1  # the one that is chosen, the folds', and the one that is kept
    assert len(pd.read_parquet(OUT_OF_FOLD)) == 108
    evaluate()
    assert len(fitted) == 12


@pytest.mark.parametrize("name", ["lbfgs", "adamw", "nearest_mean"])
def test_the_chosen_head_learns_from_validation_pictures_too(trained_project, name):
    trained_project.set(**{"train.optimizer": name})
    train()
    chosen, about = load_head(HEAD_WEIGHTS, HEAD)
    sweep = SWEEP.read_bytes()
    trained_project.set(**{"train.refit": True})
    train()
    again, about_again = load_head(HEAD_WEIGHTS, HEAD)
    assert SWEEP.read_bytes() == sweep
    assert about_again == replace(about, refit=True, calibration=about_again.calibration)
    # By the validation pictures, or by all that it has learned from.
    examples = [one.calibration.calibrated_on for one in (about, about_again)]
    assert examples == [28, 108]
    assert chosen.weight.shape == again.weight.shape
    assert not np.allclose(chosen.weight, again.weight)


@pytest.mark.parametrize("name", ["ridge", "nearest_mean"])
def test_learning_the_validation_pictures_does_not_make_a_head_certain(name):
    """With more features than pictures it has them all right, as soon as it has learnt them."""
    rows, val, fresh = (blobs(count, seed, 3, 200, 0.3) for seed, count in enumerate((60, 30, 300)))
    knobs = Hyperparameters(name, 0, 1.0, 0, 0, 0, 0)
    schedule = Schedule(1, 1, 0, np.ones(3, np.float32))
    (chosen,) = fit_heads(rows, val, [knobs], schedule, "cpu")
    both = refit(chosen, rows, val, schedule, "cpu")

    def loss(head):
        shares = probabilities(head.logits(fresh.features))
        return -np.log(shares[np.arange(len(shares)), fresh.labels]).mean()

    assert loss(both) < loss(chosen.head)


@pytest.mark.parametrize("optimizer", ["lbfgs", "ridge"])
def test_a_balanced_head_keeps_its_classes_and_its_probabilities_come_true(
    trained_project, optimizer
):
    """One in twelve is of class b, which overlaps with a."""
    shares = {"a": 11, "b": 1}
    counts = {"train": 60, "val": 30, "test": 120}
    make_features({s: {n: c * k for n, k in shares.items()} for s, c in counts.items()}, 2)
    trained_project.set(**{"train.optimizer": optimizer, "train.class_weights": "balanced"})
    trained_project.set(**{"evaluate.bootstrap": 10, "train.refit": True})
    train()
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    evaluate()
    rows = pd.read_csv(PREDICTIONS)
    of_b = rows["predicted"] == "b"
    # As on 2cde96e: the class that is answered is that of the head without its calibration.
    given = read_splits(FEATURES, read_manifest(MANIFEST), ["a", "b"], ["test"], 1.0)["test"]
    was = without_priors(head, about.calibration).logits(given.features).argmax(axis=1)
    by_path = pd.Series(np.array(["a", "b"])[was], index=given.paths)
    assert (rows["predicted"] == by_path[rows["path"]].to_numpy()).all()
    assert 200 < of_b.sum() < 700  # far more than there are
    # The probability that stands beside a class is how often it is right.
    assert rows["p(b)"].mean() == pytest.approx(1 / 12, abs=0.015)
    for sure in (of_b, rows["p(b)"] >= 0.35):
        true = (rows["label"] == "b")[sure].mean()
        assert rows["p(b)"][sure].mean() == pytest.approx(true, abs=0.08)
    beside = rows["p(a)"].where(~of_b, rows["p(b)"])
    np.testing.assert_allclose(rows["probability"], beside)
    measured = json.loads(METRICS.read_text())["test"]
    assert measured["accuracy"] == pytest.approx((rows["label"] == rows["predicted"]).mean())
    assert measured["calibration_error"] < 0.05
    assert about.calibration.thresholds[1] == pytest.approx(1 / 12, abs=0.05)


def test_classes_of_equal_size_or_without_weights_are_answered_as_ever(trained_project):
    even = {split: dict.fromkeys(("ants", "bees"), 20) for split in ("train", "val", "test")}
    for counts, weights in ((even, "balanced"), (COUNTS, "none")):
        make_features(counts)
        trained_project.set(**{"train.class_weights": weights})
        train()
        assert not {"thresholds", "prior_shift"} & set(json.loads(HEAD.read_text()))


def test_balanced_class_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0] * 6 + [1] * 3 + [2])
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights("balanced", labels, 3), wanted, rtol=1e-6)
    np.testing.assert_array_equal(class_weights("none", labels, 3), np.ones(3))


@pytest.mark.slow
def test_torch_is_imported_only_where_a_head_descends(trained_project):
    """Importing it takes longer than all of a head in closed form."""
    code = "import sys; from pipeline.train import train; train(); print('torch' in sys.modules)"
    for optimizer, imported in (("lbfgs", "False"), ("adam", "True")):
        trained_project.set(**{"train.optimizer": optimizer, "train.width": 0})
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == imported, done.stderr


def some_labels(count=140):
    """Two labels of about even shares, of which one is unknown now and then, and a rare one."""
    labels = (np.random.default_rng(4).random((count, 3)) < [0.5, 0.4, 0.15]).astype(float)
    labels[::7, 1] = np.nan
    return {"wood": labels[:, 0], "brick": labels[:, 1], "moss": labels[:, 2]}


def some_numbers(count=140):
    numbers = np.random.default_rng(5).standard_normal((count, 2))
    return {"age": 40 + 12 * numbers[:, 0], "area": 0.3 + 0.1 * numbers[:, 1]}


@pytest.mark.parametrize("optimizer", ["lbfgs", "adamw", "nearest_mean"])
def test_several_labels_are_learned_with_a_threshold_each(trained_project, optimizer, capsys):
    make_targets("multilabel", some_labels())
    trained_project.set(**{"ingest.task": "multilabel", "train.optimizer": optimizer})
    trained_project.set(**{"train.refit": True, "train.learning_rate": 0.05})
    train()
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    assert about.task == "multilabel"
    assert about.classes == ["wood", "brick", "moss"]
    assert len(about.calibration.thresholds) == 3
    assert about.calibration.temperature != 1
    assert head.weight.shape == (3, 12)
    assert about.validation["accuracy"] > 0.8
    assert list(about.validation) == ["accuracy", "loss", "pictures"]
    assert table(SWEEP)[0]["val_accuracy"] == f"{about.validation['accuracy']}"
    line = r"train: loss [\d.]+ and accuracy [\d.]+ on 30 validation examples"
    assert re.search(line, capsys.readouterr().out)


@pytest.mark.parametrize(
    ("loss", "optimizer"), [("squared", "ridge"), ("huber", "lbfgs"), ("huber", "adamw")]
)
def test_numbers_are_learned_in_their_own_units(trained_project, loss, optimizer, capsys):
    make_targets("regression", some_numbers())
    trained_project.set(**{"ingest.task": "regression", "train.optimizer": optimizer})
    trained_project.set(**{"train.loss": loss, "train.learning_rate": 0.05})
    train()
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    assert (about.task, about.classes, about.calibration.temperature) == (
        "regression",
        ["age", "area"],
        1.0,
    )
    assert "thresholds" not in HEAD.read_text()
    assert about.validation["r2"] > 0.4
    assert "accuracy" not in about.validation
    rows, curve = table(SWEEP), table(TRAINING)
    assert {"train_r2", "val_r2"} < set(rows[0])
    assert set(curve[0]) == {"epoch", "train_loss", "train_r2", "val_loss", "val_r2"}
    answers = head.answers(np.zeros((1, 12), np.float32), 1.0, "regression")[0]
    np.testing.assert_allclose(answers, [40, 0.3], rtol=0.15)
    assert " and R² 0." in capsys.readouterr().out


def test_other_tasks_write_the_same_bytes_twice(trained_project):
    trained_project.set(**{"train.optimizer": ["adamw", "lbfgs", "ridge"], "train.refit": True})
    for task, targets in (("multilabel", some_labels()), ("regression", some_numbers())):
        make_targets(task, targets)
        trained_project.set(**{"ingest.task": task})
        runs = []
        for _ in range(2):
            train()
            runs.append([file.read_bytes() for file in (HEAD, HEAD_WEIGHTS, SWEEP, TRAINING)])
        assert runs[0] == runs[1]


def test_without_validation_thresholds_come_from_the_training_examples_of_other_folds(
    trained_project,
):
    make_targets("multilabel", {name: values[:80] for name, values in some_labels().items()})
    trained_project.set(**{"ingest.task": "multilabel", "train.optimizer": "lbfgs"})
    train()
    about = load_head(HEAD_WEIGHTS, HEAD)[1]
    assert 0.5 not in about.calibration.thresholds
    assert about.calibrated_on() == 80
    assert about.validation == {"pictures": 0, "loss": None, "accuracy": None}


@pytest.mark.parametrize(
    ("task", "changed", "message"),
    [
        ("multilabel", {"moss": np.zeros(140)}, "no training example has the label moss"),
        ("multilabel", {"moss": np.ones(140)}, "no training example lacks the label moss"),
        ("regression", {"age": np.full(140, 3.0)}, "the target age is 3 in all 80"),
        (
            "regression",
            {"age": 1.7e9 + np.arange(140)},
            "computes with seven digits; subtract a constant",
        ),
    ],
)
def test_targets_that_cannot_be_learned_are_told_before_training(
    trained_project, task, changed, message
):
    make_targets(task, (some_labels() if task == "multilabel" else some_numbers()) | changed)
    trained_project.set(**{"ingest.task": task, "train.optimizer": "lbfgs"})
    with pytest.raises(DataError, match=message):
        train()
    assert not HEAD.exists()

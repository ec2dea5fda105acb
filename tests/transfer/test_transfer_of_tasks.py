"""The optional stages for several labels and for numbers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline.augment import augment
from pipeline.best import best
from pipeline.core.errors import DataError
from pipeline.core.paths import (
    BEST,
    FEATURES,
    FINETUNE,
    FINETUNE_CURVE,
    FINETUNED,
    FROM_SCRATCH,
    HEAD,
    HEAD_WEIGHTS,
    LEARNING_CURVE,
    LEARNING_CURVE_PLOT,
    MANIFEST,
    RANK,
)
from pipeline.evaluation import comparing
from pipeline.extract import extract
from pipeline.finetune import finetune
from pipeline.from_scratch import from_scratch
from pipeline.heads import losses
from pipeline.heads.head import load_head
from pipeline.ingest import ingest
from pipeline.learning_curve import learning_curve
from pipeline.rank import rank
from pipeline.serving.classifier import Classifier
from pipeline.tables.features import read_splits
from pipeline.tables.manifest import read_manifest
from pipeline.train import train
from pipeline.transfer.comparison import folds, probed
from pipeline.transfer.finetuning import UNMEASURED, train_network
from pipeline.transfer.goal import Goal
from pipeline.transfer.objective import Objective
from pipeline.transfer.recipe import Recipe
from tests.conftest import SMALL
from tests.evaluation.made import LABELS, labelled, make, measured
from tests.transfer import test_finetuning as tiny

TASKS = ("multilabel", "regression")
of_both = pytest.mark.parametrize("task", TASKS)


def made(task):
    """A project up to a head; the features tell what is learned, but for noise."""
    if task == "multilabel":
        features, values = labelled(160, unknown=0.1)
        make(task, LABELS, features, values)
    else:
        features, values = measured(160, outputs=2)
        make(task, ["age", "area"], features, values)


# The learning curve


@of_both
def test_the_curve_is_by_examples_in_all_and_shows_the_tasks_measure(project, task, capsys):
    made(task)
    project.set(**{"learning_curve.draws": 2, "ingest.task": task, "train.optimizer": "ridge"})
    project.set(**{"train.refit": False, "train.power": 1.0})
    train()
    learning_curve()
    measure = comparing.measure(task)
    table, said = pd.read_csv(LEARNING_CURVE), capsys.readouterr().out
    assert list(table.columns) == ["views", "examples", measure, "low", "high"]
    assert table["examples"].tolist() == [8, 16, 32, 64, 80]
    assert ((table["low"] <= table[measure]) & (table[measure] <= table["high"])).all()
    assert table[measure].iloc[-1] > table[measure].iloc[0]
    assert f"{table[measure].iloc[-1]:.3f} with 80 examples\n" in said
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    val = read_splits(FEATURES, read_manifest(MANIFEST), about.classes, ["val"])["val"]
    of_train = comparing.value(task, head.logits(val.features), val.labels)
    assert table[measure].iloc[-1] == pytest.approx(of_train, abs=1e-4)
    first = LEARNING_CURVE.read_bytes(), LEARNING_CURVE_PLOT.read_bytes()
    learning_curve()
    assert (LEARNING_CURVE.read_bytes(), LEARNING_CURVE_PLOT.read_bytes()) == first


def test_a_head_of_another_task_is_refused(project):
    made("regression")
    document = json.loads(HEAD.read_text())
    del document["task"]
    HEAD.write_text(json.dumps(document))
    for stage in (learning_curve, finetune):
        with pytest.raises(DataError, match=r"trained for classification, but .* for regression"):
            stage()


# Networks


@pytest.fixture
def pictures(request, project, small_backbone):
    """Pictures with a red and a blue part, ingested for a task, with a head held very short."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(72):
        red, blue = random.random(2) < 0.5
        high = int(random.integers(8, 50))
        pixels = random.integers(40, 90, (60, 80, 3)).astype(np.uint8)
        pixels[5 : 5 + high, 5:35] = (220, 20, 20) if red else pixels[0, 0]
        pixels[10 : 10 + high, 45:75] = (20, 20, 220) if blue else pixels[0, 0]
        Image.fromarray(pixels).save(f"data/raw/{number}.png")
        known = "" if number % 7 == 6 else int(blue)
        told = {"red": int(red), "blue": known, "covered": 1000 + high * (int(red) + int(blue))}
        rows.append({"path": f"{number}.png", **told})
    pd.DataFrame(rows).to_csv("data/raw/labels.csv", index=False)
    columns = {"multilabel": ["red", "blue"], "regression": ["covered"]}[request.param]
    project.set(**{"ingest.source": "csv", "ingest.path": "data/raw", "ingest.targets": columns})
    project.set(**{"ingest.task": request.param, "augment.views": 0, "train.weight_decay": 30.0})
    project.set(**{"finetune.epochs": 3, "finetune.blocks": 1, "finetune.batch_size": 8})
    project.set(**{"finetune.learning_rate": 0.01, "train.coverage": None, **SMALL})
    for stage in (ingest, augment, extract, train):
        stage()
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize("pictures", TASKS, indirect=True)
def test_a_finetuned_network_that_is_better_answers_from_its_bundle(pictures, project, capsys):
    if pictures == "multilabel":
        project.set(**{"train.class_weights": "balanced", "finetune.epochs": 6})
        train()
    finetune()
    report, curve = json.loads(FINETUNE.read_text()), pd.read_csv(FINETUNE_CURVE)
    measure, of_val = comparing.measure(pictures), report["validation"]
    assert report["taken"] is True
    assert of_val["finetuned"]["loss"] < of_val["frozen"]["loss"]
    assert set(report["test"]["refit"]) == {"loss", measure, "low", "high"}
    score = "val_r2" if pictures == "regression" else "val_accuracy"
    assert list(curve.columns)[-2:] == ["val_loss", score]
    assert curve["val_loss"].min() == curve["val_loss"][report["epoch"]]
    word = "R²" if pictures == "regression" else "accuracy"
    said = capsys.readouterr().out
    assert f"{word} {curve[score][0]:.4f}, the finetuned one (epoch {report['epoch']})" in said
    assert f" and {word} {curve[score][report['epoch']]:.4f}" in said
    _, about = load_head(FINETUNED / "head.safetensors", FINETUNED / "head.json")
    assert about.task == pictures
    assert about.validation[score.removeprefix("val_")] == curve[score][report["epoch"]]
    best()
    manifest, classifier = read_manifest(MANIFEST), Classifier(BEST)
    test = manifest[manifest["split"] == "test"]
    answers = [classifier.answer(Path(path).read_bytes()) for path in test["path"]]
    if pictures == "regression":
        given = np.array([answer.numbers for answer in answers])
        told = test[["target:covered"]].to_numpy()
        r2 = 1 - np.square(given - told).sum() / np.square(told - told.mean()).sum()
        assert r2 == pytest.approx(report["test"]["refit"]["r2"], abs=0.01)
    else:
        shares = np.array([answer.probabilities for answer in answers])
        logits = np.log(shares / (1 - shares)).astype(np.float32)
        told = test[["target:red", "target:blue"]].to_numpy()
        value = comparing.value("multilabel", logits, told)
        assert value == pytest.approx(report["test"]["refit"][measure], abs=0.01)


@pytest.mark.parametrize(
    "pictures", [pytest.param("multilabel", marks=pytest.mark.slow), "regression"], indirect=True
)
def test_backbones_are_ranked_and_the_network_is_trained_from_scratch(pictures, project, capsys):
    untrained = f"random:{SMALL['extract.backbone']}"
    project.set(**{"rank.backbones": [untrained], "finetune.epochs": 1})
    rank()
    measure = comparing.measure(pictures)
    row = pd.read_csv(RANK).iloc[0]
    assert list(row.index)[:4] == ["backbone", f"cv_{measure}", "low", "high"]
    assert row["low"] <= row[f"cv_{measure}"] <= row["high"]
    from_scratch()
    report = json.loads(FROM_SCRATCH.read_text())["from_scratch"]
    validation = report["validation"]
    probe = validation.pop("linear_probe")
    apart = probe["loss"] - validation["loss"]
    assert validation.pop("gain")["mean"] == pytest.approx(apart, abs=1e-4)
    assert set(validation) == {"pictures", "loss", measure, "low", "high"}
    word, frozen = comparing.words(pictures), "linear probe on the frozen network"
    printed = f"{word} {validation[measure]:.4f}; {frozen} {probe[measure]:.4f}\n"
    assert printed in capsys.readouterr().out


def test_a_learning_rate_means_the_same_whatever_numbers_are_measured_in(project):
    curves = []
    for unit in (1.0, 1000.0):
        some = [tiny.labelled("data/raw/light", count, seed) for count, seed in ((24, 1), (10, 2))]
        for one in some:
            object.__setattr__(one, "labels", unit * (5.0 + one.labels[:, None]))
        goal = Goal.of("regression", "squared", some[0].labels)
        train_on, val = (one.towards(goal) for one in some)
        network = tiny.tiny(outputs=1)
        recipe = Recipe(**vars(tiny.RECIPE) | {"class_weights": (1.0,), "loss": goal.loss})
        how = UNMEASURED, tiny.FEED, recipe, tiny.CPU, "finetune"
        curves.append(train_network(network, train_on, val, *how).curve[1:])
        own = goal.left(network.as_head())
        again = goal.entered(own)
        np.testing.assert_allclose(again.weight, network.as_head().weight, rtol=1e-5, atol=1e-6)
        assert abs(own.bias[0] - unit * 5.5) < unit
    for one, other in zip(*curves, strict=True):
        np.testing.assert_allclose(list(vars(one).values()), list(vars(other).values()), rtol=1e-3)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_a_batch_costs_what_the_losses_of_heads_say(loss):
    random = np.random.default_rng(0)
    logits = (2 * random.standard_normal((40, 3))).astype(np.float32)
    labels = random.integers(0, 3, 40)
    weights = np.array([1.0, 2.0, 0.5], np.float32)
    if loss != "softmax":
        labels = random.standard_normal((40, 3))
        if loss == "binary":
            labels, weights = (labels > 0).astype(float), random.random((3, 2)).astype(np.float32)
        labels[random.random((40, 3)) < 0.2] = np.nan
    objective = Objective(loss, weights, labels, torch.device("cpu"))
    given = torch.from_numpy(logits).requires_grad_()
    for some in torch.arange(40).split([16, 24]):
        objective.lowered(given[some], some).backward()
    assert torch.isfinite(given.grad).all()
    if loss != "softmax":
        assert (given.grad.numpy()[np.isnan(labels)] == 0).all()
    told = losses.figures(loss, lambda some: logits[some], labels, weights)
    np.testing.assert_allclose(objective.figures(), told, rtol=1e-5)


# What backbones are compared by


def test_each_example_has_its_loss():
    logits = np.array([[0.0, 2.0], [1.0, -1.0]], np.float32)
    several = np.array([[1.0, np.nan], [np.nan, np.nan]])
    assert comparing.example_losses("multilabel", logits, several)[0] == pytest.approx(np.log(2))
    assert np.isnan(comparing.example_losses("multilabel", logits, several)[1])
    numbers = np.array([[10.0, 2.0], [12.0, 2.0]])
    units = losses.Units(np.array([0.0, 0.0]), np.array([10.0, 1.0]))
    found = comparing.example_losses("regression", logits, numbers, units)
    np.testing.assert_allclose(found, [(1**2 / 2 + 0) / 2, (1.1**2 / 2 + 3**2 / 2) / 2], rtol=1e-6)


@of_both
def test_candidates_are_judged_by_examples_that_heads_have_not_seen(task):
    if task == "multilabel":
        features, values = labelled(150, unknown=0.2)
        values[0] = np.nan
    else:
        features, values = measured(150, outputs=2)
    groups = [str(number // 2) for number in range(150)]
    held_out = folds(values, groups)
    assert np.bincount(held_out).tolist() == [30] * 5
    assert (held_out[::2] == held_out[1::2]).all()
    noise = np.random.default_rng(5).standard_normal((150, 200)).astype(np.float32)
    how = values, held_out, np.arange(150) // 2, 1.0, False, 1.0, task
    of_noise, telling = probed("noise", [noise], *how), probed("label", [features], *how)
    nothing = np.log(2) - 0.1 if task == "multilabel" else 0.45  # half the variance
    assert of_noise.losses.mean() > nothing - 0.15
    assert telling.losses.mean() < 0.8 * of_noise.losses.mean()
    assert telling.score.value > max(of_noise.score.value, 0.7)
    assert len(telling.losses) == 150 - (task == "multilabel")  # one that nothing is known of


def test_answers_of_labels_are_judged_by_their_order_alone():
    logits = np.array([[3.0], [2.0], [1.0], [0.0]], np.float32)
    labels = np.array([[1.0], [0.0], [1.0], [np.nan]])
    expected = (1 + 2 / 3) / 2
    found = comparing.scored("multilabel", logits, labels, 0.95)
    assert found.value == pytest.approx(expected)
    assert found.low < found.value <= found.high
    assert comparing.value("multilabel", 5 * logits - 7, labels) == pytest.approx(expected)
    of_one_group = comparing.scored("multilabel", logits, labels, 0.95, np.zeros(4, np.int64))
    assert of_one_group.value == pytest.approx(expected)
    assert np.isnan([of_one_group.low, of_one_group.high]).all()

"""The finetune and from_scratch stages, on a small network: the decision, and what it leaves."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pipeline import kinds
from pipeline.augment import augment
from pipeline.backbones import catalogue
from pipeline.best import best
from pipeline.bundle import bundle
from pipeline.core import params
from pipeline.core.errors import DataError, TrainingError
from pipeline.core.paths import (
    BEST,
    BUNDLE,
    FINETUNE,
    FINETUNE_CURVE,
    FINETUNED,
    FROM_SCRATCH,
    FROM_SCRATCH_CURVE,
    HEAD,
    HEAD_WEIGHTS,
    MANIFEST,
)
from pipeline.evaluate import evaluate
from pipeline.extract import extract
from pipeline.finetune import finetune, refit
from pipeline.from_scratch import from_scratch
from pipeline.heads.head import load_head, probabilities
from pipeline.ingest import ingest
from pipeline.kinds.image import decode
from pipeline.serving import torch_module
from pipeline.serving.classifier import Classifier
from pipeline.store.places import checkpoints_folder
from pipeline.tables.manifest import read_manifest
from pipeline.train import train
from pipeline.transfer import finetuning
from pipeline.transfer.examples import Feed, Labelled
from pipeline.transfer.finetuning import UNMEASURED
from pipeline.transfer.measure import measure
from pipeline.transfer.network import Network
from pipeline.transfer.recipe import Recipe
from tests.conftest import SMALL, enter_copy, project_in
from tests.store import test_cache

IMAGE = kinds.named("image")
WEIGHTS = FINETUNED / "backbone.safetensors"
# A head held so short that there is something left to learn, and a rate to learn it in few epochs.
UNSURE = SMALL | {"train.weight_decay": 30.0, "finetune.learning_rate": 0.01}


@pytest.fixture(scope="module")
def shapes_once(tmp_path_factory, small_backbone, draw_shapes):
    folder = tmp_path_factory.mktemp("shapes")
    with project_in(folder, small_backbone.parent) as project:
        draw_shapes(range(36))
        project.set(**{"ingest.source": "folder", "ingest.path": "data/raw/shapes"})
        project.set(
            **{"augment.views": 1, "finetune.epochs": 2, "finetune.blocks": 1},
            **{"finetune.batch_size": 8, **UNSURE},
        )
        for stage in (ingest, augment, extract, train):
            stage()
    return folder


@pytest.fixture
def shapes(shapes_once, tmp_path, monkeypatch):
    """A project with a trained head on pictures of two classes."""
    return enter_copy(shapes_once, tmp_path / "project", monkeypatch)


@pytest.mark.slow
def test_a_finetuned_network_is_taken_only_when_validation_says_so(shapes, capsys):
    finetune()
    assert (
        "network is chosen and trained again, with validation examples" in capsys.readouterr().out
    )
    report, curve = json.loads(FINETUNE.read_text()), pd.read_csv(FINETUNE_CURVE)
    frozen, finetuned = report["validation"]["frozen"], report["validation"]["finetuned"]
    assert curve["epoch"].tolist() == [0, 1, 2]
    assert curve["val_loss"][0] == pytest.approx(frozen["loss"], rel=1e-4)
    assert report["epoch"] == curve["val_loss"].idxmin()
    better = finetuned["loss"] < frozen["loss"] and finetuned["accuracy"] >= frozen["accuracy"]
    assert report["taken"] is better is WEIGHTS.exists() is True
    assert set(report["test"]) == {"pictures", "frozen", "finetuned", "gain", "refit"}
    assert not list(checkpoints_folder().iterdir())
    head, about = load_head(FINETUNED / "head.safetensors", FINETUNED / "head.json")
    test = Labelled.of(read_manifest(MANIFEST), about.classes, "test")
    backbone = catalogue.with_weights(params.load(kinds.schema).extract.network, WEIGHTS)
    network = Network(backbone.module, head, about.power)
    logits = finetuning.answers(network, test, feed_of(backbone), 8)
    loss, _ = measure(logits, test.labels)
    assert loss == pytest.approx(report["test"]["refit"]["loss"], rel=1e-4)

    best()  # its bundle answers as the network did that was measured
    classifier = Classifier(BEST, explains=True)
    answers = [classifier.answer(Path(path).read_bytes(), True, 1) for path in test.paths]
    wanted = probabilities(logits, about.calibration.temperature)
    np.testing.assert_allclose([a.probabilities for a in answers], wanted, atol=1e-3)
    assert classifier.bundle.metrics["test"] == report["test"]
    side = backbone.preprocessing.crop
    assert answers[0].heat.media_type == "image/png"
    assert Image.open(io.BytesIO(answers[0].heat.data)).size == (side, side)
    seen = Labelled.of(read_manifest(MANIFEST), about.classes, "train").paths[2]
    (nearest,) = classifier.answer(Path(seen).read_bytes(), neighbours=1).neighbours
    assert (nearest.path, nearest.cosine) == (seen, pytest.approx(1, abs=1e-3))
    model = torch_module.load(BEST)
    pixels = decode.pixels(decode.decode(Path(test.paths[0]).read_bytes())).copy()
    np.testing.assert_allclose(model(torch.from_numpy(pixels)).detach(), wanted[0], atol=5e-3)


@pytest.mark.slow
def test_validation_examples_are_learned_from_if_asked_and_a_loss_that_bursts_takes_nothing(
    shapes, capsys
):
    shapes.set(**{"train.refit": False, "finetune.epochs": 3})
    train()
    finetune()
    measured = set(json.loads(FINETUNE.read_text())["test"])
    assert measured == {"pictures", "frozen", "finetuned", "gain"}
    alone = WEIGHTS.read_bytes()
    shapes.set(**{"train.refit": True})
    train()
    finetune()
    assert WEIGHTS.read_bytes() != alone
    frozen = json.loads(FINETUNE.read_text())["validation"]["frozen"]

    # The frozen head is left in its place.
    shapes.set(**{"finetune.learning_rate": 1e30})
    finetune()
    report = json.loads(FINETUNE.read_text())
    assert (report["taken"], report["epoch"], WEIGHTS.exists()) == (False, 0, False)
    assert "the training loss became nan in epoch 1" in report["status"]
    assert report["validation"]["frozen"] == frozen
    assert "lower finetune.learning_rate" in capsys.readouterr().out
    for stage in (evaluate, bundle, best):
        stage()
    assert "best is a copy of bundle" in capsys.readouterr().out
    assert (BEST / "model.onnx").read_bytes() == (BUNDLE / "model.onnx").read_bytes()


def feed_of(backbone):
    """What makes the pictures' views for that backbone."""
    return Feed(IMAGE, backbone.preprocessing, params.load(kinds.schema).augment)


def parts_of_finetuning(**changes):
    """A fresh network with the chosen head, both sets of pictures, and how `finetune` trains it."""
    asked, settings, manifest = (
        params.load(kinds.schema).extract,
        params.load(kinds.schema).finetune,
        read_manifest(MANIFEST),
    )
    head, about = load_head(HEAD_WEIGHTS, HEAD)
    train, val = (Labelled.of(manifest, about.classes, name) for name in ("train", "val"))
    backbone = catalogue.load(asked.network)
    recipe = replace(Recipe.of(settings, np.ones(2, np.float32)), **changes)
    network = Network(backbone.module, head, about.power)
    how = feed_of(backbone), recipe, torch.device("cpu")
    return network, train, val, how


@pytest.mark.slow
def test_what_is_taken_learns_again_from_the_weights_that_came_for_the_epochs_kept(shapes):
    shapes.set(**{"finetune.epochs": 3})
    finetune()
    kept = json.loads(FINETUNE.read_text())["epoch"]
    network, train, val, how = parts_of_finetuning(last=kept)
    none = Labelled([], [], val.labels[:0])
    trained = finetuning.train_network(network, train + val, none, UNMEASURED, *how, "finetune")
    assert [figures.epoch for figures in trained.curve] == list(range(kept + 1))
    found = load_file(WEIGHTS)
    assert all(torch.equal(found[name], w) for name, w in network.backbone.state_dict().items())
    learned, _ = load_head(FINETUNED / "head.safetensors", FINETUNED / "head.json")
    np.testing.assert_array_equal(learned.weight, network.as_head().weight)


def test_an_early_end_changes_nothing_before_it(shapes):
    curves = []
    for last in (1, None):
        network, train, val, how = parts_of_finetuning(last=last)
        trained = finetuning.train_network(network, train, val, UNMEASURED, *how, "finetune")
        curves.append(trained.curve[1:])
    assert [len(curve) for curve in curves] == [1, 2]
    assert curves[0][0] == curves[1][0]


def test_a_loss_that_bursts_when_it_learns_again_is_an_error_that_leaves_no_checkpoint(shapes):
    a_step_an_epoch = {"batch_size": 64, "last": 2}
    network, train, val, how = parts_of_finetuning(learning_rate=1e36, **a_step_an_epoch)
    words = r"finetuned network was trained again .* diverged: .*set train\.refit to false"
    with pytest.raises(TrainingError, match=words):
        refit(network, train + val, *how)
    assert not list(checkpoints_folder().iterdir())  # of the first epoch


def test_from_scratch_has_the_budget_of_finetuning_and_is_compared_with_a_probe(shapes, capsys):
    for stage in (augment, extract, from_scratch):
        stage()
    report = json.loads(FROM_SCRATCH.read_text())["from_scratch"]
    curve = pd.read_csv(FROM_SCRATCH_CURVE)
    assert curve["epoch"].tolist() == [1, 2]
    assert report["epoch"] in (1, 2)
    assert report["validation"]["loss"] == pytest.approx(curve["val_loss"].min(), rel=1e-4)
    test = report["test"]
    assert 0 <= test["low"] <= test["accuracy"] <= test["high"] <= 1
    apart = test["linear_probe"]["loss"] - test["loss"]
    assert test["gain"]["mean"] == pytest.approx(apart, abs=1e-4)
    assert test["gain"]["low"] < test["gain"]["mean"] < test["gain"]["high"]
    assert "test examples" in capsys.readouterr().out.splitlines()[-1]


def test_without_test_pictures_the_decision_stands_alone(shapes):
    shapes.set(**{"finetune.epochs": 1})
    manifest = pd.read_parquet(MANIFEST)  # ingest would refuse to write such a one
    manifest[manifest["split"] != "test"].to_parquet(MANIFEST)
    for stage in (augment, extract, train, finetune):
        stage()
    report = json.loads(FINETUNE.read_text())
    assert report["test"] == {"pictures": 0}
    assert report["taken"] in (True, False)


def test_without_validation_pictures_there_is_nothing_to_judge_by(shapes):
    shapes.set(**{"ingest.shares": {"train": 0.7, "val": 0.0, "test": 0.3}})
    ingest()
    with pytest.raises(DataError, match=r"scratch has no validation example.*ingest\.shares\.val"):
        from_scratch()


@pytest.mark.slow
def test_what_is_in_the_store_changes_no_byte(shapes):
    shapes.set(**{"finetune.epochs": 1})
    test_cache.run(("evaluate", "bundle"))
    test_cache.assert_no_byte_changes(shapes, test_cache.TRAINED)

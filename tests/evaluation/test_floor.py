"""How far the backbone is above its floor, and projects that have none."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline.core.errors import DataError
from pipeline.core.paths import FLOOR_HEADS, MANIFEST, METRICS
from pipeline.evaluate import evaluate
from pipeline.evaluation.floor import Lead
from pipeline.pages.tables import baselines
from pipeline.tables import floor
from pipeline.tables.manifest import read_manifest, write_manifest
from pipeline.train import train
from tests.evaluation.made import LABELS, labelled, make, measured

HARDLY = "hardly better than its floor: run `headstart choose`"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(task, noise_is):
    """A project of vectors whose backbone, or whose floor, says nothing of the labels."""
    if task == "regression":
        names = ["share"]
        told, values = measured(400)
    else:
        names = LABELS
        told, values = labelled(400)
    noise = np.random.default_rng(1).standard_normal(told.shape).astype(np.float32)
    backbone, cheap = (told, noise) if noise_is == "floor" else (noise, told)
    make("multilabel" if task == "classification" else task, names, backbone, values)
    manifest = read_manifest(MANIFEST)
    if task == "classification":
        of_path = told[[int(Path(path).stem) for path in manifest["path"]], 0] > 0
        manifest = manifest[["digest", "path", "split"]]
        manifest["label"] = np.where(of_path, "brick", "moss")
        manifest["group"] = [f"wall {number // 2}" for number in range(len(manifest))]
        write_manifest(manifest, "vector", MANIFEST)
    digests = [f"{7919 * number % 256:02x}{number:062x}" for number in range(len(told))]
    of_digest = dict(zip(digests, cheap, strict=True))
    rows = floor.chosen(manifest)["digest"].tolist()
    floor.write("cheap", rows, np.stack([of_digest[digest] for digest in rows]))
    optimizer = "ridge" if task == "regression" else "lbfgs"
    parameters = {"train": {"optimizer": optimizer, "power": 1.0}, "evaluate": {"bootstrap": 200}}
    parameters["ingest"] = {"kind": "vector", "task": task}
    Path("params.yaml").write_text(yaml.safe_dump(parameters))
    train()


@pytest.mark.parametrize(
    ("task", "measure"),
    [
        ("classification", "accuracy"),
        ("multilabel", "mean_average_precision"),
        ("regression", "r2"),
    ],
)
def test_the_lead_over_the_floor_is_printed_and_written(task, measure, capsys):
    made(task, noise_is="floor")
    evaluate()
    printed = capsys.readouterr().out
    assert "above its floor cheap in " in printed
    assert HARDLY not in printed
    noted = json.loads(METRICS.read_text())["baselines"]
    figures = noted["floor"][measure]
    lead = figures["backbone"] - figures["floor"]
    assert figures["low"] < lead < figures["high"]
    assert figures["low"] > 0.05, noted
    assert ("chance" in noted) == (task == "classification")


def test_a_backbone_that_is_no_better_is_said_to_be_the_wrong_one(capsys):
    made("classification", noise_is="backbone")
    evaluate()
    printed = capsys.readouterr().out
    assert "below its floor cheap in accuracy" in printed
    assert HARDLY in printed
    noted = json.loads(METRICS.read_text())["baselines"]
    assert noted["chance"] == 0.5
    manifest = read_manifest(MANIFEST)
    largest = manifest["label"][manifest["split"] == "train"].mode()[0]
    labels = manifest["label"][manifest["split"] == "test"]
    assert noted["largest_class"] == pytest.approx(labels.eq(largest).mean(), abs=1e-6)


def test_a_metric_that_is_not_defined_is_not_compared(capsys):
    made("regression", noise_is="floor")
    manifest = read_manifest(MANIFEST)
    manifest.loc[manifest["split"] == "test", "target:share"] = 7.0
    write_manifest(manifest, "vector", MANIFEST, task="regression")
    capsys.readouterr()
    evaluate()
    assert "its floor" not in capsys.readouterr().out
    assert "baselines" not in json.loads(METRICS.read_text())
    # An earlier version wrote the floor without figures.
    earlier = {"floor": {"name": "cheap", "examples": 100, "r2": {}}}
    assert baselines(earlier, "r2", "95 %") == ""


def test_one_group_does_not_show_how_far_the_lead_varies(capsys):
    made("regression", noise_is="backbone")
    manifest = read_manifest(MANIFEST)
    manifest["group"] = np.where(manifest["split"] == "test", "one ward", "")
    write_manifest(manifest, "vector", MANIFEST, task="regression")
    capsys.readouterr()
    evaluate()
    printed = capsys.readouterr().out
    assert "test examples, with equal heads)\n" in printed
    assert HARDLY not in printed
    noted = json.loads(METRICS.read_text())["baselines"]
    assert noted["floor"]["r2"].keys() == {"floor", "backbone"}
    assert "interval" not in baselines(noted, "r2", "95 %")


@pytest.mark.parametrize(
    ("backbone", "at_the_floor", "high", "is_said"),
    [
        (0.7, 0.69, 0.04, True),
        (0.7, 0.6, 0.2, False),
        (0.98, 0.97, 0.02, False),
        (0.96, 0.97, 0.02, True),
    ],
)
def test_the_report_and_evaluate_warn_of_the_same_backbones(backbone, at_the_floor, high, is_said):
    lead = Lead("cheap", "accuracy", at_the_floor, backbone, -0.01, high, 100)
    assert (HARDLY in "\n".join(lead.lines(0.95))) == is_said
    figures = {"backbone": backbone, "floor": at_the_floor, "low": -0.01, "high": high}
    shown = baselines({"floor": {"name": "cheap", "accuracy": figures}}, "accuracy", "95 %")
    assert ("hardly better than its floor: run headstart choose" in shown) == is_said


def test_a_project_whose_dvc_yaml_is_older_has_no_floor(capsys):
    made("classification", noise_is="floor")
    Path("dvc.yaml").write_text("stages: {extract: {outs: [data/features]}}\n")
    train()
    evaluate()
    assert not FLOOR_HEADS.exists()
    assert "floor" not in capsys.readouterr().out.partition("evaluate:")[2]
    assert "floor" not in json.loads(METRICS.read_text())["baselines"]


def test_few_examples_are_chosen_test_first_and_hardly_change():
    digests = [f"{7919 * number % 65536:064x}" for number in range(6000)]
    splits = np.array(["train", "train", "test", "val"])[np.arange(6000) % 4]
    manifest = pd.DataFrame({"digest": digests, "split": splits})
    rows = floor.chosen(manifest)
    assert rows["split"].eq("test").sum() == 1500
    assert len(rows) == 2500
    fewer = floor.chosen(manifest.iloc[10:])
    assert len({*rows["digest"]} - {*fewer["digest"]}) <= 10


def test_heads_that_are_damaged_are_an_error():
    made("classification", noise_is="floor")
    FLOOR_HEADS.write_bytes(b"damaged")
    with pytest.raises(DataError, match="run the train stage again"):
        evaluate()

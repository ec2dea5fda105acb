"""Inner blocks from `extract` to a prediction, and what else reads the features of a head."""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import headstart
import headstart.next as proposing
from pipeline.core.errors import DataError, ParamsError
from pipeline.core.paths import BUNDLE, FEATURES, HEAD, MANIFEST
from pipeline.heads import penalty
from pipeline.heads.description import HeadDescription
from pipeline.heads.trained import Schedule
from pipeline.serving import predict, torch_module
from pipeline.serving.classifier import Classifier
from pipeline.serving.description import Bundle
from pipeline.store.vectors import FeatureStore
from pipeline.tables.features import Split, layers_in, read_splits
from pipeline.tables.layers import Layer
from pipeline.tables.manifest import read_manifest
from tests.backbones.test_joined import draw_some
from tests.conftest import Project, begin_store

WIDTHS = [1280, 40, 80, 112, 192, 320]


def run(*stages: str) -> None:
    for stage in stages:
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


def changed(folder: Path, **knobs: Any) -> Project:
    project = Project.__new__(Project)
    project.folder = folder
    project.set(**{name.replace("__", "."): value for name, value in knobs.items()})
    return project


@pytest.fixture
def shapes(bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the project in which all stages ran on the last layer, up to `bundle`."""
    folder = tmp_path / "project"
    shutil.copytree(bundled, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEADSTART_STORE", str(folder / "cache" / "features"))
    return changed(folder)


def columns() -> dict[str, bytes]:
    """The shards' columns of the last layer, as bytes."""
    return {
        file.name: pq.read_table(file)["feature"].combine_chunks().flatten().to_numpy().tobytes()
        for file in sorted(FEATURES.iterdir())
    }


def test_blocks_go_from_extract_to_a_prediction(
    shapes: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, put = columns(), []
    bank = load_file(BUNDLE / "neighbours.safetensors")["features"]
    plain = Classifier(BUNDLE, explains=True)
    wrapped = FeatureStore.put
    monkeypatch.setattr(
        FeatureStore, "put", lambda self, new: put.extend(new.values()) or wrapped(self, new)
    )
    changed(shapes.folder, extract__blocks="all", train__layers="all")
    run("extract")
    assert "0 reused, 60 computed" in capsys.readouterr().out
    *vectors, _ = put  # and the note about the shards
    assert sorted(map(len, vectors)) == sorted(WIDTHS[1:] * 60)  # and none of the last layer
    assert columns() == before
    assert [layer.width for layer in layers_in(FEATURES)] == WIDTHS
    run("extract")
    assert "60 reused, 0 computed" in capsys.readouterr().out

    run("train", "evaluate", "bundle")
    about = HeadDescription.read(HEAD)
    assert about.layers == layers_in(FEATURES)
    assert about.dimension == sum(WIDTHS)
    assert Bundle.read(BUNDLE).schema == 6
    evaluated = pd.read_csv("reports/predictions.csv")
    predict.run(BUNDLE, evaluated["path"], csv=Path("said.csv"))
    said = pd.read_csv("said.csv")
    assert said["class"].tolist() == evaluated["predicted"].tolist()
    np.testing.assert_allclose(said["probability"], evaluated["probability"], atol=1e-5)

    # Neighbours and novelty compare the last layer, as without blocks.
    one = Path(evaluated["path"][0])
    whole = Classifier(BUNDLE, explains=True)
    answers = [made.answer(one.read_bytes(), True, 3) for made in (plain, whole)]
    assert answers[0].neighbours == answers[1].neighbours
    assert answers[0].distance == answers[1].distance
    np.testing.assert_array_equal(load_file(BUNDLE / "neighbours.safetensors")["features"], bank)
    assert len(whole.features(one.read_bytes())) == sum(WIDTHS)
    assert answers[1].heat is not None
    run("checks", "report")
    assert Path("reports/report.html").exists()

    pixels = torch.from_numpy(np.array(Image.open(one).convert("RGB")))
    in_torch = torch_module.load(BUNDLE)(pixels).numpy()
    assert in_torch.max() == pytest.approx(evaluated["probability"][0], abs=1e-4)

    # Back to the last layer: nothing is computed, and every byte is as before.
    changed(shapes.folder, extract__blocks="last", train__layers="last")
    capsys.readouterr()
    run("extract")
    assert "60 reused, 0 computed" in capsys.readouterr().out
    assert columns() == before
    assert layers_in(FEATURES) == ()


@pytest.mark.slow
def test_keys_name_each_block(shapes: Project) -> None:
    changed(shapes.folder, extract__blocks="all")
    names = ["train", "val", "test"]
    read = []
    for features in ("vectors", "keys"):
        changed(shapes.folder, extract__features=features)
        run("extract")
        layers = layers_in(FEATURES)
        manifest = read_manifest(MANIFEST)
        for chosen in ((), (layers[0], layers[2]), layers):
            splits = read_splits(FEATURES, manifest, ["disc", "square"], names, 0.5, chosen)
            read.append({name: split.features.tobytes() for name, split in splits.items()})
    assert read[:3] == read[3:]
    assert "key:blocks.4.2" in pq.read_schema(next(FEATURES.iterdir())).names


@pytest.mark.slow
def test_curve_and_repeats_train_on_the_layers_of_the_head(
    shapes: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(shapes.folder, extract__blocks="all", train__layers="all", evaluate__repeats=2)
    changed(shapes.folder, learning_curve__draws=2)
    run("extract", "train", "evaluate", "learning_curve")
    assert "on average over 2 other splits" in capsys.readouterr().out
    assert len(pd.read_csv("reports/learning_curve.csv"))


def test_auto_chooses_among_the_layers_that_are_there(shapes: Project) -> None:
    changed(shapes.folder, train__weight_decay="auto")
    run("train")
    files = [file for file in sorted(HEAD.parent.iterdir())]
    before = [file.read_bytes() for file in files]
    # Without blocks to choose from, `auto` is `last`.
    changed(shapes.folder, train__layers="auto", extract__blocks="all")
    run("train")
    assert [file.read_bytes() for file in files] == before
    run("extract", "train")
    tried = pd.read_csv("reports/sweep.csv")["layers"].dropna().unique().tolist()
    assert tried == ["last", "all"]
    about = HeadDescription.read(HEAD)
    assert about.layers in ((), layers_in(FEATURES))
    assert about.dimension in (1280, sum(WIDTHS))
    if not about.layers:  # a head of the last layer, to the bit
        assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("better", [False, True])
def test_blocks_are_chosen_only_if_they_are_better(better: bool) -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(200) % 2
    last = labels[:, None] * 1.0 + draw.standard_normal((200, 6))
    block = labels[:, None] * 3.0 * better + draw.standard_normal((200, 4))
    digests = np.array([f"{number:064x}" for number in range(200)])
    features = np.concatenate([last, block], axis=1).astype(np.float32)
    pool = Split(digests, digests, np.zeros(200, np.int32), labels, features)
    schedule = Schedule(1, 256, 0, np.ones(2, np.float32))
    layers = (Layer("last", 6), Layer("inner", 4))
    options = penalty.candidates(layers, auto=True)
    assert [option.of for option in options] == ["last", "last", "all", "all"]
    choice = penalty.choose(pool, digests.tolist(), "lbfgs", schedule, 200, options)
    assert choice.candidate.of == ("all" if better else "last")


@pytest.mark.slow
def test_joined_networks_have_blocks_of_each(
    project: Project, draw_picture: Callable[..., Image.Image]
) -> None:
    draw_some(draw_picture, range(40))
    knobs = {"ingest.source": "folder", "ingest.path": "data/raw/shapes", "augment.views": 0}
    knobs |= {"extract.backbone": "efficientnet_lite0+efficientnet_lite1", "extract.blocks": "all"}
    project.set(**knobs, **{"train.layers": "all", "evaluate.bootstrap": 10})
    run("ingest", "augment", "extract", "train", "evaluate", "bundle")
    names = [layer.name for layer in HeadDescription.read(HEAD).layers]
    assert names[0] == "last"
    assert sum(name.startswith("network_2/") for name in names) == 5 == len(names) - 6
    evaluated = pd.read_csv("reports/predictions.csv")
    predict.run(BUNDLE, evaluated["path"], csv=Path("said.csv"))
    said = pd.read_csv("said.csv")
    np.testing.assert_allclose(said["probability"], evaluated["probability"], atol=1e-5)


def test_what_does_not_work_with_inner_blocks_is_refused(shapes: Project) -> None:
    for knobs, words in (
        (
            {"train__layers": "auto", "train__optimizer": "adamw"},
            "but optimizer is adamw; set layers to last or all",
        ),
        ({"train__layers": "all"}, "set extract.blocks to all"),
        ({"extract__blocks": "all", "extract__precision": "bfloat16"}, "set blocks to last"),
    ):
        changed(shapes.folder, **knobs)
        with pytest.raises(ParamsError, match=words):
            run("train")
    changed(shapes.folder, extract__precision="float32")
    for stage in ("finetune", "adapt"):
        changed(shapes.folder, **{f"{stage}__run": ["asked"]})
        with pytest.raises(ParamsError, match=f"the stage {stage} works only with the last layer"):
            run("train")
        changed(shapes.folder, **{f"{stage}__run": []})
    changed(shapes.folder, extract__backbone="onnx:data/weights/mine.onnx")
    with pytest.raises(ParamsError, match=r"mine\.onnx has no inner blocks"):
        run("train")
    changed(shapes.folder, extract__backbone="efficientnet_lite0")
    with pytest.raises(DataError, match="data/features has no inner blocks"):
        run("train")  # `extract` has not run


def test_the_embedder_has_blocks_as_further_columns(
    bundled: Path, tmp_path: Path, lite0: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(begin_store(tmp_path, lite0.parent)))
    examples = sorted(bundled.glob("data/raw/shapes/*/1*.png"))[:3]
    last = headstart.Embedder().transform(examples)
    whole = headstart.Embedder(blocks="all")
    found = whole.transform(examples)
    assert found.shape == (3, sum(WIDTHS))
    np.testing.assert_array_equal(found[:, :1280], last)
    np.testing.assert_array_equal(whole.transform(examples), found)
    assert whole.transform([]).shape == (0, sum(WIDTHS))


def test_next_asks_a_head_of_the_last_layer_about_pictures_elsewhere(
    shapes: Project,
    draw_picture: Callable[..., Image.Image],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changed(shapes.folder, extract__blocks="all", train__layers="auto")
    pool = tmp_path / "pool"
    pool.mkdir()
    for number in range(6):
        draw_picture(100 + number, square=bool(number % 2)).save(pool / f"{number}.png")
    proposing.run(pool, 5)
    said = capsys.readouterr().out
    assert "next: 6 views: 0 reused, 6 computed" in said
    assert {line.split(":")[0] for line in said.splitlines()} == {"next"}
    table = pd.read_csv("next.csv")
    assert set(table["predicted"]) <= {"disc", "square"}
    assert set(table["why"]) == {"margin", "random"}
    assert all(Path(path).parent == pool for path in table["path"])


def test_a_head_whose_layers_do_not_fit_is_refused(shapes: Project) -> None:
    about = json.loads(HEAD.read_text())
    for layers in ([["last", 9]], [["first", 1280]], [["last", -1]], [["last", 1280, 3]]):
        HEAD.write_text(json.dumps(about | {"layers": layers}))
        with pytest.raises(DataError, match=r"head\.json"):
            run("evaluate")

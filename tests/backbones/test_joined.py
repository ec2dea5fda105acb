"""Joined backbones: each network's features are kept by themselves, the head sees them together."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from PIL import Image

import headstart
from pipeline import kinds
from pipeline.core.errors import DataError, ParamsError
from pipeline.core.params import ExtractParams, Params, extract_section
from pipeline.serving.classifier import Classifier
from pipeline.tables import joined
from tests.conftest import Project

BOTH = "efficientnet_lite0+efficientnet_lite1"
STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report")
Draw = Callable[..., Image.Image]


def run(*stages: str) -> None:
    for stage in stages:
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


def draw_some(draw_picture: Draw, numbers: range) -> None:
    for i in numbers:
        path = Path("data/raw/shapes") / ("disc", "square")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(i, 80 + 7 * i, 60 + 5 * i, square=bool(i % 2)).save(path)


@pytest.fixture
def shapes(project: Project, draw_picture: Draw) -> Project:
    project.set(
        **{
            "ingest.source": "folder",
            "ingest.path": "data/raw/shapes",
            "augment.views": 0,
            "extract.backbone": BOTH,
            "evaluate.bootstrap": 10,
        }
    )
    draw_some(draw_picture, range(24))
    return project


@pytest.mark.slow
def test_each_networks_vectors_are_reused_by_themselves(
    shapes: Project, draw_picture: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes.set(**{"extract.backbone": f"{BOTH}+efficientnet_lite2"})
    run("ingest", "augment", "extract")
    assert "24 views by 3 networks: 0 reused, 72 computed" in capsys.readouterr().out
    # Six more are looked at by each.
    draw_some(draw_picture, range(24, 30))
    run("ingest", "augment", "extract")
    assert "30 views by 3 networks: 72 reused, 18 computed" in capsys.readouterr().out
    # Taking one away computes none, in whatever order they are named.
    for name, said in {
        "efficientnet_lite1": "30 views: 30 reused, 0 computed",
        "efficientnet_lite1+efficientnet_lite0": "by 2 networks: 60 reused, 0 computed",
    }.items():
        shapes.set(**{"extract.backbone": name})
        run("extract")
        assert said in capsys.readouterr().out


@pytest.mark.slow
def test_a_bundle_of_joined_backbones_answers_as_evaluate_did(shapes: Project) -> None:
    shapes.set(**{"rank.backbones": [BOTH, "efficientnet_lite0"]})
    run(*STAGES, "rank")
    told = json.loads(Path("bundle/bundle.json").read_text())
    assert (told["schema"], told["backbone"]["name"]) == (2, BOTH)
    assert [one["preprocessing"]["crop"] for one in told["further"]] == [240]

    predictions = pd.read_csv("reports/predictions.csv")
    classifier = Classifier(Path("bundle"), explains=True)
    for row in predictions.itertuples():
        first = row.Index == 0  # a heat map takes 120 answers of both
        answer = classifier.answer(Path(row.path).read_bytes(), first, neighbours=1, side=64)
        assert classifier.classes[answer.best] == row.predicted
        assert answer.probabilities[answer.best] == pytest.approx(row.probability, abs=1e-4)
        assert (answer.heat is not None) == first
    training = headstart.load("bundle").neighbours(Path(row.path), 1)[0]
    assert 0.2 < training.cosine <= 1.001

    ranked = pd.read_csv("reports/rank.csv").set_index("backbone")
    assert ranked["features"].to_dict() == {BOTH: 2560, "efficientnet_lite0": 1280}
    assert str(ranked["pixels"][BOTH]) == "224+240"

    # What stands in the features: each network's, divided by the root of its mean square.
    file = Path(predictions["path"][0])
    alone = [headstart.Embedder(name).transform(file) for name in BOTH.split("+")]
    together = headstart.Embedder(BOTH).transform(file)
    wanted = [one / np.sqrt(np.square(one).mean()) for one in alone]
    np.testing.assert_allclose(together, np.concatenate(wanted, axis=1), rtol=1e-5)

    # One graph, which anybody can ask with an input for each network.
    session = onnxruntime.InferenceSession("bundle/model.onnx")
    names = {one.name for one in session.get_inputs()}
    assert names == {"picture", "network_2/picture"}
    pixels = np.asarray(Image.open(file).convert("RGB"))
    (shares,) = session.run(["probabilities"], dict.fromkeys(names, pixels))
    assert shares.sum() == pytest.approx(1, abs=1e-5)

    Path("bundle/bundle.json").write_text(json.dumps(told | {"further": [], "schema": 1}))
    with pytest.raises(DataError, match=r"takes 2 inputs, but bundle\.json names 1"):
        Classifier(Path("bundle"))


def test_what_cannot_be_joined_is_one_line(shapes: Project) -> None:
    from pipeline.backbones.engines import open_encoder

    with pytest.raises(ParamsError, match="names a network twice"):
        extract_section({"backbone": "efficientnet_lite0+efficientnet_lite0"}, "x")
    with pytest.raises(ParamsError, match="several of them joined"):
        extract_section({"backbone": "efficientnet_lite0+"}, "x")
    text = kinds.named("text")
    with pytest.raises(ParamsError, match="term counts cannot be combined"):
        open_encoder(ExtractParams(backbone="minilm_l6_v2+tf_idf"), text)
    with pytest.raises(ParamsError, match="takes pixels"):
        open_encoder(ExtractParams(backbone="minilm_l6_v2+efficientnet_lite0"), text)
    assert Params().extract.backbone == "efficientnet_lite0"


def test_a_row_of_zeros_stays_one() -> None:
    parts = [np.zeros((1, 3), np.float32), np.array([[3.0, 4.0]], np.float32)]
    side_by_side = joined.beside(parts)
    np.testing.assert_allclose(side_by_side, [[0, 0, 0, 0.848528, 1.131371]], rtol=1e-5)
    assert joined.beside(parts[:1]) is parts[0]

"""The rank stage: real backbones side by side, from the feature store."""

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from flows import choose as choosing
from pipeline import kinds
from pipeline.augment import augment
from pipeline.backbones import catalogue
from pipeline.core import packages
from pipeline.core.backbone import Backbone
from pipeline.core.errors import MissingSetError, ParamsError
from pipeline.core.params import check_file, load
from pipeline.core.paths import RANK, RANK_SPEED
from pipeline.evaluation.comparing import Score
from pipeline.extract import extract
from pipeline.ingest import ingest
from pipeline.rank import described, rank
from pipeline.transfer.comparison import Candidate, Compared
from tests.conftest import ROOT, SMALL


@pytest.fixture
def shapes(project, draw_shapes):
    """Forty pictures of two classes, ingested."""
    draw_shapes(range(40))
    project.set(**{"ingest.source": "folder", "ingest.path": "data/raw/shapes"})
    project.set(**{"rank.run": ["asked"]})
    ingest()
    return project


def test_backbones_are_ranked_and_a_second_look_computes_nothing(
    shapes, lite0, small_backbone, capsys, monkeypatch
):
    # Too little for either network: a run keeps the features of both.
    monkeypatch.setenv("HEADSTART_STORE_LIMIT", "50KB")
    untrained = f"{SMALL['extract.weights']}:{SMALL['extract.backbone']}"
    shapes.set(**{"rank.backbones": [untrained, "efficientnet_lite0"]})
    rank()
    first = RANK.read_bytes()
    table = pd.read_csv(RANK).set_index("backbone")
    assert set(table.index) == {untrained, "efficientnet_lite0"}
    assert table["loss"].is_monotonic_increasing
    assert (table["low"] <= table["cv_accuracy"]).all()
    assert (table["cv_accuracy"] <= table["high"]).all()
    for candidate, of in table.iterrows():
        backbone = Backbone.candidate(candidate)
        network = catalogue.load(backbone)
        assert of["parameters"] == sum(p.numel() for p in network.module.parameters())
        assert of["features"] == network.dimension
        assert of["pixels"] == network.preprocessing.crop
    assert table.loc["efficientnet_lite0", "features"] == 1280
    # Trained features separate discs from squares better than random ones.
    trained, floor = table.loc["efficientnet_lite0"], table.loc[untrained]
    assert trained["loss"] < floor["loss"]
    assert floor["above_best"] == pytest.approx(floor["loss"] - trained["loss"], rel=1e-4)
    assert floor["above_low"] < floor["above_best"] < floor["above_high"]
    assert 0 <= floor["p_value"] <= 1
    assert (pd.read_csv(RANK_SPEED)["milliseconds"] > 0).all()
    computed = re.findall(r"(\d+) views reused, (\d+) computed", capsys.readouterr().out)
    assert [of[0] for of in computed] == ["0", "0"]

    rank()
    assert RANK.read_bytes() == first
    again = re.findall(r"(\d+) views reused, (\d+) computed", capsys.readouterr().out)
    assert again == [(count, "0") for _, count in computed]


def test_the_projects_own_networks_are_described_with_their_pooling(monkeypatch):
    used = Backbone.parse("efficientnet_lite1+efficientnet_lite0", pooling="gem")
    first, second = used.each
    sizes, crops = {first: 4_200_000, second: 3_400_000}, {second: 224, first: 240}
    monkeypatch.setattr("pipeline.rank.size", sizes.__getitem__)
    inputs = {one: SimpleNamespace(crop=crop) for one, crop in crops.items()}
    engines = {one: SimpleNamespace(preprocessing=inputs[one]) for one in used.each}
    name, score = str(used), Score(0.9, 0.8, 1.0)
    candidate = Candidate(name, np.ones(5), np.arange(5), score, 1.0, 0.1, dimension=2560)
    assert described(candidate, Compared([candidate], {name: used}, engines)) == {
        "features": 2560,
        "pixels": "240+224",
        "parameters": 7_600_000,
        "megabytes": 30.4,
        "licence": "apache-2.0",
    }


@pytest.mark.slow
def test_networks_whose_weights_are_packages_need_no_pytorch(shapes, lite0, monkeypatch):
    for module in ("torch", "torchvision", "timm"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(packages, "_found", lambda module: module not in packages.SETS["torch"])
    knobs = {"rank.backbones": ["efficientnet_lite0", "efficientnet_lite1"], "augment.views": 0}
    shapes.set(**knobs)
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    for folder in ("plugins", "data/weights"):
        Path(folder).mkdir()
    check_file(kinds.schema)
    rank()
    parameters = pd.read_csv(RANK).set_index("backbone")["parameters"]
    assert parameters["efficientnet_lite1"] == 4_135_680  # as timm counts
    choosing.choose(["efficientnet_lite1"])
    augment()
    extract()
    assert load(kinds.schema).extract.backbone == "efficientnet_lite1"
    shapes.set(**{"rank.backbones": ["random:efficientnet_lite0"]})
    with pytest.raises(MissingSetError, match=r"^rank of random:efficientnet_lite0 needs PyTorch"):
        check_file(kinds.schema)
    with pytest.raises(MissingSetError, match=r"^rank of random:efficientnet_lite0 needs PyTorch"):
        rank()


def test_a_candidate_is_a_backbone_or_one_untrained(shapes):
    shapes.set(**{"rank.backbones": ["random:resnet"]})
    with pytest.raises(ParamsError, match=r"rank.backbones.0 is 'random:resnet'"):
        load(kinds.schema)


def test_every_name_is_looked_up_before_a_backbone_is_run(shapes, monkeypatch):
    monkeypatch.setattr(
        "pipeline.transfer.comparison.open_encoder", lambda *_: pytest.fail("it was run")
    )
    shapes.set(**{"rank.backbones": ["efficientnet_lite0", "timm:no_such_model"]})
    with pytest.raises(ParamsError, match=r"timm has no model 'no_such_model'"):
        rank()

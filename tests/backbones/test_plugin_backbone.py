"""A backbone of one's own, from its function to features, a bundle, and the store."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch

from pipeline import kinds
from pipeline.augment import augment
from pipeline.backbones import catalogue, engines, exports, plugin
from pipeline.bundle import bundle
from pipeline.core import packages, params
from pipeline.core.backbone import Backbone
from pipeline.core.errors import MissingSetError, ParamsError
from pipeline.core.paths import BUNDLE, FEATURES, RANK
from pipeline.evaluate import evaluate
from pipeline.extract import extract
from pipeline.ingest import ingest
from pipeline.rank import rank
from pipeline.serving import torch_module
from pipeline.serving.classifier import Classifier
from pipeline.train import train
from tests.conftest import Project, begin_store

IMAGE = kinds.named("image")
NAME = "python:mine.network"
TOLD = "(20, 16, 'bicubic', (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))"
# Means of 4 x 4 cells: 48 features, and no maps.
GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
cells (uint8[n, 16, 16, 3] pictures) => (float[n, 48] features)
<float scale = {255.0}>
{
    numbers = Cast <to = 1> (pictures)
    channels = Transpose <perm = [0, 3, 1, 2]> (numbers)
    means = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (channels)
    flat = Flatten <axis = 1> (means)
    features = Div (flat, scale)
}
"""
CODE = f"import onnx\n\ndef network():\n    return onnx.parser.parse_model(GRAPH), {TOLD}\n"
MODULE = f"""
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU())
    return nn.Sequential(first, nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU())), {TOLD}
"""


def write(text: str) -> None:
    Path("plugins").mkdir(exist_ok=True)
    Path("plugins/mine.py").write_text(text)


def graph(scale: str = "255.0", text: str = GRAPH) -> str:
    return f'GRAPH = """{text.replace("255.0", scale)}"""\n{CODE}'


@pytest.fixture
def shapes(
    project: Project,
    draw_shapes: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    """Forty pictures of two classes, ingested; a store of its own."""
    (tmp_path / "exports").mkdir()
    monkeypatch.setenv("HEADSTART_STORE", str(begin_store(tmp_path / "own", tmp_path / "exports")))
    draw_shapes(range(40))
    project.set(
        **{"ingest.source": "folder", "ingest.path": "data/raw/shapes", "augment.views": 0},
        **{"extract.backbone": NAME, "extract.device": "cpu", "evaluate.bootstrap": 10},
    )
    ingest()
    augment()
    return project


def test_a_graph_runs_without_pytorch_and_is_computed_again_only_when_it_changes(
    shapes: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports.packages, "_found", lambda module: module != "torch")
    monkeypatch.setattr(exports.packages, "need", lambda name, who: pytest.fail(f"{who}: {name}"))
    monkeypatch.setattr(catalogue, "load", lambda *_: pytest.fail("PyTorch's"))
    write(graph())

    def computed() -> str:
        capsys.readouterr()
        extract()
        return capsys.readouterr().out.partition(" views: ")[2].partition(" computed")[0]

    assert computed() == "0 reused, 40"
    shards = {file.name: file.read_bytes() for file in FEATURES.iterdir()}
    write(graph() + "# a word more\n")
    assert computed() == "40 reused, 0"
    assert {file.name: file.read_bytes() for file in FEATURES.iterdir()} == shards
    write(graph("100.0"))
    assert computed() == "0 reused, 40"


def test_its_bundle_answers_and_says_that_it_has_no_pytorch_form(shapes: Project) -> None:
    write(graph())
    for stage in (extract, train, evaluate, bundle):
        stage()
    about = json.loads((BUNDLE / "bundle.json").read_text())
    assert about["backbone"]["name"] == NAME
    assert "plugins" in about["code"]
    classifier = Classifier(BUNDLE, explains=True)
    picture = next(Path("data/raw/shapes/disc").iterdir()).read_bytes()
    answer = classifier.answer(picture, heat=True, neighbours=1)
    assert answer.probabilities.sum() == pytest.approx(1)
    assert answer.heat is not None  # by hiding cells of the picture
    assert answer.heat.media_type == "image/png"
    with pytest.raises(ParamsError, match=r"^backbone python:mine\.network is an ONNX graph and"):
        torch_module.load(BUNDLE)


def test_rank_takes_it(shapes: Project) -> None:
    write(graph())
    shapes.set(**{"rank.run": ["asked"], "rank.backbones": [NAME]})
    rank()
    table = pd.read_csv(RANK).set_index("backbone")
    told = table.loc[NAME, ["features", "pixels", "parameters", "licence"]]
    assert told.tolist() == [48, 16, 1, "not stated"]


@pytest.mark.slow
def test_a_module_is_exported_agrees_with_pytorch_and_loads_weights(
    shapes: Project, tmp_path: Path
) -> None:
    write(MODULE)
    asked = params.load(kinds.schema).extract
    fast = engines.open_engine(asked, IMAGE)
    sure = engines.open_engine(asked.model_copy(update={"engine": "torch"}), IMAGE)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_allclose(fast.run(pictures), sure.run(pictures), atol=1e-5)
    assert fast.fingerprint.split()[0] == sure.fingerprint.split()[0]
    exported = onnx.load(exports.exported(Backbone.parse(NAME, "pretrained")))
    assert [one.name for one in exported.graph.output] == ["features", "maps"]

    write(MODULE + "# a word more\n")
    again = engines.open_engine(asked.model_copy(update={"engine": "torch"}), IMAGE)
    assert again.fingerprint == sure.fingerprint
    backbone = catalogue.load(Backbone.parse(NAME))
    with torch.no_grad():
        next(backbone.module.parameters()).zero_()
    catalogue.save_tensors(backbone.module.state_dict(), tmp_path / "weights")
    read = catalogue.with_weights(Backbone.parse(NAME), tmp_path / "weights")
    assert not next(read.module.parameters()).any()
    with pytest.raises(ParamsError, match=r"comes with its own weights; to use random ones"):
        catalogue.load(Backbone.parse(NAME, "random"))


def test_on_a_gpu_a_graph_is_left_to_the_cpu(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def runs_it() -> str:
        asked = params.load(kinds.schema).extract
        return engines._runs_it(asked.network, asked)

    monkeypatch.setattr(engines, "_has_cuda", lambda: True)
    project.set(**{"extract.backbone": NAME})
    write(graph())
    assert runs_it() == "onnxruntime"
    project.set(**{"extract.device": "cuda"})
    with pytest.raises(ParamsError, match=r"is an ONNX graph and has no PyTorch form"):
        engines.open_engine(params.load(kinds.schema).extract, IMAGE)
    write(MODULE)
    project.set(**{"extract.device": "auto"})
    assert runs_it() == "torch"


def test_an_export_is_named_for_the_code_and_the_versions(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(graph())
    names = {exports.file_of(Backbone.parse(NAME, "pretrained"))}
    Path("plugins/weights.bin").write_bytes(b"1")
    names.add(exports.file_of(Backbone.parse(NAME, "pretrained")))
    Path("plugins/requirements.txt").write_text("other==1")
    names.add(exports.file_of(Backbone.parse(NAME, "pretrained")))
    monkeypatch.setattr(packages, "version", lambda name: "99")
    names.add(exports.file_of(Backbone.parse(NAME, "pretrained")))
    assert len(names) == 4


GOOD = "onnx.parser.parse_model(GRAPH)"


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("3", "returned 3; it should return (network, preprocessing)"),
        (f"{GOOD}, (20, 16)", "has the preprocessing (20, 16); it should have (resize, crop,"),
        (
            f"{GOOD}, (20, 0, 'bicubic', (0,)*3, (1,)*3)",
            "has crop 0; it should be a whole number from 1 to 4096",
        ),
        (f"{GOOD}, (20, 16, 'box', (0,)*3, (1,)*3)", "has interpolation 'box'; use bicubic"),
        (f"{GOOD}, (20, 16, 'bicubic', (0,)*3, (0,)*3)", "needs a mean, and a std above 0"),
        (f"'none.onnx', {TOLD}", ": FileNotFoundError: "),
        (f"b'graph', {TOLD}", "returned the network b'graph'; it should be a path"),
        (f"{GOOD}, (20, 8, 'bicubic', (0,)*3, (1,)*3)", ": InvalidArgument: "),
    ],
)
def test_what_it_returns_that_is_no_backbone_is_a_line(
    project: Project, returned: str, words: str
) -> None:
    write(graph().replace(f"{GOOD}, {TOLD}", returned))
    with pytest.raises(ParamsError) as caught:
        plugin.opened(Backbone.parse(NAME))
    assert str(caught.value).removeprefix(f"backbone {NAME}").lstrip().startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("pictures", "seen", "is a graph with the inputs seen and the outputs features; its input"),
        (
            "features",
            "numbers_",
            "is a graph with the inputs pictures and the outputs numbers_; its",
        ),
        (
            "axis = 1",
            "axis = 0",
            "returns float32 [1, 144] for 3 pictures; it should return float32",
        ),
        ("uint8[n,", "uint8[1,", ": InvalidArgument: "),
        ("float[n, 48]", "double[n, 48]", ": "),
        ("Flatten <axis = 1>", "NoSuchOperator", ": "),
    ],
)
def test_another_graph_is_refused(project: Project, before: str, after: str, words: str) -> None:
    write(graph(text=GRAPH.replace(before, after)))
    with pytest.raises(ParamsError) as caught:
        plugin.opened(Backbone.parse(NAME))
    assert str(caught.value).removeprefix(f"backbone {NAME}").lstrip().startswith(words)
    assert "\n" not in str(caught.value)


def test_a_side_that_a_graph_leaves_open_is_known(project: Project) -> None:
    write(graph(text=GRAPH.replace("float[n, 48]", "float[n, m]")))
    made = plugin.opened(Backbone.parse(NAME))
    assert made is not None
    shape = made.model.graph.output[0].type.tensor_type.shape
    assert [(side.dim_param, side.dim_value) for side in shape.dim] == [("n", 0), ("", 48)]


def test_a_module_without_pytorch_names_the_set(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(MODULE)
    monkeypatch.setattr(exports.packages, "_found", lambda module: module != "torch")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingSetError, match=r"^backbone python:mine\.network needs PyTorch"):
        exports.exported(Backbone.parse(NAME, "pretrained"))

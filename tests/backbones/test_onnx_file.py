"""`onnx:data/weights/NAME.onnx`: a graph of somebody's own with a YAML beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from numpy.typing import NDArray
from onnx import numpy_helper, parser
from torch import nn

from pipeline import kinds
from pipeline.backbones import catalogue, engines, exports, onnx_file
from pipeline.core import params
from pipeline.core.backbone import Backbone
from pipeline.core.errors import HeadstartError, ParamsError, WeightsError
from pipeline.core.params import extract_section
from tests.conftest import Project

NAME = "onnx:data/weights/mine.onnx"
FILE = Path("data/weights/mine.onnx")
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
TOLD = {"resize": 20, "crop": 16, "interpolation": "bicubic", "mean": MEAN, "std": STD}
GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
mine (float[n, 3, 16, 16] pictures) => (float[n, 3] features)
{
    pooled = GlobalAveragePool(pictures)
    features = Flatten<axis = 1>(pooled)
}
"""
MAPS = """
<ir_version: 10, opset_import: ["" : 20]>
mine (float[n, 3, h, w] x) => (float[n, 3, u, v] y)
{
    y = AveragePool<kernel_shape = [4, 4], strides = [4, 4]>(x)
}
"""


@pytest.fixture(autouse=True)
def folder(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights, and a store of its own."""
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "own"))
    FILE.parent.mkdir()
    return FILE.parent


def write(text: str = GRAPH, told: dict[str, Any] | None = None) -> None:
    onnx.save(parser.parse_model(text), FILE)
    FILE.with_suffix(".yaml").write_text(yaml.safe_dump(TOLD if told is None else told))


def pictures() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def features() -> NDArray[np.float32]:
    engine = engines.open_engine(
        extract_section({"backbone": NAME}, "a test"), kinds.named("image")
    )
    found: NDArray[np.float32] = engine.run(pictures())
    return found


@pytest.mark.parametrize(("text", "maps"), [(GRAPH, False), (MAPS, True)])
def test_pictures_are_scaled_and_the_graph_gives_features(text: str, maps: bool) -> None:
    write(text)
    scaled = (pictures() / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(features(), scaled.mean(axis=(1, 2)), atol=1e-5)
    exported = onnx.load(exports.exported(Backbone.parse(NAME, "pretrained")))
    outputs = [one.name for one in exported.graph.output]
    assert outputs == (["features", "maps"] if maps else ["features"])
    assert Backbone.parse(NAME).has_graph
    assert exports.licence(Backbone.parse(NAME)) == "not stated"


@pytest.mark.slow
def test_what_pytorch_exports_is_taken_as_it_is(project: Project) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.GELU(), nn.AdaptiveAvgPool2d(1))
    module = nn.Sequential(network, nn.Flatten()).eval()
    n = torch.export.Dim("n", min=1)
    torch.onnx.export(
        module, (torch.zeros(2, 3, 16, 16),), FILE, dynamic_shapes=({0: n},), dynamo=True
    )
    FILE.with_suffix(".yaml").write_text(yaml.safe_dump(TOLD | {"licence": "CC0", "fit": "squash"}))
    scaled = (torch.from_numpy(pictures()) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.inference_mode():
        wanted = module(scaled.float().permute(0, 3, 1, 2))
    np.testing.assert_allclose(features(), wanted, atol=1e-5)
    assert exports.licence(Backbone.parse(NAME)) == "CC0"
    assert onnx_file.opened(Backbone.parse(NAME)).preprocessing.fit == "squash"


def test_the_export_stands_for_the_graph_the_yaml_and_weights_beside_it() -> None:
    write()
    names = [exports.file_of(Backbone.parse(NAME, "pretrained"))]
    write(told=TOLD | {"resize": 18})
    names.append(exports.file_of(Backbone.parse(NAME, "pretrained")))
    write(GRAPH.replace("opset_import", " opset_import").replace('"" : 17', '"" : 16'))
    names.append(exports.file_of(Backbone.parse(NAME, "pretrained")))
    FILE.with_name("mine.onnx.data").write_bytes(b"1")
    names.append(exports.file_of(Backbone.parse(NAME, "pretrained")))
    assert len(set(names)) == 4


def test_it_has_no_pytorch_form(project: Project) -> None:
    write()
    with pytest.raises(ParamsError, match=r"^backbone onnx:data/weights/mine.onnx is an ONNX gra"):
        catalogue.load(Backbone.parse(NAME))
    project.set(**{"extract.backbone": NAME, "finetune.run": ["asked"]})
    (project.folder / "dvc.yaml").write_text("stages: {}")
    with pytest.raises(ParamsError, match=r"^finetune trains networks that have a PyTorch form"):
        params.check_file(kinds.schema)


def with_weights_in(location: str) -> None:
    """A graph whose weights are in another file."""
    write()
    model = onnx.load(FILE)
    tensor = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, location, offset=0, length=24)
    tensor.ClearField("raw_data")
    model.graph.initializer.append(tensor)
    FILE.write_bytes(model.SerializeToString())


def with_nan() -> None:
    bad = "bad = Log(negative)\n    features = Add(flat, bad)\n"
    text = GRAPH.replace("features = F", "flat = F").replace("(pooled)\n", f"(pooled)\n    {bad}")
    write(text.replace("features)\n{", "features)\n<float negative = {-1.0}>\n{"))


def old() -> None:
    write(GRAPH.replace('"" : 17', '"" : 9'))


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda: write() or FILE.with_suffix(".yaml").unlink(), "weights/mine.yaml does not exist"),
        (lambda: write() or FILE.unlink(), "data/weights/mine.onnx does not exist"),
        (
            lambda: write(told={k: v for k, v in TOLD.items() if k != "mean"}),
            "data/weights/mine.yaml lacks mean; it should have resize, crop, interpolation, mean,",
        ),
        (lambda: write(told=TOLD | {"size": 3}), "mine.yaml has size, which is not known"),
        (lambda: write(told=TOLD | {"mean": [0.5]}), "needs a mean, and a std above 0, for each"),
        (lambda: write(told=TOLD | {"mean": [0.5, 0.5, float("nan")]}), "that is not finite"),
        (lambda: write(told=TOLD | {"crop": "x"}), "has crop 'x'; it should be a whole number"),
        (lambda: write(told=TOLD | {"fit": "x"}), "mine.yaml has fit 'x'; use squash or border"),
        (lambda: write(told=TOLD | {"interpolation": "box"}), "has interpolation 'box'; use bicu"),
        (
            lambda: write() or FILE.with_suffix(".yaml").write_text("- a"),
            "mine.yaml is not a mapping",
        ),
        (
            lambda: write() or FILE.with_suffix(".yaml").write_text("a: ["),
            "mine.yaml is not valid YAML: ",
        ),
        (lambda: write() or FILE.write_bytes(FILE.read_bytes()[:40]), "mine.onnx is damaged: "),
        (
            lambda: write(GRAPH.replace("16] pictures", "16] pictures, float[n, 2] more")),
            "has the inputs pictures, more; it should have only one",
        ),
        (
            lambda: write(
                MAPS.replace("v] y)", "v] y, float[n, 3, h, w] z)").replace(
                    "y = A", "z = Identity(x)\n    y = A"
                )
            ),
            "has the outputs y, z; it should have only one",
        ),
        (
            lambda: write(GRAPH.replace("[n, 3, 16", "[1, 3, 16")),
            "has a fixed batch size of 1; export it with a dynamic first axis",
        ),
        (lambda: write(told=TOLD | {"crop": 18}), "mine.yaml describes [3, 18, 18]"),
        (
            lambda: write(GRAPH.replace("(float[n, 3, 16, 16]", "(uint8[n, 16, 16, 3]")),
            "takes uint8 [0, 16, 16, 3]; it should take float [n, 3, 16, 16]",
        ),
        (
            lambda: write(
                GRAPH.replace('"" : 17', '"" : 17, "com.microsoft" : 1').replace(
                    "pooled = Glo", "other = com.microsoft.Gelu(pictures)\n    pooled = Glo"
                )
            ),
            "has operators that ONNX does not define (com.microsoft.Gelu): export it without them",
        ),
        (old, "uses opset 9; export it with one from 13 to 20"),
        (lambda: with_weights_in("elsewhere.bin"), "keeps weights in elsewhere.bin; write them in"),
        (lambda: with_weights_in("../raw/w.bin"), "keeps weights in ../raw/w.bin; write them into"),
        (lambda: with_weights_in("mine.onnx.data"), "mine.onnx is damaged: "),  # it is not there
        (with_nan, "returns values that are not finite for black pictures"),
        (
            lambda: write(
                GRAPH.replace("float[n, 3] f", "float[n, 3, 1, 1, 1] f")
                .replace("Flatten<axis = 1>(pooled)", "Unsqueeze(pooled, last)")
                .replace("features)\n{", "features)\n<int64[1] last = {4}>\n{")
            ),
            "returns an array with 5 axes; it should return features [n, d], or maps [n, d, h, w]",
        ),
    ],
)
def test_what_is_wrong_with_a_graph_is_one_line(prepare: Callable[[], Any], said: str) -> None:
    prepare()
    with pytest.raises((ParamsError, WeightsError)) as caught:
        exports.exported(Backbone.parse(NAME, "pretrained"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, HeadstartError)

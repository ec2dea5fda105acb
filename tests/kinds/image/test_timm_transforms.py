"""Pictures are prepared as timm prepares them: one network for each family of preprocessing."""

import io
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import skimage.data
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config

from pipeline.augment import augment
from pipeline.backbones import timm_models
from pipeline.bundle import bundle
from pipeline.core.backbone import Backbone
from pipeline.core.paths import BUNDLE
from pipeline.evaluate import evaluate
from pipeline.extract import extract
from pipeline.ingest import ingest
from pipeline.kinds import Fitted, Pixels, takes
from pipeline.kinds.image import onnx_input, preprocess, torch_input, views
from pipeline.serving import torch_module
from pipeline.serving.classifier import Classifier
from pipeline.train import train

PHOTOGRAPHS = ("coffee", "astronaut", "rocket", "chelsea")
KNOBS = ("input_size", "crop_mode", "interpolation", "crop_pct", "mean", "std")
MOST = 2.5  # levels of 255, the mean over a picture, where the middle is cut out
SCALE = ((0.5, 0.4, 0.3), (0.5, 0.5, 0.5))
WHOLE = [
    Fitted(224, 224, "bicubic", *SCALE, "squash"),
    Fitted(235, 224, "bilinear", *SCALE, "squash"),
    Fitted(224, 224, "bicubic", *SCALE, "border"),
    Fitted(257, 224, "lanczos", *SCALE, "border"),
    Pixels(256, 224, "lanczos", *SCALE),
    Pixels(256, 224, "nearest", *SCALE),
]
MIDDLE = [
    Pixels(256, 224, "bicubic", *SCALE),
    Pixels(232, 224, "bilinear", *SCALE),
    Pixels(200, 240, "bicubic", *SCALE),  # the crop is larger
]
# Width and height: enlarged and shrunk, wide and tall, and as large as what they become.
SIZES = [
    (224, 224), (341, 256), (256, 767), (769, 256), (5, 7), (500, 375), (375, 500), (255, 257),
    (1000, 100), (100, 1000), (900, 7), (404, 875), (26, 554), (235, 235), (257, 240),
]  # fmt: skip


def encoded(picture, form="PPM"):
    file = io.BytesIO()
    picture.save(file, form, quality=92)
    return file.getvalue()


def seen(data, preprocessing):
    return views.ViewMaker(preprocessing)([(data, [views.ORIGINAL])])[0]


def distance(ours, theirs):
    """The mean difference where one of them is moved by at most a pixel down and across."""
    one, other = ours.astype(int), theirs.astype(int)[2:-2, 2:-2]
    side = other.shape[0]
    moved = [one[y : y + side, x : x + side] for y in range(1, 4) for x in range(1, 4)]
    return float(min(np.abs(part - other).mean() for part in moved))


@pytest.mark.parametrize("form", ["PPM", "JPEG"])
@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("convnext_tiny.in12k_ft_in1k", None),  # bicubic, at 235 of 224: timm's middle is odd
        ("cspresnet50.ra_in1k", None),  # bilinear
        ("vit_small_patch14_dinov2.lvd142m", None),  # nothing is cut off
        ("coat_lite_medium_384.in1k", "squash"),
        ("tf_efficientnetv2_b3", "squash"),
        ("vit_base_patch16_lingbot.robbyant", "squash"),  # bilinear
        ("deepseek_vit_412m.deepseek_v4_flash_vision_exp", "border"),
    ],
)
def test_photographs_are_prepared_as_by_timm(name, fit, form):
    stated = timm.get_pretrained_cfg(name)
    assert stated is not None
    overlay = {knob: stated.to_dict()[knob] for knob in KNOBS}
    network = timm.create_model("test_resnet", pretrained_cfg_overlay=overlay)
    preprocessing = timm_models.preprocessing(Backbone.parse(f"timm:{name}"), network)
    transform = create_transform(**resolve_model_data_config(network))
    assert getattr(preprocessing, "fit", None) == fit
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in preprocessing[3:5])
    for photograph in PHOTOGRAPHS:
        data = encoded(Image.fromarray(getattr(skimage.data, photograph)()), form)
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        if not fit:  # timm cuts a fraction of a pixel off the longer side, and we round it
            factor = preprocessing.resize / min(picture.size)
            whole = tuple(round(factor * length) for length in picture.size)
            picture = picture.resize(whole, preprocess.FILTERS[preprocessing.interpolation])
        scaled = transform(picture) * std + mean
        theirs = (scaled * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        ours = seen(data, preprocessing)
        if fit:
            np.testing.assert_array_equal(ours, theirs)
        else:
            assert distance(ours, theirs) < MOST


@pytest.mark.parametrize("preprocessing", WHOLE + MIDDLE)
def test_the_graph_and_pytorch_prepare_pictures_of_any_size_alike(preprocessing):
    model = onnx_input.graph(preprocessing).SerializeToString()
    graph = onnxruntime.InferenceSession(model)
    whole = Image.fromarray(skimage.data.coffee())
    filter_ = preprocessing.interpolation
    for size in SIZES if preprocessing in (WHOLE[0], MIDDLE[0]) else SIZES[::3]:
        picture = whole.resize(size)
        pixels, data = np.asarray(picture), encoded(picture)
        ours = seen(data, preprocessing).astype(int)
        (base,) = graph.run(None, {"picture": preprocess.base(data, preprocessing)})[0]
        np.testing.assert_array_equal(base, ours)  # it is only cropped
        (in_onnx,) = graph.run(None, {"picture": pixels})[0].astype(int)
        in_torch = torch_input.preprocess(torch.from_numpy(pixels.copy()), preprocessing)
        for found, is_cubic in ((in_onnx, filter_ == "lanczos"), (in_torch.numpy(), False)):
            # A tall picture is scaled down first by Pillow, and across first here; the place of
            # the nearest pixel may be rounded either way.
            most, mean = (25, 3.0) if is_cubic else (30, 0.1) if filter_ == "nearest" else (8, 0.2)
            assert np.abs(found - ours).max() <= most, size
            assert np.abs(found - ours).mean() < mean, size


def test_views_of_a_whole_picture_are_about_its_middle():
    preprocessing = WHOLE[2]
    data = encoded(Image.fromarray(skimage.data.coffee()))
    asked = [(data, [views.ORIGINAL, views.View(hflip=True), views.View(angle=90.0)])]
    plain, flipped, turned = views.ViewMaker(preprocessing)(asked)
    np.testing.assert_array_equal(flipped, plain[:, ::-1])
    assert plain.shape == turned.shape == (224, 224, 3)
    assert (plain[0] == preprocess.colour(preprocessing)).all()  # the border
    assert np.abs(turned.astype(int) - np.rot90(plain)).mean() < 1


@pytest.fixture
def answers(shapes_of_two):
    """A bundle of a network of somebody's own that sees whole pictures."""
    folder = Path("data/weights/mine")
    folder.mkdir(parents=True)
    pretrained = {"input_size": [3, 96, 96], "crop_mode": "border", "crop_pct": 0.95}
    config = {"architecture": "test_resnet", "num_classes": 1000, "pretrained_cfg": pretrained}
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), folder / "model.safetensors")
    shapes_of_two.set(**{"extract.backbone": "timm:data/weights/mine", "extract.device": "cpu"})
    for stage in (augment, extract, train, evaluate, bundle):
        stage()
    about = json.loads((BUNDLE / "bundle.json").read_text())
    return Classifier(BUNDLE, explains=True), about


@pytest.fixture
def shapes_of_two(project, draw_picture, tmp_path, monkeypatch):
    """Forty pictures of two classes, ingested; a store of its own."""
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "own"))
    for i in range(40):
        path = Path("data/raw/shapes") / ("disc", "square")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(i, square=bool(i % 2)).resize((90, 60)).save(path)
    project.set(
        **{"ingest.source": "folder", "ingest.path": "data/raw/shapes", "augment.views": 1},
        **{"evaluate.bootstrap": 10, "train.power": 1.0},
    )
    ingest()
    return project


@pytest.mark.slow
def test_a_bundle_of_such_a_network_answers_alike_everywhere(answers):
    classifier, about = answers
    assert about["takes"] == "fitted"
    assert about["backbone"]["licence"] == "not stated"
    file = next(Path("data/raw/shapes/disc").iterdir())
    pixels = np.asarray(Image.open(file).convert("RGB"))
    answer = classifier.answer(file.read_bytes(), heat=True, neighbours=1)
    assert answer.heat is not None
    assert takes(classifier.bundle.inputs[0]) == "fitted"
    # From all of the pixels on, the graph and PyTorch differ by a level here and there.
    session = onnxruntime.InferenceSession(BUNDLE / "model.onnx")
    whole = session.run(["probabilities"], {"picture": pixels})[0]
    np.testing.assert_allclose(whole, answer.probabilities, atol=2e-3)
    with torch.inference_mode():
        in_torch = torch_module.load(BUNDLE)(torch.from_numpy(pixels.copy()))
    np.testing.assert_allclose(in_torch, whole, atol=1e-3)

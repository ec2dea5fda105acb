import io
from pathlib import Path
from typing import Any

import pytest
import skimage
import timm
import torch
import torchvision
from PIL import Image

from pipeline.backbones import catalogue, lite, timm_models
from pipeline.backbones.onnx_export import WithMaps, map_source
from pipeline.core.backbone import Backbone
from pipeline.core.errors import DataError, ParamsError, WeightsError
from pipeline.kinds import Fitted, Pixels, Preprocessing
from pipeline.kinds.image import preprocess

IMAGENET = {"coffee": 967, "camera": 872, "rocket": 657}  # espresso, tripod, missile

IMAGENET_SCALE = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def seen_by(name: str, preprocessing: Preprocessing) -> torch.Tensor:
    file = io.BytesIO()
    Image.fromarray(getattr(skimage.data, name)()).save(file, "PNG")
    base = preprocess.base(file.getvalue(), preprocessing)
    return torch.from_numpy(preprocess.crop(base, preprocessing.crop).copy())[None]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_the_weights_are_real(name: str) -> None:
    network, preprocessing = lite.classifier(Backbone.parse(name)), lite.PREPROCESSING[name]
    for photograph in ("coffee", "camera"):
        pixels = seen_by(photograph, preprocessing).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            probabilities = network((pixels - 0.5) / 0.5).softmax(1)[0]
        assert probabilities.argmax() == IMAGENET[photograph]
        if name == "efficientnet_lite0":
            assert probabilities.max() > 0.9


def test_the_backbone_is_the_same_network_without_its_classifier() -> None:
    named = Backbone.parse("efficientnet_lite0")
    network, preprocessing = lite.classifier(named), lite.PREPROCESSING[named.name]
    backbone = catalogue.load(named)
    picture = seen_by("coffee", preprocessing)
    assert preprocessing == Preprocessing(256, 224, "bicubic", (0.5,) * 3, (0.5,) * 3)
    with torch.inference_mode():
        whole = network((picture.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
        headless = network.get_classifier()(backbone.module(picture))
    torch.testing.assert_close(whole, headless, rtol=1e-4, atol=1e-4)


def test_nothing_of_a_backbone_trains() -> None:
    backbone = catalogue.load(Backbone.parse("efficientnet_lite0"))
    assert not backbone.module.training
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())


@pytest.mark.parametrize(
    ("name", "dimension", "preprocessing"),
    [
        ("torchvision:resnet50", 2048, (232, 224, "bilinear")),
        ("torchvision:mobilenet_v3_small", 576, (256, 224, "bilinear")),
        ("torchvision:convnext_tiny", 768, (236, 224, "bilinear")),
        ("torchvision:vit_b_16", 768, (256, 224, "bilinear")),
        ("timm:resnet10t", 512, (201, 176, "bicubic")),
        ("timm:mobilenetv3_small_050.lamb_in1k", 1024, (256, 224, "bicubic")),
    ],
)
def test_any_model_of_torchvision_and_timm_loads_by_name(
    name: str, dimension: int, preprocessing: tuple[int, int, str]
) -> None:
    backbone = catalogue.load(Backbone.parse(name, weights="random"))
    assert backbone.dimension == dimension
    assert backbone.preprocessing[:3] == preprocessing


@pytest.mark.parametrize(
    "name", [pytest.param("inception_v3", marks=pytest.mark.slow), "googlenet"]
)
def test_a_network_is_the_same_whether_its_weights_come_from_the_hub_or_from_a_file(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """torchvision builds these two otherwise with weights than without."""
    made = torchvision.models.get_model(name, weights=None, init_weights=False)
    of_hub = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    enum = torchvision.models.get_model_weights(name)
    monkeypatch.setattr(enum, "get_state_dict", lambda *_, **__: of_hub)  # no hub is to be had
    pretrained = catalogue.load(Backbone.parse(f"torchvision:{name}"))
    file = tmp_path / "weights.safetensors"
    catalogue.save_tensors(pretrained.module.state_dict(), file)
    again = catalogue.with_weights(Backbone.parse(f"torchvision:{name}"), file)
    side = pretrained.preprocessing.crop
    pictures = torch.randint(256, (1, side, side, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(again.module(pictures), pretrained.module(pictures))
    assert again.fingerprint == pretrained.fingerprint
    file.write_bytes(b"no weights")
    with pytest.raises(DataError, match="has no weights of torchvision:"):
        catalogue.with_weights(Backbone.parse(f"torchvision:{name}"), file)


@pytest.mark.parametrize(
    ("name", "has_maps"),
    [
        ("efficientnet_lite0", True),
        ("torchvision:resnet18", True),
        ("torchvision:mobilenet_v3_small", True),
        ("timm:resnet10t", True),
        ("timm:mobilenetv3_small_050.lamb_in1k", False),  # it goes on after pooling
        ("torchvision:vit_b_16", False),  # a transformer
    ],
)
def test_the_maps_are_found_whose_mean_the_features_are(name: str, has_maps: bool) -> None:
    backbone = catalogue.load(Backbone.parse(name, weights="random"))
    source = map_source(backbone)
    assert (source is not None) == has_maps
    if source is not None:
        side = backbone.preprocessing.crop
        pictures = torch.randint(256, (2, side, side, 3), dtype=torch.uint8)
        with torch.inference_mode():
            features, maps = WithMaps(backbone.module, source)(pictures)
            assert torch.equal(features, backbone.module(pictures))
        torch.testing.assert_close(maps.mean(dim=(2, 3)), features)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet10t.c3_in1k"])
def test_weights_that_cannot_be_had_are_one_error_naming_the_offline_choice(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    with pytest.raises(WeightsError, match="efficientnet_lite0") as caught:
        catalogue.load(Backbone.parse(name))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def _no_network(*_: object, **__: object) -> None:
    raise OSError("no network")


def test_a_model_that_does_not_exist_is_named() -> None:
    with pytest.raises(ParamsError, match="no classifier 'resnet51'"):
        catalogue.load(Backbone.parse("torchvision:resnet51", weights="random"))
    with pytest.raises(ParamsError, match="no model 'resnet51'"):
        catalogue.load(Backbone.parse("timm:resnet51", weights="random"))


@pytest.mark.parametrize(
    ("configured", "said"),
    [
        ({"crop_mode": "other"}, "crop_mode other"),
        ({"interpolation": "box"}, "interpolation box"),
        ({"input_size": (3, 64, 96)}, r"input_size \(3, 64, 96\)"),
        ({"input_size": (1, 64, 64)}, r"input_size \(1, 64, 64\)"),
    ],
)
def test_pictures_that_timm_prepares_in_another_way_are_no_silent_loss(
    configured: dict[str, object], said: str
) -> None:
    network = timm.create_model("resnet10t", pretrained_cfg_overlay=configured)
    with pytest.raises(ParamsError, match=f"timm:resnet10t was .* {said}.* another backbone$"):
        timm_models.preprocessing(Backbone.parse("timm:resnet10t"), network)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (
            "timm:tf_efficientnetv2_b3",
            Fitted(266, 240, "bicubic", (0.5,) * 3, (0.5,) * 3, "squash"),
        ),
        ("timm:resnet10t", Pixels(201, 176, "bicubic", *IMAGENET_SCALE)),
    ],
)
def test_how_timm_prepares_pictures_is_taken_from_its_configuration(name: str, form: Any) -> None:
    network = timm.create_model(name.removeprefix("timm:"))
    assert timm_models.preprocessing(Backbone.parse(name), network) == form


def test_the_fingerprint_changes_with_the_weights_alone() -> None:
    untrained = Backbone.parse("efficientnet_lite0", "random")
    first, again = (catalogue.load(untrained) for _ in range(2))
    real = catalogue.load(Backbone.parse("efficientnet_lite0"))
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != real.fingerprint

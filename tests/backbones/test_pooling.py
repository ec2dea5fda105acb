"""`extract.pooling`: class token, mean of patches, both, GeM; none where it means nothing."""

import pytest
import timm
import torch
from torch import Tensor

from pipeline.backbones import catalogue, exports
from pipeline.backbones.onnx_export import map_source
from pipeline.core.backbone import Backbone
from pipeline.core.errors import ParamsError


def pictures(backbone: catalogue.TorchBackbone) -> Tensor:
    side = backbone.preprocessing.crop
    drawn = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, side, side, 3), dtype=torch.uint8, generator=drawn)


def scaled(backbone: catalogue.TorchBackbone) -> Tensor:
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in backbone.preprocessing[3:5])
    return (pictures(backbone).permute(0, 3, 1, 2) / 255 - mean) / std


@pytest.mark.parametrize("pooling", ["class", "mean", "class_mean"])
def test_a_transformers_tokens_are_pooled_as_asked(pooling: str) -> None:
    backbone = catalogue.load(Backbone.parse("timm:test_vit", "random", pooling))
    torch.manual_seed(catalogue.RANDOM_SEED)
    network = timm.create_model("test_vit", num_classes=0).eval()
    with torch.inference_mode():
        found = backbone.module(pictures(backbone))
        tokens = network.forward_features(scaled(backbone))
    parts = {"class": tokens[:, 0], "mean": tokens[:, 1:].mean(dim=1)}
    wanted = torch.cat([parts[name] for name in pooling.split("_")], dim=1)
    torch.testing.assert_close(found, wanted)
    assert backbone.dimension == wanted.shape[1]
    # Where features are means of patches, these are maps, so that there can be a heat map.
    assert (map_source(backbone) is not None) == (pooling == "mean")


def test_the_networks_own_pooling_is_the_default_and_changes_nothing() -> None:
    usual = catalogue.load(Backbone.parse("timm:test_vit", "random"))
    token = catalogue.load(Backbone.parse("timm:test_vit", "random", "class"))
    assert not any("network.network" in name for name in usual.module.state_dict())
    assert usual.fingerprint != token.fingerprint
    name = ("timm:test_vit", "random")
    first, other = (exports.file_of(Backbone.parse(*name, how)) for how in ("auto", "mean"))
    assert exports.file_of(Backbone.parse(*name)) == first != other
    with torch.inference_mode():
        torch.testing.assert_close(usual.module(pictures(usual)), token.module(pictures(usual)))


@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:resnet18", "efficientnet_lite0"])
def test_gem_is_the_cubic_mean_of_maps(name: str) -> None:
    usual = catalogue.load(Backbone.parse(name, "random"))
    source = map_source(usual)
    assert source is not None
    seen: list[Tensor] = []
    source.register_forward_hook(lambda _part, _inputs, maps: seen.append(maps))
    backbone = catalogue.load(Backbone.parse(name, "random", "gem"))
    with torch.inference_mode():
        usual.module(pictures(usual))
        found = backbone.module(pictures(backbone))
    wanted = seen[0].clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert map_source(backbone) is None


@pytest.mark.parametrize(
    ("name", "pooling", "lacking"),
    [
        ("timm:test_vit", "gem", "feature maps"),
        ("timm:test_resnet", "class", "tokens"),
        ("timm:test_vit2", "class_mean", "class token"),  # its first token is a register
        ("torchvision:mobilenet_v3_small", "mean", "tokens"),
    ],
)
def test_a_pooling_that_means_nothing_is_refused(name: str, pooling: str, lacking: str) -> None:
    with pytest.raises(
        ParamsError, match=rf"^extract.pooling {pooling}: {name} has no {lacking}; "
    ):
        catalogue.load(Backbone.parse(name, "random", pooling))

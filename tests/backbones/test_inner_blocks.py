"""Inner blocks: which there are, and the bits of the last layer, which they do not change."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from pipeline import kinds
from pipeline.backbones import catalogue, encoder, exports
from pipeline.backbones.blocks import inner, mean
from pipeline.backbones.engines import open_encoder
from pipeline.backbones.engines.engine import Engine
from pipeline.backbones.family import inner_layers
from pipeline.core.backbone import Backbone
from pipeline.core.params import ExtractParams

KINDS = {"efficientnet_lite0": "image", "minilm_l6_v2": "text", "speech_embedding": "audio"}
WIDTHS = {
    "efficientnet_lite0": [1280, 40, 80, 112, 192, 320],
    "minilm_l6_v2": [384, 384, 384],
    "speech_embedding": [288, 24, 48, 72, 96, 96],
    "timm:test_resnet": [96, 16, 32, 48, 192],
    "timm:test_vit": [64, 64, 64],
}
DRAWN = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _with_exports_of_all_tests(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(exported.parent))


def opened(name: str, blocks: str, engine: str = "onnxruntime") -> Engine:
    weights = "random" if ":" in name else "pretrained"
    settings = ExtractParams(backbone=name, weights=weights, blocks=blocks, engine=engine)
    (found,) = open_encoder(settings, kinds.named(KINDS.get(name, "image"))).engines
    return found


def drawn(engine: Engine) -> np.ndarray:
    if engine.takes == "pixels":
        side = engine.preprocessing.crop
        return DRAWN.integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    if engine.takes == "tokens":
        return DRAWN.integers(0, 30_000, (3, 9))
    return DRAWN.standard_normal((3, engine.preprocessing.window)).astype(np.float32) / 10


def assert_alike(name: str, engine: str) -> None:
    """Compare the last layer's features and keys with and without blocks, and batches of one."""
    plain, whole = (opened(name, blocks, engine) for blocks in ("last", "all"))
    assert plain.layers == ()
    assert [layer.width for layer in whole.layers] == WIDTHS[name]
    assert whole.made_by == plain.made_by == whole.each_made_by["last"]
    assert len(set(whole.each_made_by.values())) == len(whole.layers)
    inputs = drawn(plain)
    features = whole.run(inputs)
    last, *blocks = whole.by_layer(features)
    np.testing.assert_array_equal(last, plain.run(inputs), strict=True)
    np.testing.assert_array_equal(whole.run(inputs[:1]), features[:1], strict=True)
    assert all(np.isfinite(block).all() and block.std() > 0 for block in blocks)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", list(KINDS))
def test_the_last_layer_has_the_same_bits_with_inner_blocks(name: str, engine: str) -> None:
    assert_alike(name, engine)


@pytest.mark.slow  # each network is exported twice
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_vit"])
def test_so_it_has_in_networks_that_pytorch_exports(name: str, engine: str) -> None:
    assert_alike(name, engine)


def test_blocks_of_lite0_are_the_ends_of_its_stages_in_pytorch_too() -> None:
    backbone = Backbone.parse("efficientnet_lite0")
    loaded = catalogue.load(backbone.with_blocks("all"))
    engine = opened("efficientnet_lite0", "all")
    assert loaded.blocks == engine.blocks
    inputs = drawn(engine)
    with torch.inference_mode():
        found = loaded.with_blocks()(torch.from_numpy(inputs))
    for ours, theirs in zip(engine.by_layer(engine.run(inputs)), found, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-4)
    assert catalogue.load(backbone).blocks == ()


class Squeezed(nn.Module):
    """Halves the sides of its maps, and doubles the channels."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.cat([maps, maps], dim=1)[:, :, ::2, ::2]


def test_a_block_ends_where_the_maps_change_their_shape() -> None:
    def block(*inside: nn.Module) -> nn.Module:
        return nn.ModuleDict({"it": nn.Sequential(*inside)})

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.stages = nn.Sequential(
                nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Tanh()),  # a convolution is no end
                *(nn.Sequential(Squeezed(), nn.Tanh()) for _ in range(3)),
            )

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return self.stages(self.stem(pictures.permute(0, 3, 1, 2).float())).mean(dim=(2, 3))

    network = Network().eval()
    found = inner(network, network, 32)
    # The last stage's mean is the features.
    assert [tuple(layer) for layer in found] == [
        ("stages.0.2", 4),
        ("stages.1.1", 8),
        ("stages.2.1", 16),
    ]


def test_layers_that_are_alike_are_taken_at_most_five() -> None:
    assert list(inner_layers(6)) == [2, 4]
    assert list(inner_layers(12)) == [2, 4, 6, 8, 10]
    assert list(inner_layers(24)) == [4, 8, 12, 16, 20]
    assert list(inner_layers(1)) == []


def test_means_are_over_places_wherever_the_channels_are() -> None:
    maps = torch.rand(2, 5, 4, 4)
    expected = maps.mean(dim=(2, 3))
    for form in (maps, maps.permute(0, 2, 3, 1), maps.flatten(2).transpose(1, 2)):
        torch.testing.assert_close(mean(form), expected)


@pytest.mark.slow
def test_an_encoder_of_transformers_gives_every_second_layer() -> None:
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    network = transformers.BertModel(transformers.BertConfig(vocab_size=100, **sizes)).eval()
    made = encoder.graph(network, with_blocks=True)
    assert [output.name for output in made.graph.output] == ["features", "layer_2"]
    session = onnxruntime.InferenceSession(made.SerializeToString())
    tokens = DRAWN.integers(5, 100, (3, 9))
    with torch.inference_mode():
        found = network(input_ids=torch.from_numpy(tokens), output_hidden_states=True)
    features, block = session.run(None, {"tokens": tokens})
    for ours, states in ((features, found.hidden_states[4]), (block, found.hidden_states[2])):
        expected = nn.functional.normalize(states.mean(dim=1)).numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    for ours, alone in zip(
        (features, block), session.run(None, {"tokens": tokens[:1]}), strict=True
    ):
        np.testing.assert_array_equal(ours[:1], alone)


def test_an_export_with_blocks_has_the_fingerprint_of_the_one_without() -> None:
    backbone = Backbone.parse("efficientnet_lite0")
    plain, whole = exports.exported(backbone), exports.exported(backbone.with_blocks("all"))
    assert plain != whole
    assert exports.fingerprint(plain) == exports.fingerprint(whole)
    assert [output.name for output in onnx.load(plain).graph.output] == ["features", "maps"]
    # A network without inner blocks has one export.
    identity = Backbone.parse("identity")
    assert identity.with_blocks("all") == identity
    joined = Backbone.parse("efficientnet_lite0+onnx:data/weights/mine.onnx").with_blocks("all")
    assert [one.blocks for one in joined.each] == ["all", "last"]
    assert replace(backbone, blocks="all") == backbone.with_blocks("all")

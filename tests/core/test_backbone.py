"""A backbone's name is parsed in one place."""

from pathlib import Path

import pytest

from pipeline.core.backbone import IN_PYTORCH, Backbone

NAMES = {
    "efficientnet_lite1": ("lite", "efficientnet_lite1"),
    "torchvision:resnet18": ("torchvision", "resnet18"),
    "timm:vit_base_patch14_dinov2.lvd142m": ("timm", "vit_base_patch14_dinov2.lvd142m"),
    "timm:hf-hub:timm/resnet18.a1_in1k": ("timm", "hf-hub:timm/resnet18.a1_in1k"),
    "timm:data/weights/mine": ("timm", "data/weights/mine"),
    "onnx:data/weights/a/b.onnx": ("onnx", "data/weights/a/b.onnx"),
    "identity": ("identity", "identity"),
    "minilm_l6_v2_int8": ("minilm", "minilm_l6_v2_int8"),
    "tf_idf": ("terms", "tf_idf"),
    "speech_embedding": ("speech", "speech_embedding"),
    "whisper_tiny_en": ("whisper", "whisper_tiny_en"),
    "log_mel": ("spectra", "log_mel"),
    "transformers:distilbert/distilroberta-base": (
        "transformers",
        "distilbert/distilroberta-base",
    ),
    "python:mine.network": ("python", "mine.network"),
}


@pytest.mark.parametrize("text", NAMES)
def test_a_name_is_taken_apart_and_written_as_it_was(text):
    backbone = Backbone.parse(text, "pretrained", "mean")
    assert (backbone.family, backbone.name) == NAMES[text]
    assert backbone.each == (backbone,)
    assert str(backbone) == text
    assert backbone.has_graph == (backbone.family not in (*IN_PYTORCH, "python"))
    assert (backbone.own_path is not None) == ("data/weights" in text)


def test_a_joined_backbone_is_one_of_parts():
    backbone = Backbone.parse("+".join(NAMES))
    assert str(backbone) == "+".join(NAMES)
    assert [str(one) for one in backbone.each] == list(NAMES)
    assert backbone.is_joined
    assert not backbone.has_graph


def test_weights_and_pooling_are_those_of_every_network():
    backbone = Backbone.parse("timm:a+timm:b", "random", "mean")
    assert {(one.weights, one.pooling) for one in backbone.each} == {("random", "mean")}
    assert Backbone.parse("timm:a", "data/weights/a.pt").weights_file == Path("data/weights/a.pt")
    assert backbone.weights_file is None


def test_only_a_backbone_that_is_known_to_read_few_languages_says_which():
    assert Backbone.parse("minilm_l6_v2").reads == ("en",)
    assert Backbone.parse("minilm_l6_v2+minilm_l6_v2_int8").reads == ("en",)
    for name in ("tf_idf", "minilm_l6_v2+characters", "transformers:NAME", "efficientnet_lite0"):
        assert Backbone.parse(name).reads == ()


def test_a_candidate_may_be_untrained():
    untrained = Backbone.candidate("random:timm:resnet18")
    assert untrained == Backbone.parse("timm:resnet18", "random")
    assert Backbone.candidate("mfcc") == Backbone.parse("mfcc")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "should be efficientnet_lite0, .* or several of them joined by"),
        ("resnet18", "should be efficientnet_lite0"),
        ("timm:a+", "should be efficientnet_lite0"),
        ("onnx:data/raw/a.onnx", "onnx:data/weights/NAME.onnx"),
        ("timm:a+timm:a", "names a network twice"),
        ("timm:data/weights/../a", r"be the path of a file in data/weights/, without \.\."),
        ("random:identity", "should have efficientnet_lite0, .* behind random:"),
        ("random:python:a.b", "should have efficientnet_lite0, .* behind random:"),
    ],
)
def test_what_is_no_name_is_one_line(text, words):
    with pytest.raises(ValueError, match=words):
        Backbone.candidate(text)

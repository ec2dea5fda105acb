"""Whisper's encoder with its real weights."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pipeline.backbones import packaged, whisper
from pipeline.core.backbone import Backbone
from pipeline.core.errors import WeightsError
from pipeline.kinds import Waveform
from tests.backbones.test_speech import session

WHISPER = Backbone.parse("whisper_tiny_en").with_blocks("all")
RATE = whisper.RATE


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return whisper.opened(WHISPER).model


def sounds(count: int, seconds: int) -> np.ndarray:
    """Gliding tones over noise, each another."""
    random = np.random.default_rng(0)
    time = np.arange(seconds * RATE) / RATE
    glides = np.sin(2 * np.pi * (200 + 50 * random.random((count, 1)) * time) * time)
    return (0.3 * glides + random.standard_normal(glides.shape) * 0.05).astype(np.float32)


def in_pytorch() -> torch.nn.Module:
    """The network of `transformers`, which is imported here alone, with the package's weights."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    given = whisper.weights(packaged.file_of("whisper", "audio", *whisper.FILE))
    sizes = {"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6}
    network = WhisperEncoder(WhisperConfig(**sizes, encoder_ffn_dim=1536)).eval()
    names = {
        "self_attention.layer_norm": "self_attn_layer_norm",
        "self_attention.linear_1": "self_attn.out_proj",
        "self_attention.query": "self_attn.q_proj",
        "self_attention.key": "self_attn.k_proj",
        "self_attention.value": "self_attn.v_proj",
        "ffn.layer_norm": "final_layer_norm",
        "ffn.linear_0": "fc1",
        "ffn.linear_1": "fc2",
        "position_encodings.encodings": "embed_positions.weight",
    }
    tensors = {}
    for key, tensor in given.items():
        name = re.sub(r"^layer_(\d)", r"layers.\1", key)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        tensors[name] = torch.from_numpy(tensor)
    left = network.load_state_dict(tensors, strict=False)
    assert not left.missing_keys
    # Its keys have no bias; CTranslate2 writes zeros.
    assert {name.rpartition(".k_proj")[2] for name in left.unexpected_keys} == {".bias"}
    return network


@pytest.mark.slow
def test_features_are_those_of_the_network_in_transformers(model: onnx.ModelProto) -> None:
    from transformers import WhisperFeatureExtractor

    (sound,) = sounds(1, 30)  # what the network of `transformers` asks for
    spectrum = WhisperFeatureExtractor()(sound, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        found = in_pytorch()(spectrum["input_features"], output_hidden_states=True)
    outputs = session(model).run(None, {"waveform": sound[None]})
    wanted = [found.last_hidden_state, found.hidden_states[2]]
    for ours, states in zip(outputs, wanted, strict=True):
        expected = states.mean(dim=1).numpy()
        np.testing.assert_allclose(ours, expected, atol=2e-3 * np.abs(expected).max())


def test_a_sound_has_the_same_bits_in_any_company(model: onnx.ModelProto) -> None:
    many, run = sounds(5, 5), session(model)
    together = run.run(None, {"waveform": many})
    for size in (1, 2):
        for start in range(0, 5, size):
            some = run.run(None, {"waveform": many[start : start + size]})
            for one, all_of_them in zip(some, together, strict=True):
                assert np.array_equal(one, all_of_them[start : start + size])


def test_the_graph_is_plain_onnx_and_is_written_the_same_each_time(
    model: onnx.ModelProto,
) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    again = whisper.opened(WHISPER)
    assert [output.name for output in model.graph.output] == ["features", "layer_1"]
    assert again.model.SerializeToString(deterministic=True) == model.SerializeToString(
        deterministic=True
    )
    assert again.preprocessing == Waveform(RATE, 10 * RATE, 5 * RATE)


def test_another_file_is_refused(tmp_path: Path) -> None:
    file = packaged.file_of("whisper_tiny_en", "audio", *whisper.FILE)
    with pytest.raises(WeightsError, match="damaged or has a different version"):
        packaged.file_of("whisper_tiny_en", "audio", *whisper.FILE[:2], "0" * 64)
    damaged = tmp_path / "model.bin"
    damaged.write_bytes(b"\x07" + file.read_bytes()[1:100])
    with pytest.raises(WeightsError, match="is version 7 of WhisperSpec"):
        whisper.weights(damaged)

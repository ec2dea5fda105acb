import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from numpy.typing import NDArray

from pipeline import kinds
from pipeline.backbones import engines, exports
from pipeline.backbones.engines.on_onnxruntime import on_export
from pipeline.core import params
from pipeline.core.errors import DeviceError, ParamsError
from pipeline.core.params import ExtractParams
from pipeline.store.places import backbones_folder, kept
from tests.conftest import Project

pytestmark = pytest.mark.usefixtures("lite0")

IMAGE = kinds.named("image")
HAS_CUDA = torch.cuda.is_available()
CAPABILITIES = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
IN_BFLOAT16 = {"engine": "openvino", "precision": "bfloat16"}
ON_CPU = [
    {"engine": "onnxruntime"},
    {"engine": "torch", "batch_size": 6},  # it always computes a whole batch
    {"engine": "openvino"},
    pytest.param(
        IN_BFLOAT16,
        marks=pytest.mark.skipif("BF16" not in CAPABILITIES, reason="a processor without bfloat16"),
    ),
]


def settings(**changes: object) -> ExtractParams:
    return params.load(kinds.schema).extract.model_copy(update=changes)


@pytest.fixture
def pictures() -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (12, 14, 14, 3), dtype=np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


@pytest.fixture
def own(
    project: Project, lite0: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ExtractParams:
    """The parameters, and an export in a store of its own, for tests that harm it."""
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "own"))
    backbones_folder().mkdir(parents=True)
    for file in (lite0, lite0.with_suffix(".safetensors")):
        shutil.copy(file, backbones_folder())
    return settings()


def on(engine: str, asked: ExtractParams) -> ExtractParams:
    return asked.model_copy(update={"engine": engine})


def which(file: Path) -> tuple[int, int]:
    """Tells a file from another of its name."""
    return file.stat().st_ino, file.stat().st_mtime_ns


def test_onnxruntime_openvino_and_pytorch_agree(
    project: Project, pictures: NDArray[np.uint8]
) -> None:
    fast, other, sure = (
        engines.open_engine(settings(engine=e, batch_size=len(pictures)), IMAGE)
        for e in ("onnxruntime", "openvino", "torch")
    )
    assert fast.preprocessing == other.preprocessing == sure.preprocessing
    assert fast.dimension == other.dimension == sure.dimension == 1280
    wanted = sure.run(pictures)
    np.testing.assert_allclose(fast.run(pictures), wanted, atol=1e-4)
    np.testing.assert_allclose(other.run(pictures), wanted, atol=1e-4)
    assert len({engine.fingerprint for engine in (fast, other, sure)}) == 3


@pytest.mark.skipif("BF16" not in CAPABILITIES, reason="a processor without bfloat16")
def test_bfloat16_on_a_cpu_is_openvino_and_moves_features_by_hundredths(
    project: Project, pictures: NDArray[np.uint8]
) -> None:
    sure = engines.open_engine(settings(engine="openvino"), IMAGE)
    fast = engines.open_engine(settings(device="cpu", precision="bfloat16"), IMAGE)
    assert fast.name.startswith("OpenVINO")
    assert fast.name.endswith("bfloat16")
    assert fast.fingerprint == engines.open_engine(settings(**IN_BFLOAT16), IMAGE).fingerprint
    assert fast.fingerprint != sure.fingerprint
    moved, whole = fast.run(pictures), sure.run(pictures)
    apart = np.linalg.norm(moved - whole, axis=1) / np.linalg.norm(whole, axis=1)
    assert 1e-4 < apart.max() < 0.1


def test_a_processor_without_bfloat16_is_a_clear_word(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Older:
        """An OpenVINO that finds an older processor; this machine has only its own."""

        def get_property(self, device: str, name: str) -> list[str]:
            return [one for one in CAPABILITIES if one != "BF16"]

    file = exports.exported(settings().network)
    before = which(file)
    monkeypatch.setattr(openvino, "Core", Older)
    with pytest.raises(
        DeviceError, match=r"not support bfloat16; set extract\.precision to float32"
    ):
        engines.open_engine(settings(**IN_BFLOAT16), IMAGE)
    assert which(file) == before  # it is not taken for damaged


@pytest.mark.slow
@pytest.mark.parametrize("asked", ON_CPU)
def test_a_picture_has_the_same_bits_in_any_company(
    project: Project, pictures: NDArray[np.uint8], asked: dict[str, object]
) -> None:
    run = engines.open_engine(settings(**asked), IMAGE).run
    pictures = pictures[: settings(**asked).batch_size]
    together = run(pictures)
    alone = np.concatenate([run(pictures[i : i + 1]) for i in range(len(pictures))])
    threes = np.concatenate([run(pictures[i : i + 3]) for i in range(0, len(pictures), 3)])
    backwards = run(pictures[::-1].copy())[::-1]
    with ThreadPoolExecutor(4) as pool:
        at_once = np.concatenate(list(pool.map(run, np.array_split(pictures, 4))))
    for other in (alone, threes, backwards, at_once):
        np.testing.assert_array_equal(together, other)


@pytest.mark.parametrize("asked", ON_CPU[2:])
def test_openvino_gives_the_same_bits_on_any_number_of_streams_and_threads(
    project: Project,
    pictures: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, object],
) -> None:
    found = engines.open_engine(settings(**asked), IMAGE).run(pictures)
    real = openvino.Core.compile_model

    def compile_model(
        core: object, model: object, device: str, knobs: dict[str, object]
    ) -> openvino.CompiledModel:
        compiled = real(core, model, device, knobs | changed)
        assert compiled.get_property("NUM_STREAMS") == changed["NUM_STREAMS"]
        assert compiled.get_property("INFERENCE_NUM_THREADS") == changed["INFERENCE_NUM_THREADS"]
        return compiled

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    for streams, threads in ((1, 1), (1, 2)):
        changed = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads}
        other = engines.open_engine(settings(**asked), IMAGE).run(pictures)
        np.testing.assert_array_equal(found, other)


def test_what_openvino_cannot_run_is_a_clear_word_and_no_damage(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = exports.exported(settings().network)
    before = which(file)
    # No network at hand is beyond OpenVINO; it fails here for a device that it does not know.
    real = openvino.Core.compile_model
    monkeypatch.setattr(
        openvino.Core, "compile_model", lambda core, model, *_: real(core, model, "NONE")
    )
    with pytest.raises(ParamsError, match=r"OpenVINO cannot run efficientnet_lite0: .*NONE"):
        engines.open_engine(settings(engine="openvino"), IMAGE)
    assert which(file) == before


def test_onnxruntime_gives_the_same_bits_on_any_number_of_threads(
    project: Project, pictures: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = engines.open_engine(settings(engine="onnxruntime"), IMAGE).run(pictures)
    real = onnxruntime.InferenceSession

    def on_four_threads(
        file: object, options: onnxruntime.SessionOptions, **more: object
    ) -> object:
        options.intra_op_num_threads = 4
        return real(file, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", on_four_threads)
    four = engines.open_engine(settings(engine="onnxruntime"), IMAGE).run(pictures)
    np.testing.assert_array_equal(one, four)


def test_the_maps_in_the_export_do_not_change_a_bit_of_the_features(
    project: Project, pictures: NDArray[np.uint8], tmp_path: Path
) -> None:
    features = engines.open_engine(settings(engine="onnxruntime"), IMAGE).run(pictures)
    file = exports.file_of(settings().network)
    (maps,) = onnxruntime.InferenceSession(file).run(["maps"], {"pictures": pictures})
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), features, atol=1e-5)
    model = onnx.load(file)
    del model.graph.output[1]
    onnx.save(model, tmp_path / "without.onnx")
    without = on_export(tmp_path / "without.onnx", IMAGE)
    np.testing.assert_array_equal(without.run(pictures), features)


def test_an_export_has_the_same_bytes_from_every_folder(project: Project) -> None:
    written = exports.exported(settings().network).read_bytes()
    for module in (b"catalogue.py", b"exports.py", b"onnx_export.py"):
        assert module not in written  # as a traceback would name it


@pytest.mark.slow
def test_a_backbone_is_ready_once_both_its_files_are_there(own: ExtractParams) -> None:
    on_cpu = [own.model_copy(update={"device": "cpu"}), on("openvino", own)]
    on_gpu = own.model_copy(update={"device": "cuda"})
    file = exports.exported(own.network)
    assert set(kept(backbones_folder())) == {file, file.with_suffix(".safetensors")}
    assert kept(backbones_folder()) == list(backbones_folder().iterdir())
    assert [engines.is_ready(asked) for asked in on_cpu] == [True, True]
    assert not engines.is_ready(on("torch", on_cpu[0]))
    assert not engines.is_ready(on_gpu)
    aside = file.rename(file.with_suffix(".aside"))
    assert [engines.is_ready(asked) for asked in on_cpu] == [False, False]
    aside.rename(file)
    weights = file.with_suffix(".safetensors").read_bytes()
    file.with_suffix(".safetensors").unlink()
    assert [engines.is_ready(asked) for asked in on_cpu] == [False, False]
    exports.exported(own.network)
    assert [engines.is_ready(asked) for asked in on_cpu] == [True, True]
    assert file.with_suffix(".safetensors").read_bytes() == weights


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_second_run_needs_no_torch_and_tells_nobody(project: Project, engine: str) -> None:
    engines.open_engine(settings(engine="onnxruntime"), IMAGE)
    script = (
        "import sys; from pipeline import extract, kinds; from pipeline.backbones import engines;"
        "from pipeline.core import params;"
        f"asked = params.load(kinds.schema).extract.model_copy(update={{'engine': {engine!r}}});"
        "engines.open_engine(asked, kinds.named('image'));"
        "print([name for name in ('torch', 'openvino_telemetry') if sys.modules.get(name)])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_damaged_export_is_made_again(
    own: ExtractParams,
    pictures: NDArray[np.uint8],
    capsys: pytest.CaptureFixture[str],
    engine: str,
) -> None:
    pictures = pictures[:2]
    sound = engines.open_engine(on(engine, own), IMAGE).run(pictures)
    file = exports.file_of(own.network)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x40  # in a weight
    for damaged in (whole[:100_000], flipped):
        file.write_bytes(damaged)
        again = engines.open_engine(on(engine, own), IMAGE).run(pictures)
        assert "is damaged" in capsys.readouterr().out
        np.testing.assert_array_equal(sound, again)
        assert file.read_bytes() == whole


def test_an_error_of_the_kind_is_not_taken_for_damage(
    own: ExtractParams, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines.open_engine(on("onnxruntime", own), IMAGE)

    def inputs(*_: object) -> None:
        raise AttributeError("of the kind")

    monkeypatch.setattr(type(IMAGE), "inputs", inputs)
    with pytest.raises(AttributeError, match="of the kind"):
        engines.open_engine(on("onnxruntime", own), IMAGE)
    assert "damaged" not in capsys.readouterr().out


@pytest.mark.skipif(HAS_CUDA, reason="this machine has what the test wants missing")
@pytest.mark.parametrize("driver", ["absent", "there"])
def test_cuda_asked_for_and_absent_is_a_clear_word(
    project: Project, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    monkeypatch.setattr(engines, "DRIVERS", (Path("params.yaml" if driver == "there" else "none"),))
    for engine in ("auto", "torch"):
        with pytest.raises(DeviceError, match=r"extract\.device is cuda, but"):
            engines.open_engine(settings(engine=engine, device="cuda"), IMAGE)
    assert engines.open_engine(settings(), IMAGE).name.startswith("onnxruntime")

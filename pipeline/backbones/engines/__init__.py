"""Engines: what runs a backbone. ONNX Runtime or OpenVINO on the CPU, PyTorch on a GPU or to check.

A name is resolved in one direction: catalogue, export, engine; each engine has a file of its own.

The features of an example do not depend on what else is in its batch: ONNX Runtime and OpenVINO
were seen to give the same bits for every batch size and thread count (tests/backbones), and PyTorch
always gets batches of one size, filled up with zeros.
"""

from dataclasses import replace
from pathlib import Path

from ...core import packages
from ...core.backbone import Backbone
from ...core.errors import DeviceError, ParamsError
from ...core.params import ExtractParams
from ...kinds import Kind
from .. import exports
from ..families import FAMILIES
from .engine import Encoder, Engine

__all__ = ["Encoder", "Engine", "is_ready", "open_encoder", "open_engine", "stop_without_cuda"]

DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # NVIDIA's, and Windows' under WSL


def open_encoder(settings: ExtractParams, kind: Kind) -> Encoder:
    """The backbone of the parameters, each of its networks opened as by `open_engine`.

    Raises:
        ParamsError: also if one cannot be joined.
    """
    backbone = settings.network
    engines = tuple(_open(one, settings, kind) for one in backbone.each)
    if backbone.is_joined and any(engine.takes == "terms" for engine in engines):
        raise ParamsError(
            f"extract.backbone {backbone}: counts of terms cannot be joined with other features,"
            " since the head weighs them by TF-IDF"
        )
    return Encoder(engines)


def open_engine(settings: ExtractParams, kind: Kind) -> Engine:
    """The engine that the parameters ask for, with what makes this kind's views.

    `auto` is CUDA if there is one, else ONNX Runtime, and in bfloat16 OpenVINO.

    Raises:
        DeviceError: CUDA or bfloat16 was requested and is not there.
        ParamsError: the backbone does not exist, takes an input that the kind cannot make, joins
            several networks, or OpenVINO cannot run it.
    """
    return _open(settings.network, settings, kind)


def _open(backbone: Backbone, settings: ExtractParams, kind: Kind) -> Engine:
    engine = _opened(backbone, settings, kind)
    if engine.takes not in kind.feeds:
        raise ParamsError(
            f"extract.backbone {backbone} takes {engine.takes}, and a {kind.noun} gives"
            f" {' or '.join(sorted(kind.feeds))}; take another backbone"
        )
    return engine


def _opened(backbone: Backbone, settings: ExtractParams, kind: Kind) -> Engine:
    runs_it = _runs_it(backbone, settings)
    if settings.device == "cuda":
        stop_without_cuda("extract.device")
    if runs_it != "torch":
        return _on_export(backbone, settings, kind, runs_it)
    return _in_pytorch(backbone, settings, kind)


def _on_export(backbone: Backbone, settings: ExtractParams, kind: Kind, runs_it: str) -> Engine:
    """ONNX Runtime or OpenVINO on the export; a damaged one is exported again, once.

    ONNX Runtime opens it in any case, so that what OpenVINO refuses is not damaged.
    """
    from .on_onnxruntime import on_export

    if settings.engine == settings.device == "auto" and _sees_gpu() and packages.missing("torch"):
        print(
            "extract: a GPU is there, but not PyTorch, which would run on it; to use it"
            f" {packages.how_to_install('torch')}",
            flush=True,
        )
    engine, again = None, False
    while engine is None:
        file = exports.exported(backbone)
        try:
            engine = on_export(file, kind)
        except Exception as error:  # ONNX Runtime has a class for each way a file can be damaged
            if again:
                raise
            print(f"extract: {file} is damaged ({type(error).__name__}) and is exported again")
            file.unlink()
            again = True
    if runs_it == "onnxruntime":
        return engine
    asked = settings.engine == "openvino"
    why = "engine openvino" if asked else f"precision {settings.precision} on the CPU"
    packages.need("openvino", f"extract.{why}")
    from .on_openvino import on_openvino

    return on_openvino(file, engine, settings)


def _in_pytorch(backbone: Backbone, settings: ExtractParams, kind: Kind) -> Engine:
    if backbone.has_graph and settings.engine != "torch":
        raise ParamsError(
            f"extract.backbone {backbone} runs on the CPU; set extract.device to auto"
        )
    packages.need("torch", "extract.engine torch")
    from ..catalogue import load
    from .on_torch import on_torch

    network = load(backbone)
    if backbone.family == "python":  # whose code may change without the network
        file = exports.exported(backbone)
        network = replace(network, fingerprint=exports.fingerprint(file))
    on_gpu = settings.device != "cpu" and _has_cuda()
    return on_torch(network, settings, kind, "cuda" if on_gpu else "cpu")


def is_ready(settings: ExtractParams) -> bool:
    """Whether `open_encoder` is quick: no PyTorch, and a backbone that was exported before."""
    return all(
        _runs_it(one, settings) != "torch" and exports.is_exported(one)
        for one in settings.network.each
    )


def stop_without_cuda(parameter: str) -> None:
    """Raise `DeviceError` if `parameter` asks for CUDA and there is no such device."""
    if not _has_cuda():
        packages.need("torch", f"{parameter} cuda")
        raise DeviceError(f"{parameter} is cuda, but PyTorch sees no CUDA device; use auto or cpu")


def _runs_it(backbone: Backbone, settings: ExtractParams) -> str:
    if settings.engine != "auto":
        return settings.engine
    if settings.device == "cuda":
        return "torch"
    is_graph = FAMILIES[backbone.family].is_graph
    if settings.device == "auto" and _has_cuda() and not is_graph(backbone):
        return "torch"
    return "onnxruntime" if settings.precision == "float32" else "openvino"


def _sees_gpu() -> bool:
    return any(device.exists() for device in DRIVERS)


def _has_cuda() -> bool:
    # If nothing shows of a driver there is no CUDA, and to ask PyTorch takes seconds.
    if not _sees_gpu():
        return False
    if packages.missing("torch"):
        return False
    import torch

    return torch.cuda.is_available()

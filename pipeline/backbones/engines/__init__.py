"""Engines, which run a backbone.

ONNX Runtime and OpenVINO run on the CPU. PyTorch runs on a GPU, or on the CPU to check the others.
Imports go in one direction: engines use exports, and exports use the catalogue. Each engine is a
module.

The features of an example do not depend on the other examples in its batch. Tests check that ONNX
Runtime and OpenVINO compute the same bits for every batch size and thread count (tests/backbones).
PyTorch always gets batches of the same size, padded with zeros.
"""

from dataclasses import replace
from pathlib import Path

from ...core import packages
from ...core.backbone import Backbone
from ...core.errors import DeviceError, ParamsError
from ...core.params import ExtractParams
from ...kinds import Kind, kinds_that_feed
from .. import exports
from ..families import FAMILIES
from . import processor
from .engine import Encoder, Engine

__all__ = [
    "Encoder",
    "Engine",
    "advice",
    "is_ready",
    "open_encoder",
    "open_engine",
    "stop_without_cuda",
]

FASTER = {"pixels", "fitted", "tokens"}  # inputs of networks that were faster in bfloat16
DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # NVIDIA's, and Windows' under WSL


def open_encoder(settings: ExtractParams, kind: Kind) -> Encoder:
    """Open each network of the backbone in the parameters, as `open_engine` does.

    With `extract.blocks: all`, the engines also compute the features of inner blocks.

    Raises:
        HeadstartError: as `open_engine`.
        ParamsError: also if a network cannot be joined with others.
    """
    backbone = settings.network.with_blocks(settings.blocks)
    engines = tuple(_open(one, settings, kind) for one in backbone.each)
    if backbone.is_joined and any(engine.takes == "terms" for engine in engines):
        raise ParamsError(
            f"extract.backbone {backbone}: term counts cannot be combined with other features,"
            " because the head weights them by TF-IDF"
        )
    return Encoder(engines)


def open_engine(settings: ExtractParams, kind: Kind) -> Engine:
    """Open the engine that the parameters request, with the function that makes the kind's views.

    The engine `auto` is PyTorch if `extract.device` is `cuda`. It is PyTorch too if the device is
    `auto`, CUDA is available and the backbone has a PyTorch form. Otherwise it is ONNX Runtime for
    float32, and OpenVINO for bfloat16.

    Raises:
        DeviceError: CUDA or bfloat16 was requested and is not available, or GPU memory is too
            small for a single example.
        MissingSetError: PyTorch, OpenVINO or a package that the export needs is not installed.
        ParamsError: the backbone does not exist, needs an input that the kind cannot make, joins
            several networks, or cannot be run by the requested engine or on a GPU.
        WeightsError: as `exports.exported`.
    """
    return _open(settings.network, settings, kind)


def _open(backbone: Backbone, settings: ExtractParams, kind: Kind) -> Engine:
    engine = _opened(backbone, settings, kind)
    if engine.takes not in kind.feeds:
        raise ParamsError(
            f"extract.backbone {backbone} takes {engine.takes}, but a {kind.noun} gives"
            f" {' or '.join(sorted(kind.feeds))}; use another backbone, or ingest.kind"
            f" {' or '.join(kinds_that_feed(engine.takes))}"
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
    """Open the export in ONNX Runtime or OpenVINO."""
    from .on_onnxruntime import on_export

    if settings.engine == settings.device == "auto" and _sees_gpu() and packages.missing("torch"):
        print(
            "extract: this machine has a GPU, but PyTorch is not installed; to use the GPU,"
            f" {packages.how_to_install('torch')}",
            flush=True,
        )
    file = exports.exported(backbone)
    engine = on_export(file, kind)
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
    if backbone.family == "python":  # its code may change while the network stays the same
        file = exports.exported(backbone)
        network = replace(network, fingerprint=exports.fingerprint(file))
    on_gpu = settings.device != "cpu" and _has_cuda()
    return on_torch(network, settings, kind, "cuda" if on_gpu else "cpu")


def is_ready(settings: ExtractParams) -> bool:
    """Whether `open_encoder` is quick: it needs no PyTorch, and the backbone is exported."""
    return all(
        _runs_it(one, settings) != "torch" and exports.is_exported(one)
        for one in settings.network.with_blocks(settings.blocks).each
    )


def advice(settings: ExtractParams, encoder: Encoder) -> str:
    """Return a line that suggests bfloat16 if it would make these networks faster here, else ""."""
    if settings.precision == "bfloat16" or not FASTER & {one.takes for one in encoder.engines}:
        return ""
    faster = settings.model_copy(update={"precision": "bfloat16"})
    in_openvino = all(_runs_it(one, faster) == "openvino" for one in settings.network.each)
    return processor.advice() if in_openvino else ""


def stop_without_cuda(parameter: str) -> None:
    """Check that CUDA, which `parameter` requests, is available.

    Raises:
        DeviceError: PyTorch sees no CUDA device.
        MissingSetError: PyTorch is not installed.
    """
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
    # Without a driver there is no CUDA, and importing PyTorch to find out takes seconds.
    if not _sees_gpu():
        return False
    if packages.missing("torch"):
        return False
    import torch

    return torch.cuda.is_available()

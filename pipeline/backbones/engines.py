"""Engines: what runs a backbone. ONNX Runtime or OpenVINO on the CPU, PyTorch on a GPU or to check.

The features of a picture do not depend on what else is in its batch: ONNX Runtime and OpenVINO were
seen to give the same bits for every batch size and thread count (tests/test_engines.py), and
PyTorch always gets batches of one size, filled up with black pictures.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..core.errors import DeviceError, ParamsError
from ..core.params import ExtractParams
from ..kinds.image import preprocess, views
from ..kinds.image.preprocess import Preprocessing
from ..kinds.image.views import View
from . import exports

Asked = Iterable[tuple[bytes, list[View]]]  # pictures' bytes, and the views wanted of each
Pictures = Any  # uint8 [n, side, side, 3]: a NumPy array, or on a GPU a PyTorch tensor

DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # NVIDIA's, and Windows' under WSL


@dataclass(frozen=True)
class Engine:
    """A backbone ready to run, and what makes views where the backbone runs.

    `make_views` maps pictures and their views to cropped views [n, side, side, 3] in uint8. `run`
    maps such views, n at most the batch size, to float32 features [n, dimension]. Several threads
    may call either at once. `fingerprint` changes with everything that could change a bit of the
    features.
    """

    name: str
    make_views: Callable[[Asked], Pictures]
    run: Callable[[Pictures], NDArray[np.float32]]
    preprocessing: Preprocessing
    dimension: int
    fingerprint: str


def open_engine(settings: ExtractParams) -> Engine:
    """The engine that the parameters ask for.

    `auto` is CUDA where there is one, else ONNX Runtime, and in bfloat16 OpenVINO.

    Raises:
        DeviceError: CUDA or bfloat16 was asked for and is not there.
        ParamsError: the combination of engine, device and precision does not exist.
    """
    kind = _kind(settings)
    if kind != "torch" and settings.device == "cuda":
        raise ParamsError(f"extract.engine {kind} runs on the CPU; for CUDA take torch")
    if kind == "onnxruntime":
        return _onnx_engine(settings)
    if kind == "openvino":
        return _openvino_engine(settings)
    import torch

    on_cuda = settings.device != "cpu" and torch.cuda.is_available()
    if settings.device == "cuda" and not on_cuda:
        raise DeviceError(
            "extract.device is cuda, but PyTorch sees no CUDA device; use auto or cpu"
        )
    return _cuda_engine(settings) if on_cuda else _torch_engine(settings)


def is_ready(settings: ExtractParams) -> bool:
    """Whether `open_engine` is quick: no PyTorch, and a backbone that was exported before."""
    exported = exports.is_exported(settings.backbone, settings.weights)
    return _kind(settings) != "torch" and exported


def _kind(settings: ExtractParams) -> str:
    if settings.engine != "auto":
        return settings.engine
    if settings.device == "cuda" or (settings.device == "auto" and _has_cuda()):
        return "torch"
    return "onnxruntime" if settings.precision == "float32" else "openvino"


def _has_cuda() -> bool:
    # Where nothing shows of a driver there is no CUDA, and to ask PyTorch takes seconds.
    if not any(device.exists() for device in DRIVERS):
        return False
    import torch

    return torch.cuda.is_available()


def _views_on_cpu(preprocessing: Preprocessing, asked: Asked) -> NDArray[np.uint8]:
    seen = []
    for data, wanted in asked:
        base = preprocess.base(data, preprocessing)
        seen += [preprocess.crop(views.apply(base, view), preprocessing.crop) for view in wanted]
    return np.stack(seen)


def _onnx_engine(settings: ExtractParams) -> Engine:
    if settings.precision != "float32":
        raise ParamsError(
            f"extract.precision {settings.precision} needs engine auto, openvino or torch"
        )
    file = exports.exported(settings.backbone, settings.weights)
    try:
        return on_export(file)
    except Exception as error:  # ONNX Runtime has a class for each way a file can be damaged
        print(f"extract: {file} is damaged ({type(error).__name__}) and is exported again")
        file.unlink()
        return on_export(exports.exported(settings.backbone, settings.weights))


def on_export(file: Path) -> Engine:
    """ONNX Runtime on the CPU, on a backbone as `exports.write` leaves it.

    On one thread a call: the callers' threads share the cores without waiting.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what it has to say is in the exception
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    notes = session.get_modelmeta().custom_metadata_map
    preprocessing = exports.preprocessing_of(notes)

    def run(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = session.run(["features"], {"pictures": pictures})[0]
        return features

    return Engine(
        f"onnxruntime {onnxruntime.__version__} on the CPU",
        partial(_views_on_cpu, preprocessing),
        run,
        preprocessing,
        session.get_outputs()[0].shape[1],
        f"{notes['fingerprint']} onnxruntime {onnxruntime.__version__} cpu float32",
    )


def _openvino_engine(settings: ExtractParams) -> Engine:
    """OpenVINO on the CPU, on the same export; as many calls at once as cores, a thread each.

    In bfloat16 it is twice as fast as ONNX Runtime, where the processor has it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # tells nobody
    import openvino

    core, cores, precision = openvino.Core(), os.cpu_count() or 1, settings.precision
    made_by = f"openvino {version('openvino')} cpu {precision}"
    if precision == "bfloat16":
        if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise DeviceError("this processor has no bfloat16; set extract.precision to float32")
        # Which instructions there are for it, and so the last bits, differ between processors.
        made_by += f" {core.get_property('CPU', 'FULL_DEVICE_NAME')}"
    # Makes a damaged export anew, so that what OpenVINO refuses is not damaged.
    sure = _onnx_engine(settings.model_copy(update={"precision": "float32"}))
    try:
        model = core.read_model(exports.file_of(settings.backbone, settings.weights))
        for result in model.results:  # the maps would be copied at every call
            if "features" not in result.output(0).names:
                model.remove_result(result)
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
                "NUM_STREAMS": cores,
                "INFERENCE_NUM_THREADS": cores,
                "ENABLE_CPU_PINNING": False,  # the callers, who decode, are to move freely
            },
        )
    except RuntimeError as error:
        said = " ".join(str(error).split())[:300]
        raise ParamsError(
            f"OpenVINO cannot run {settings.backbone}: {said}; set extract.precision to float32"
            " and extract.engine to auto"
        ) from None

    def run(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = compiled.infer_new_request({"pictures": pictures})[0]
        return features

    fingerprint = model.get_rt_info(["framework", "fingerprint"]).astype(str)
    return replace(
        sure,
        name=f"OpenVINO {version('openvino')} on the CPU in {precision}",
        run=run,
        fingerprint=f"{fingerprint} {made_by}",
    )


def _torch_engine(settings: ExtractParams) -> Engine:
    """PyTorch on the CPU, to check ONNX Runtime against."""
    import torch

    from . import catalogue

    backbone = catalogue.load(settings.backbone, settings.weights)
    precision: torch.dtype = getattr(torch, settings.precision)
    module = backbone.module.to(precision).to(memory_format=torch.channels_last)
    batch_size = settings.batch_size
    one_at_a_time = threading.Lock()

    def run(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        padded = np.zeros((batch_size, *pictures.shape[1:]), dtype=np.uint8)
        padded[: len(pictures)] = pictures
        with one_at_a_time, torch.inference_mode():
            features: torch.Tensor = module(torch.from_numpy(padded))
        vectors: NDArray[np.float32] = features[: len(pictures)].numpy()
        return vectors

    return Engine(
        f"PyTorch {torch.__version__} on the CPU in {settings.precision}",
        partial(_views_on_cpu, backbone.preprocessing),
        run,
        backbone.preprocessing,
        backbone.dimension,
        f"{backbone.fingerprint} torch {torch.__version__} cpu {settings.precision}"
        f" batch {batch_size}",
    )


def _cuda_engine(settings: ExtractParams) -> Engine:
    """PyTorch on a GPU that makes the views as well."""
    import torch

    from ..kinds.image import gpu
    from . import catalogue

    backbone = catalogue.load(settings.backbone, settings.weights)
    precision: torch.dtype = getattr(torch, settings.precision)
    module = backbone.module.to("cuda", precision).to(memory_format=torch.channels_last)
    run = gpu.record(module, backbone.preprocessing.crop, settings.batch_size)
    kind = torch.cuda.get_device_name()
    return Engine(
        f"PyTorch {torch.__version__} on {kind} in {settings.precision}",
        gpu.ViewMaker(backbone.preprocessing),
        run,
        backbone.preprocessing,
        backbone.dimension,
        f"{backbone.fingerprint} torch {torch.__version__} cuda {torch.version.cuda}"
        f" cudnn {torch.backends.cudnn.version()} {kind} {settings.precision}"
        f" batch {run.batch_size} gpu views {gpu.GPU_VIEW_CODE}",
    )

"""Engines: what runs a backbone. ONNX Runtime on the CPU, PyTorch on a GPU or to check against.

The features of a picture do not depend on what else is in its batch: ONNX Runtime was seen to give
the same bits for every batch size and thread count (tests/test_engines.py), and PyTorch always gets
batches of one size, filled up with black pictures.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pipeline import bases, exports, views
from pipeline.bases import Preprocessing
from pipeline.errors import DeviceError, ParamsError
from pipeline.params import ExtractParams
from pipeline.views import View

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
    """The engine that the parameters ask for; `auto` is CUDA where there is one, else ONNX Runtime.

    Raises:
        DeviceError: CUDA was asked for and is not there.
        ParamsError: the combination of engine, device and precision does not exist.
    """
    if _takes_onnxruntime(settings):
        if settings.device == "cuda":
            raise ParamsError("extract.engine onnxruntime runs on the CPU; for CUDA take torch")
        return _onnx_engine(settings)
    import torch

    on_cuda = settings.device != "cpu" and torch.cuda.is_available()
    if settings.device == "cuda" and not on_cuda:
        raise DeviceError(
            "extract.device is cuda, but PyTorch sees no CUDA device; use auto or cpu"
        )
    return _cuda_engine(settings) if on_cuda else _torch_engine(settings)


def is_ready(settings: ExtractParams) -> bool:
    """Whether `open_engine` is quick: ONNX Runtime on a backbone that was exported before."""
    return _takes_onnxruntime(settings) and exports.is_exported(settings.backbone, settings.weights)


def _takes_onnxruntime(settings: ExtractParams) -> bool:
    if settings.engine != "auto":
        return settings.engine == "onnxruntime"
    return settings.device == "cpu" or (settings.device == "auto" and not _has_cuda())


def _has_cuda() -> bool:
    # Where nothing shows of a driver there is no CUDA, and to ask PyTorch takes seconds.
    if not any(device.exists() for device in DRIVERS):
        return False
    import torch

    return torch.cuda.is_available()


def _views_on_cpu(preprocessing: Preprocessing, asked: Asked) -> NDArray[np.uint8]:
    seen = []
    for data, wanted in asked:
        base = bases.base(data, preprocessing)
        seen += [bases.crop(views.apply(base, view), preprocessing.crop) for view in wanted]
    return np.stack(seen)


def _onnx_engine(settings: ExtractParams) -> Engine:
    if settings.precision != "float32":
        raise ParamsError(f"extract.precision {settings.precision} needs engine torch")
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


def _torch_engine(settings: ExtractParams) -> Engine:
    """PyTorch on the CPU, to check ONNX Runtime against."""
    import torch

    from pipeline import backbones

    backbone = backbones.load(settings.backbone, settings.weights)
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

    from pipeline import backbones, gpu

    backbone = backbones.load(settings.backbone, settings.weights)
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

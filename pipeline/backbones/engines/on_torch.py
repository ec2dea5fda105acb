"""PyTorch: on a GPU that makes the views as well, or on the CPU to check ONNX Runtime against."""

import threading

import numpy as np
import torch
from numpy.typing import NDArray

from ...core.params import ExtractParams
from ...kinds import Kind
from ..catalogue import TorchBackbone
from .engine import Engine
from .processor import arithmetic


def on_cpu(backbone: TorchBackbone, settings: ExtractParams, kind: Kind) -> Engine:
    """PyTorch on the CPU, one batch at a time."""
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
        kind,
        kind.inputs(backbone.preprocessing, "cpu"),
        run,
        backbone.preprocessing,
        backbone.dimension,
        f"{backbone.fingerprint} torch {torch.__version__} cpu {settings.precision}"
        f" batch {batch_size}",
        arithmetic(bfloat16=settings.precision == "bfloat16"),
    )


def on_cuda(backbone: TorchBackbone, settings: ExtractParams, kind: Kind) -> Engine:
    """PyTorch on a GPU that makes the views as well."""
    from .cuda_graph import record

    precision: torch.dtype = getattr(torch, settings.precision)
    module = backbone.module.to("cuda", precision).to(memory_format=torch.channels_last)
    run = record(module, backbone.preprocessing.crop, settings.batch_size)
    card = torch.cuda.get_device_name()
    make_views = kind.inputs(backbone.preprocessing, "cuda")
    return Engine(
        f"PyTorch {torch.__version__} on {card} in {settings.precision}",
        kind,
        make_views,
        run,
        backbone.preprocessing,
        backbone.dimension,
        f"{backbone.fingerprint} torch {torch.__version__} cuda {torch.version.cuda}"
        f" cudnn {torch.backends.cudnn.version()} {card} {settings.precision}"
        f" batch {run.batch_size}{make_views.made_by}",
        on_gpu=True,
    )

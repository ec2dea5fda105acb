"""PyTorch, on a GPU that also makes the views, or on the CPU to check ONNX Runtime."""

import threading
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.errors import NO_MEMORY, DeviceError
from ...core.params import ExtractParams
from ...kinds import Kind
from ..catalogue import TorchBackbone
from .engine import Engine
from .processor import arithmetic


def on_torch(backbone: TorchBackbone, settings: ExtractParams, kind: Kind, device: str) -> Engine:
    """Open a network in PyTorch on `cpu` or `cuda`, which runs one batch at a time.

    Batches are padded with black examples to one size, so that an example's features do not
    depend on the rest of its batch.

    Raises:
        DeviceError: GPU memory is too small for the network, or for a single example.
    """
    # TF32 would round float32 convolutions to 10 bits. Deterministic algorithms make each run
    # compute the same bits.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    precision: torch.dtype = getattr(torch, settings.precision)
    network = backbone.with_blocks() if backbone.blocks else backbone.module
    try:
        module = network.to(device, precision).to(memory_format=torch.channels_last)
    except torch.OutOfMemoryError:
        raise DeviceError(NO_MEMORY) from None
    side = backbone.preprocessing.crop
    one_at_a_time = threading.Lock()

    def batch(examples: Tensor, size: int) -> NDArray[np.float32]:
        with one_at_a_time, torch.inference_mode():
            padded = torch.zeros((size, side, side, 3), dtype=torch.uint8, device=device)
            padded[: len(examples)] = examples
            found = module(padded)
            features = torch.cat(found, dim=1) if backbone.blocks else found
            vectors: NDArray[np.float32] = features[: len(examples)].cpu().numpy()
        return vectors

    def run(examples: Tensor | NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = torch.as_tensor(examples).split(batch_size)
        try:
            return np.concatenate([batch(part, batch_size) for part in parts])
        except torch.OutOfMemoryError:
            raise DeviceError(NO_MEMORY) from None

    make_views = kind.inputs(backbone.preprocessing, device)
    batch_size = settings.batch_size
    name, made_by, of_processor = "the CPU", "cpu", ""
    if device == "cpu":
        of_processor = arithmetic(bfloat16=settings.precision == "bfloat16")
    else:
        nothing = torch.zeros((0, side, side, 3), dtype=torch.uint8)
        batch_size = that_fits(lambda size: batch(nothing, size), batch_size)
        name = torch.cuda.get_device_name()
        made_by = f"cuda {torch.version.cuda} cudnn {torch.backends.cudnn.version()} {name}"
    return Engine(
        f"PyTorch {torch.__version__} on {name} in {settings.precision}",
        kind,
        make_views,
        run,
        backbone.preprocessing,
        backbone.dimension,
        f"{backbone.fingerprint} torch {torch.__version__} {made_by} {settings.precision}"
        f" batch {batch_size}{make_views.made_by}",
        of_processor,
        on_gpu=device != "cpu",
        blocks=backbone.blocks,
    )


def that_fits(work: Callable[[int], object], batch_size: int) -> int:
    """Return the largest of `batch_size`, its half, its quarter, … for which GPU memory suffices.

    The batch size may change the last bits of the features, so it is part of the engine's
    fingerprint.

    Raises:
        DeviceError: GPU memory is too small for a single example.
    """
    while True:
        try:
            work(batch_size)
        except torch.OutOfMemoryError:
            batch_size //= 2
        else:
            return batch_size
        if batch_size == 0:
            raise DeviceError(NO_MEMORY)
        torch.cuda.empty_cache()
        print(
            f"extract: GPU memory ran out; continuing with {batch_size} views at a time", flush=True
        )

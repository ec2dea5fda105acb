"""A network recorded as a CUDA graph, which one call starts."""

import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...core.cuda import NO_MEMORY, own_stream
from ...core.errors import DeviceError


class Graph:
    """A network recorded as a CUDA graph, for batches of one size.

    A graph is started by one call. Started layer by layer, a network would wait some hundred times
    a batch for Python's lock, which the threads hold that read examples. And as batches are filled
    up with black examples to one size, an example's features do not depend on its company.
    """

    def __init__(self, module: nn.Module, side: int, batch_size: int) -> None:
        """Record `module`, which takes uint8 [batch_size, side, side, 3] on the GPU.

        Raises:
            torch.cuda.OutOfMemoryError: GPU memory ran out.
        """
        self.batch_size = batch_size
        self._turn = threading.Lock()
        self._stream = torch.cuda.Stream()
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._input = torch.zeros((batch_size, side, side, 3), dtype=torch.uint8, device="cuda")
            for _ in range(2):  # libraries set themselves up, which cannot be recorded
                module(self._input)
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._output: Tensor = module(self._input)

    def __call__(self, examples: Tensor | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features, float32 [n, dimension], of uint8 examples [n, side, side, 3], for any n."""
        parts = torch.as_tensor(examples).split(self.batch_size)
        return np.concatenate([self._run(part) for part in parts])

    def _run(self, examples: Tensor) -> NDArray[np.float32]:
        count = len(examples)
        done = torch.cuda.Event(blocking=True)
        # The next batch may overwrite input and output only after this one: one stream sees to it.
        with self._turn, torch.inference_mode(), torch.cuda.stream(self._stream):
            self._stream.wait_stream(own_stream())
            self._input[:count].copy_(examples)
            self._input[count:].zero_()
            self._graph.replay()
            features = self._output[:count].clone()
            done.record()
        done.synchronize()
        vectors: NDArray[np.float32] = features.cpu().numpy()
        return vectors


def record(module: nn.Module, side: int, batch_size: int) -> Graph:
    """The network for batches of `batch_size`, or of half of that, a quarter, … if memory runs out.

    Another batch size may give other last bits, so it is part of the engine's fingerprint.

    Raises:
        DeviceError: memory does not suffice for a single example.
    """
    # Else float32 convolutions are rounded to 10 bits. Deterministic: the same bits in every run.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.deterministic = True
    while True:
        try:
            return Graph(module, side, batch_size)
        except torch.cuda.OutOfMemoryError:
            batch_size //= 2
        if batch_size == 0:
            raise DeviceError(NO_MEMORY)
        torch.cuda.empty_cache()
        print(f"extract: GPU memory ran out; now {batch_size} views at a time", flush=True)

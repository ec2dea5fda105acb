"""Read files that `torch.save` wrote before PyTorch 1.6, without PyTorch.

Such a file has five pickles: a magic number, a version, the machine, the tensors' shapes and
places, and the storages' names. Then come the storages, each preceded by its number of elements. A
pickle can call any function, so this module allows only the four names that weights need.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

FIRST = (0x1950A86A20F9469CFC6C, 1001)  # the first two pickles
DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def read(file: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors in `file` by name, in the file's order.

    Raises:
        pickle.UnpicklingError: the file holds anything but float32 and int64 tensors.
        ValueError: the file has a different format, or is truncated.
    """
    with file.open("rb") as stream:
        began = (_unpickle(stream), _unpickle(stream))
        if began != FIRST:
            raise ValueError(f"{file} begins with {began!r:.60}")
        _unpickle(stream)
        placed: dict[str, _Place] = _unpickle(stream)
        dtypes = {place.storage: place.dtype for place in placed.values()}
        storages = {}
        for storage in _unpickle(stream):
            elements = int.from_bytes(stream.read(8), "little")
            size = elements * dtypes[storage].itemsize
            data = stream.read(size)
            if len(data) != size:
                raise ValueError(f"{file} is cut short")
            storages[storage] = np.frombuffer(data, dtypes[storage])
    return {key: place.in_storage(storages[place.storage]) for key, place in placed.items()}


class _Place:
    """A tensor's place: the arguments of PyTorch's `_rebuild_tensor_v2`; steps are in elements."""

    def __init__(
        self,
        of: tuple[str, str],
        offset: int,
        shape: tuple[int, ...],
        steps: tuple[int, ...],
        *_: Any,
    ) -> None:
        self.dtype = DTYPES[of[0]]
        self.storage = of[1]
        self.offset, self.shape, self.steps = offset, shape, steps

    def in_storage(self, elements: NDArray[Any]) -> NDArray[Any]:
        size = self.dtype.itemsize
        steps = tuple(step * size for step in self.steps)
        return np.ndarray(self.shape, self.dtype, elements, self.offset * size, steps).copy("C")


class _Weights(pickle.Unpickler):
    """Unpickles each tensor as its `_Place` in a storage, and rejects everything else."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": _Place,
            "torch.FloatStorage": "FloatStorage",
            "torch.LongStorage": "LongStorage",
        }
        if f"{module}.{name}" not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of weights")
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        _, kind, storage, *_ = pid
        return kind, storage


def _unpickle(stream: BinaryIO) -> Any:
    return _Weights(stream).load()

"""What a feature store does, whichever one it is: `held`, `get`, `checksums`, `put`."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Feature = npt.NDArray[np.float32]


class Store(Protocol):
    """A store of features; use it in a `with` block. Threads may share it."""

    def held(self, keys: Sequence[bytes]) -> set[bytes]:
        """The `keys` that have an entry; entries are not verified."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Feature]:
        """The features found for `keys`: read-only float32 vectors; the missing are left out."""

    def checksums(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """The checksums of the vectors of `keys`, without reading these; counts as a use.

        The missing are left out. A damaged entry shows only on `get`.
        """

    def put(self, entries: Mapping[bytes, Feature]) -> None:
        """Store float32 vectors of any length under their keys, all of them or none."""

    def close(self) -> None:
        """Write down what is left to write."""

    def __enter__(self) -> "Store": ...

    def __exit__(self, *_: object) -> None: ...


def checksum(key: bytes, value: bytes | memoryview) -> int:
    """CRC-32 over an entry's key and the bytes of its vector."""
    return zlib.crc32(value, zlib.crc32(key))


def blob(value: Feature) -> bytes:
    """The bytes of a vector, little-endian.

    Raises:
        ValueError: it is not a float32 vector.
    """
    if value.dtype != np.float32 or value.ndim != 1:
        raise ValueError(f"a feature is a float32 vector, not {value.dtype} {value.shape}")
    return value.astype("<f4", copy=False).tobytes()

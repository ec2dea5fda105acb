"""The interface of every feature store: `held`, `get`, `checksums`, `put`."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Feature = npt.NDArray[np.float32]


class Store(Protocol):
    """A store of features; use it in a `with` block. Threads may share it."""

    def held(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return the `keys` that have an entry; entries are not verified."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Feature]:
        """Return the features of `keys`, read-only float32 vectors; missing keys are left out."""

    def checksums(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Return the stored checksums of `keys` without reading vectors.

        This counts as a use, except in a bucket, where only `held` records keys. Missing keys are
        left out. Only `get` detects damaged entries.
        """

    def put(self, entries: Mapping[bytes, Feature]) -> None:
        """Store float32 vectors of any length under their keys, either all or none."""

    def close(self) -> None:
        """Write what is not yet written, and close the store."""

    def __enter__(self) -> "Store": ...

    def __exit__(self, *_: object) -> None: ...


def checksum(key: bytes, value: bytes | memoryview) -> int:
    """Return the CRC-32 of an entry's key and the bytes of its vector."""
    return zlib.crc32(value, zlib.crc32(key))


def blob(value: Feature) -> bytes:
    """Return the bytes of a vector, little-endian.

    Raises:
        ValueError: `value` is not a float32 vector.
    """
    if value.dtype != np.float32 or value.ndim != 1:
        raise ValueError(f"a feature should be a float32 vector, not {value.dtype} {value.shape}")
    return value.astype("<f4", copy=False).tobytes()

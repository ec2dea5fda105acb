"""A shard: an immutable object with some entries of the store, as a safetensors file.

Its name is a hash of its keys and their count. Storing the same keys again writes the same object,
so a worker that is killed and restarted leaves no duplicates. The tensors are `keys` (uint64 [n,
2], most significant half first), `ends` (uint64 [n]: the position in `values` where each vector
ends), `checksums` (uint64 [n]) and `values` (float32, all vectors one after the other). safetensors
puts uint64 before float32, so everything but the vectors is at the beginning of the file and can be
read alone.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from .interface import Feature, checksum

ENDING = ".safetensors"
NAME = re.compile(rf"[0-9a-f]{{32}}-(\d{{1,9}}){re.escape(ENDING)}")
MOST_HEADER = 1024  # bytes of safetensors' header, which has the offsets of the tensors
BYTES_A_ROW = 32  # of keys, ends and checksums

Numbers = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Head:
    """The head of a shard: everything but its vectors.

    It has `keys` [n, 2] as in the file, `ends` [n] as positions in `values`, `checksums` [n], and
    the byte at which the vectors begin.
    """

    keys: Numbers
    ends: Numbers
    checksums: Numbers
    begin: int

    def places(self, rows: npt.NDArray[np.int64]) -> tuple[list[int], list[int]]:
        """Return the offsets where each row's vector begins and ends (the byte after it)."""
        ends = self.ends[rows]
        starts = np.where(rows > 0, self.ends[rows - 1], 0)
        begins: list[int] = (self.begin + 4 * starts).tolist()
        stops: list[int] = (self.begin + 4 * ends).tolist()
        return begins, stops


def as_numbers(keys: Sequence[bytes]) -> Numbers:
    """Convert keys of 16 bytes to uint64 [n, 2]; the order of keys is the same."""
    return np.frombuffer(b"".join(keys), dtype=">u8").reshape(-1, 2).astype(np.uint64)


def as_bytes(keys: Numbers) -> list[bytes]:
    """Convert uint64 [n, 2] back to keys of 16 bytes."""
    data = keys.astype(">u8").tobytes()
    return [data[start : start + 16] for start in range(0, len(data), 16)]


def made(entries: dict[bytes, bytes]) -> tuple[str, bytes]:
    """Return the name and content of a shard; `entries` maps keys to the bytes of vectors."""
    keys = list(entries)
    lengths = [len(value) // 4 for value in entries.values()]
    name = blake2b(b"".join(sorted(keys)), digest_size=16).hexdigest()
    checksums = [checksum(*entry) for entry in entries.items()]
    data = save(
        {
            "keys": as_numbers(keys),
            "ends": np.cumsum(lengths, dtype=np.uint64),
            "checksums": np.array(checksums, dtype=np.uint64),
            "values": np.frombuffer(b"".join(entries.values()), dtype="<f4"),
        }
    )
    return f"{name}-{len(keys)}{ENDING}", data


def rows_of(name: str) -> int | None:
    """Return the number of entries from a shard's name, or None if `name` is not one."""
    found = NAME.fullmatch(name)
    return int(found[1]) if found else None


def head_bytes(rows: int) -> int:
    """Return an upper bound on the bytes of a shard's head."""
    return 8 + MOST_HEADER + BYTES_A_ROW * rows


def head(name: str, data: bytes) -> Head | None:
    """Parse the head of a shard from its first bytes; None if they are damaged."""
    rows = rows_of(name)
    try:
        begin = 8 + int.from_bytes(data[:8], "little")
        tensors = json.loads(data[8:begin])
        keys = _tensor(tensors, "keys", data, begin)
        ends = _tensor(tensors, "ends", data, begin)
        checksums = _tensor(tensors, "checksums", data, begin)
        first = begin + int(tensors["values"]["data_offsets"][0])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError):
        return None
    sound = len(keys) == 2 * len(ends) == 2 * len(checksums) == 2 * (rows or -1)
    # A flipped bit in `ends` could request arbitrary byte ranges.
    if not sound or first < 0 or bool((np.diff(ends.astype(np.int64)) < 0).any()):
        return None
    return Head(keys.reshape(-1, 2), ends, checksums, first)


def entries(name: str, data: bytes) -> dict[bytes, bytes]:
    """Return the bytes of a shard's intact vectors by their keys, in the shard's order."""
    found = head(name, data)
    if found is None:
        return {}
    starts, stops = found.places(np.arange(len(found.ends)))
    keys = as_bytes(found.keys)
    parts = zip(keys, starts, stops, found.checksums.tolist(), strict=True)
    values = ((key, data[start:stop], expected) for key, start, stop, expected in parts)
    return {key: value for key, value, expected in values if checksum(key, value) == expected}


def vector(value: bytes | memoryview) -> Feature:
    """Convert the bytes of a vector to an array."""
    return np.frombuffer(value, dtype="<f4")


def _tensor(
    tensors: dict[str, dict[str, list[int]]], name: str, data: bytes, begin: int
) -> Numbers:
    first, last = tensors[name]["data_offsets"]
    if not 0 <= first <= last <= len(data) - begin:
        raise ValueError
    return np.frombuffer(data, "<u8", (last - first) // 8, begin + first).astype(np.uint64)

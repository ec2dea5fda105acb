"""What came of reading an object of a bucket, as the numbers that the feature store keeps.

The first number is 1 if it passed: the digest's 32 bytes follow, a number each, and what the
kind remembers. It is 0 if it was refused: the reason's bytes in UTF-8 follow.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kinds import Kind

DIGEST_BYTES = 32


def passed(digest: str, seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """An object that passed: float32 [33 + what the kind remembers]."""
    return np.concatenate([np.array([1, *bytes.fromhex(digest)], np.float32), seen])


def refused(reason: str) -> NDArray[np.float32]:
    """An object that was refused for what is in it: float32 [1 + the reason's bytes]."""
    return np.array([0, *reason.encode("utf-8", "replace")], np.float32)


def read(numbers: NDArray[np.float32], kind: Kind) -> tuple[str, tuple[Any, ...]] | str | None:
    """The digest and what was seen, or the reason; None if the kind remembers other things."""
    if not numbers[0]:
        return bytes(numbers[1:].astype(np.uint8)).decode()
    digest = bytes(numbers[1 : 1 + DIGEST_BYTES].astype(np.uint8)).hex()
    seen = kind.recall(numbers[1 + DIGEST_BYTES :])
    return None if seen is None else (digest, seen)

"""Results for objects of a bucket, encoded as numbers for the feature store.

The first number is 1 if the object was accepted: then follow the digest's 32 bytes, one number
each, and the kind's numbers. It is 0 if the object was refused: then follow the reason's bytes in
UTF-8.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kinds import Kind

DIGEST_BYTES = 32


def passed(digest: str, seen: NDArray[np.float32]) -> NDArray[np.float32]:
    """Encode an accepted object: float32 [33 + the kind's numbers]."""
    return np.concatenate([np.array([1, *bytes.fromhex(digest)], np.float32), seen])


def refused(reason: str) -> NDArray[np.float32]:
    """Encode an object that was refused for its content: float32 [1 + the reason's bytes]."""
    return np.array([0, *reason.encode("utf-8", "replace")], np.float32)


def read(numbers: NDArray[np.float32], kind: Kind) -> tuple[str, tuple[Any, ...]] | str | None:
    """Decode digest and contents, or the reason; None if the kind's numbers have another form."""
    if not numbers[0]:
        return bytes(numbers[1:].astype(np.uint8)).decode()
    digest = bytes(numbers[1 : 1 + DIGEST_BYTES].astype(np.uint8)).hex()
    seen = kind.recall(numbers[1 + DIGEST_BYTES :])
    return None if seen is None else (digest, seen)

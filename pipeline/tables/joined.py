"""Joined backbones, `A+B`: what several frozen networks see of an example, side by side.

Each network's features are kept in the store by themselves. They are put on one scale, so that none
outweighs the others only because its numbers are larger: each network's vector is divided by the
root of its mean square. That is an example's own affair: no other example changes it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TINY = np.float32(1e-12)  # a vector of zeros stays one


def beside(parts: Sequence[Floats]) -> Floats:
    """Features [n, d] of each network as one table; those of one network as they are."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part / scale(part) for part in parts], axis=1)


def scale(features: Floats) -> Floats:
    """The root of the mean square of each row, [n, 1], and never 0."""
    square = np.square(features).mean(axis=1, keepdims=True)
    roots: Floats = np.maximum(np.sqrt(square), TINY)
    return roots

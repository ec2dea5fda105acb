"""Joined backbones, `A+B`: the concatenated features of several frozen networks.

The store keeps each network's features separately. Each network's vector is divided by its root
mean square, so that no network outweighs the others only because its features are larger. The
scale of an example depends on no other example.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TINY = np.float32(1e-12)  # a vector of zeros is not changed


def beside(parts: Sequence[Floats]) -> Floats:
    """Concatenate the features [n, d] of each network; those of one network are not changed."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part / scale(part) for part in parts], axis=1)


def scale(features: Floats) -> Floats:
    """Return the root mean square of each row, [n, 1], which is never 0."""
    square = np.square(features).mean(axis=1, keepdims=True)
    roots: Floats = np.maximum(np.sqrt(square), TINY)
    return roots

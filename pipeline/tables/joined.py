"""Joined backbones, `A+B`: the concatenated features of several frozen networks.

The store keeps each network's features separately. Each network's vector is divided by its root
mean square, so that no network outweighs the others only because its features are larger. The
scale of an example depends on no other example.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TINY = np.float32(1e-12)  # a vector of zeros is not changed


def beside(parts: Sequence[Floats]) -> Floats:
    """Concatenate the features [n, d] of the networks; a single network's do not change."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part / scale(part) for part in parts], axis=1)


def parted(of_each: Sequence[Sequence[Any]]) -> tuple[list[Any], list[Any]]:
    """Return the last layer of each network, and the inner blocks of all networks.

    Args:
        of_each: for each network its last layer and its inner blocks.
    """
    return [last for last, *_ in of_each], [block for _, *blocks in of_each for block in blocks]


def with_blocks(parts: Sequence[Floats], blocks: Sequence[Floats]) -> Floats:
    """Concatenate the features of networks as `beside` does, and after them those of inner blocks.

    Blocks are not scaled here: a head finds their scale on its training rows.
    """
    last = beside(parts)
    return np.concatenate([last, *blocks], axis=1) if blocks else last


def scale(features: Floats) -> Floats:
    """Return the root mean square of each row, [n, 1], which is never 0."""
    square = np.square(features).mean(axis=1, keepdims=True)
    roots: Floats = np.maximum(np.sqrt(square), TINY)
    return roots

"""The layers of a backbone that features come from: the last one, and inner blocks.

A layer's features are columns side by side: first those of the last layer, then those of each
inner block. Every layer has a scale of its own, which a head finds on its training rows.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

LAST = "last"
Number = TypeVar("Number", bound=np.generic)


class Layer(NamedTuple):
    """A layer's name (`last`, or that of an inner block) and its number of features."""

    name: str
    width: int


Layers = tuple[Layer, ...]  # the last layer and inner blocks; empty for the last layer alone


def by_layer(columns: NDArray[Number], layers: Sequence[Layer]) -> list[NDArray[Number]]:
    """Return the columns of each layer."""
    ends = np.cumsum([layer.width for layer in layers])[:-1].astype(int)
    return np.split(columns, ends, axis=1) if layers else [columns]


def of_network(number: int, block: str) -> str:
    """Return the name of a block in a network of a joined backbone; `number` counts from 1."""
    return block if number == 1 else f"network_{number}/{block}"

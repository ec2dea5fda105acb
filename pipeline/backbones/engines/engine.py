"""What an engine is to those who use it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...kinds import Inputs, Kind, Maker, Preprocessing


@dataclass(frozen=True)
class Engine:
    """A backbone ready to run, and what makes views where the backbone runs.

    `make_views` maps examples and their views to the backbone's input [n, …]. `run` maps such an
    input, n at most the batch size, to float32 features [n, dimension]. Several threads may call
    either at once. `fingerprint` changes with everything that could change a bit of the features
    but the libraries that make the views. `takes` names the input that the backbone wants.
    """

    name: str
    kind: Kind
    make_views: Maker
    run: Callable[[Inputs], NDArray[np.float32]]
    preprocessing: Preprocessing
    dimension: int
    fingerprint: str
    takes: str = "pixels"

"""The interface of an engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kinds import Input, Inputs, Kind, Maker, takes

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Engine:
    """A network ready to run, and the function that makes its views on the same device.

    `make_views` maps examples and their views to the backbone's inputs. `run` maps an array of such
    inputs [n, …], n at most the batch size, to float32 features [n, dimension]; `features` accepts
    everything that `make_views` returns. Several threads may call them at once. `dimension` is 0
    if it is the dimension of the examples.

    `fingerprint` identifies the network, its preprocessing and the library that runs it.
    `arithmetic` has the CPU instructions, if the engine runs on the CPU. One of the two changes if
    anything changes that could change a bit of the features, except the libraries that make the
    views.
    """

    name: str
    kind: Kind
    make_views: Maker
    run: Callable[[Inputs], Floats]
    preprocessing: Input
    dimension: int
    fingerprint: str
    arithmetic: str = ""
    on_gpu: bool = False

    @property
    def made_by(self) -> str:
        """Everything the features depend on except the view; a part of the keys in the store."""
        return f"{self.fingerprint} {self.arithmetic}".rstrip()

    @property
    def takes(self) -> str:
        """The input that the backbone needs, such as pixels."""
        return takes(self.preprocessing)

    def features(self, views: Inputs, batch_size: int) -> Floats:
        """Compute the features [n, dimension] of n views, at most `batch_size` inputs at a time."""
        if self.kind.windowed:
            lengths = [len(view) for view in views]
            of_windows = self._of_list([window for view in views for window in view], batch_size)
            parts = np.split(of_windows, np.cumsum(lengths)[:-1])
            return np.stack([part.mean(axis=0) for part in parts])
        if isinstance(views, list):
            return self._of_list(views, batch_size)
        starts = range(0, len(views), batch_size)
        return np.concatenate([self.run(views[start : start + batch_size]) for start in starts])

    def _of_list(self, inputs: Sequence[NDArray[Any]], batch_size: int) -> Floats:
        """Compute the features of inputs; batches have inputs of one shape, without padding."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for position, one in enumerate(inputs):
            by_shape.setdefault(one.shape, []).append(position)
        found: dict[int, Floats] = {}
        for positions in by_shape.values():
            for start in range(0, len(positions), batch_size):
                some = positions[start : start + batch_size]
                rows = self.run(np.stack([inputs[position] for position in some]))
                found |= dict(zip(some, rows, strict=True))
        return np.stack([found[position] for position in range(len(inputs))])


@dataclass(frozen=True)
class Encoder:
    """A backbone ready to run: one engine for each network that it joins; usually there is one.

    The store keeps the features of each network separately; `tables/joined.py` concatenates them.
    """

    engines: tuple[Engine, ...]

    @property
    def kind(self) -> Kind:
        """The kind of the examples."""
        return self.engines[0].kind

    @property
    def name(self) -> str:
        """The name and version of the library that runs it."""
        return self.engines[0].name

    @property
    def on_gpu(self) -> bool:
        """Whether the backbone runs on a GPU."""
        return self.engines[0].on_gpu

    @property
    def counts(self) -> bool:
        """Whether the features are term counts, which a head weights and no backbone joins."""
        return self.engines[0].takes == "terms"

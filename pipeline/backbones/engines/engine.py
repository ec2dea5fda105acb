"""The interface of an engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kinds import Input, Inputs, Kind, Maker, takes
from ...tables import layers
from ...tables.layers import LAST, Layer, Layers

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Engine:
    """A network ready to run, and the function that makes its views on the same device.

    `make_views` maps examples and their views to the backbone's inputs. `run` maps an array of such
    inputs [n, …], n at most the batch size, to float32 features [n, dimension]; `features` accepts
    everything that `make_views` returns. Several threads may call them at once. `dimension` is 0 if
    the examples determine it. The features of inner `blocks`, if there are any, are further columns
    in the same order.

    `fingerprint` identifies the network, its preprocessing and the library that runs it.
    `arithmetic` names the CPU instructions, if the engine runs on the CPU. Anything that could
    change a bit of the features changes one of the two, except the libraries that make the views.
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
    blocks: tuple[Layer, ...] = ()

    @property
    def made_by(self) -> str:
        """Everything the features depend on except the view; a part of the keys in the store."""
        return f"{self.fingerprint} {self.arithmetic}".rstrip()

    @property
    def each_made_by(self) -> dict[str, str]:
        """The value of `made_by` for each layer's vector, by the layer's name.

        Inner blocks do not change the value of the last layer.
        """
        of_blocks = {one.name: f"{self.made_by} block {one.name}" for one in self.blocks}
        return {LAST: self.made_by} | of_blocks

    @property
    def layers(self) -> Layers:
        """The last layer and the inner blocks; empty if there are no blocks."""
        return (Layer(LAST, self.dimension), *self.blocks) if self.blocks else ()

    def by_layer(self, features: Floats) -> list[Floats]:
        """Split the columns of `features` into those of each layer."""
        return layers.by_layer(features, self.layers)

    @property
    def takes(self) -> str:
        """The input that the backbone needs, such as pixels."""
        return takes(self.preprocessing)

    def features(self, views: Inputs, batch_size: int) -> Floats:
        """Compute the features [n, dimension] of n views, at most `batch_size` inputs at a time.

        The features of inner blocks are further columns.
        """
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
        """The name and version of the library that runs the backbone."""
        return self.engines[0].name

    @property
    def on_gpu(self) -> bool:
        """Whether any network of the backbone runs on a GPU."""
        return any(engine.on_gpu for engine in self.engines)

    @property
    def layers(self) -> Layers:
        """The last layer of all networks and their inner blocks; empty if there are no blocks."""
        blocks = [
            block._replace(name=layers.of_network(number, block.name))
            for number, engine in enumerate(self.engines, 1)
            for block in engine.blocks
        ]
        last = Layer(LAST, sum(engine.dimension for engine in self.engines))
        return (last, *blocks) if blocks else ()

    @property
    def counts(self) -> bool:
        """Whether the features are term counts; a head weights them, and they cannot be joined."""
        return self.engines[0].takes == "terms"

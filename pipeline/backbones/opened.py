"""A backbone whose graph a module of this room writes itself, without PyTorch."""

from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from ..kinds import Input

if TYPE_CHECKING:
    import onnx


class Opened(NamedTuple):
    """The graph, how its input is prepared, and the weights by name.

    The graph has one input whose first axis is `n`, the output `features` float32 [n, dimension]
    and perhaps `maps` float32 [n, dimension, h, w], whose means over h and w are the features.
    """

    model: "onnx.ModelProto"
    preprocessing: Input
    tensors: dict[str, NDArray[Any]]

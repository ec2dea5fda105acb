"""The interface of a family of backbones; each family is a module of this subpackage."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from numpy.typing import NDArray

from ..core.backbone import Backbone
from ..core.errors import ParamsError
from ..kinds import Fitted, Input, Pixels

if TYPE_CHECKING:
    import onnx
    from torch import nn

OFFLINE = "offline, choose backbone: efficientnet_lite0 (its weights are installed)"
UNKNOWN = "not stated"  # a licence
MOST_BLOCKS = 5  # inner blocks of a network: those nearest to its last layer
# The packages that export a PyTorch network.
TORCH = ("onnx", "onnx-ir", "onnxscript", "timm", "torch", "torchvision")


class Opened(NamedTuple):
    """A backbone's graph, its preprocessing, and its weights by name.

    The graph has one input, whose first axis is `n`, and the output `features` float32
    [n, dimension]. It may also have the output `maps` float32 [n, dimension, h, w], whose means
    over h and w are the features. If the backbone's `blocks` are `all`, the other outputs are the
    features of inner blocks, float32 [n, width], each named like its block.
    """

    model: "onnx.ModelProto"
    preprocessing: Input
    tensors: dict[str, NDArray[Any]]


def no_pytorch(backbone: Backbone) -> NoReturn:
    """Raise `ParamsError`: PyTorch cannot run or train a backbone that is an ONNX graph."""
    raise ParamsError(
        f"backbone {backbone} is an ONNX graph and has no PyTorch form: to run or train it with"
        " PyTorch, use a function that returns a torch.nn.Module"
    )


def inner_layers(layers: int) -> range:
    """Return which of a network's equal layers, from 1, are its inner blocks: at most five.

    They are every second layer, or farther apart if there are more than twelve. The last layer is
    not among them, because its output is the features.
    """
    step = max(2, -(-layers // (MOST_BLOCKS + 1)))
    return range(step, layers, step)


@dataclass(frozen=True)
class Family:
    """The functions that obtain the networks of a family; each takes the backbone.

    - `opened` returns the graph that the module writes, or None if PyTorch's exporter has to.
    - `licence` returns the licence of the weights, as their publisher states it.
    - `made_by` returns the packages that contain the weights, and those that write the graph.
    - `content` returns a digest of the files that are not in a package.
    - `check` raises `ParamsError` or `WeightsError` if the network does not exist.
    - `is_graph` is true if the network has no PyTorch form. It has to run a plugin's code for this.
    - `network` returns the PyTorch network without its classifier, and the preprocessing. It
      raises the same errors as `check`.
    - `trained` returns the graph with the weights that `finetune` wrote.
    """

    opened: Callable[[Backbone], Opened | None]
    licence: Callable[[Backbone], str]
    made_by: Callable[[Backbone], tuple[str, ...]] = lambda _: ("onnx",)
    content: Callable[[Backbone], str] = lambda _: ""
    check: Callable[[Backbone], None] = lambda _: None
    is_graph: Callable[[Backbone], bool] = lambda backbone: backbone.has_graph
    network: "Callable[[Backbone], tuple[nn.Module, Pixels | Fitted]]" = no_pytorch
    trained: Callable[[Backbone, dict[str, NDArray[Any]]], Opened] | None = None

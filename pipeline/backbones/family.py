"""The interface of a family of networks, which a module of this subpackage implements."""

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
UNKNOWN = "not stated"  # of a licence
# The packages that make an export of a network of PyTorch.
TORCH = ("onnx", "onnx-ir", "onnxscript", "timm", "torch", "torchvision")


class Opened(NamedTuple):
    """The graph, how its input is prepared, and the weights by name.

    The graph has one input whose first axis is `n`, the output `features` float32 [n, dimension]
    and perhaps `maps` float32 [n, dimension, h, w], whose means over h and w are the features.
    """

    model: "onnx.ModelProto"
    preprocessing: Input
    tensors: dict[str, NDArray[Any]]


def no_pytorch(backbone: Backbone) -> NoReturn:
    """Raise `ParamsError`: PyTorch is to run or to train a backbone that is an ONNX graph."""
    raise ParamsError(
        f"backbone {backbone} is an ONNX graph and has no PyTorch form: what runs or trains it with"
        " PyTorch needs a function that returns a torch.nn.Module"
    )


@dataclass(frozen=True)
class Family:
    """How the networks of a family are had; each function takes the backbone.

    - `opened`: the graph that the module writes itself; None: PyTorch's exporter writes it.
    - `licence` of the weights, as whoever gives them out states it.
    - `made_by`: the packages that carry the weights, and those that write the graph.
    - `content`: a digest of what is in no package.
    - `check` raises `ParamsError` or `WeightsError` if there is no such network.
    - `is_graph`: whether it has no PyTorch form. A plugin's code has to run to know that.
    - `network`: in PyTorch, without its classifier, and the preprocessing; it raises as `check`.
    - `trained`: the graph with other weights, which `finetune` left.
    """

    opened: Callable[[Backbone], Opened | None]
    licence: Callable[[Backbone], str]
    made_by: Callable[[Backbone], tuple[str, ...]] = lambda _: ("onnx",)
    content: Callable[[Backbone], str] = lambda _: ""
    check: Callable[[Backbone], None] = lambda _: None
    is_graph: Callable[[Backbone], bool] = lambda backbone: backbone.has_graph
    network: "Callable[[Backbone], tuple[nn.Module, Pixels | Fitted]]" = no_pytorch
    trained: Callable[[Backbone, dict[str, NDArray[Any]]], Opened] | None = None

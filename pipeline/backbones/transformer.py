"""The layers of a transformer as ONNX, for encoders whose weights are packages."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

Tensors = dict[str, NDArray[Any]]

SCALE = "_scale"  # suffix of the scale's name of an int8 tensor


class Network:
    """Builds a graph: its nodes and constants.

    Layers are named as in the `BertModel` of `transformers`: `tensors` has `LAYER.weight` and
    `LAYER.bias`.

    ONNX Runtime fuses the biases, the residuals and GELU by itself. One product for query, key and
    value together was not faster. ONNX Runtime's own Attention, which is not an ONNX operator, was
    not faster either.
    """

    def __init__(self, tensors: Tensors, epsilon: float) -> None:
        """Begin with no nodes; `epsilon` is that of the layer normalisations."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._tensors = tensors
        self._epsilon = epsilon

    def constant(self, name: str, value: Any) -> str:
        """Add a constant; return its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        from onnx import helper

        output = output or f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def widened(self, key: str, turned: bool = False, factor: float = 1.0) -> str:
        """Add a float32 matrix, multiplied by `factor`; a runtime folds these nodes on loading."""
        from onnx import TensorProto

        matrix, scale = self._tensors[key], self._tensors.get(key + SCALE)
        matrix = matrix.T if turned else matrix
        if scale is None:
            return self.constant(key, matrix * np.float32(factor))
        scale = (scale.T if turned else scale) * np.float32(factor)
        floats = self.add("Cast", [self.constant(key, matrix)], to=TensorProto.FLOAT)
        return self.add("Mul", [floats, self.constant(key + SCALE, scale)])

    def dense(self, x: str, layer: str, factor: float = 1.0) -> str:
        """Add a layer of `torch.nn.Linear`, whose output is multiplied by `factor`."""
        product = self.add("MatMul", [x, self.widened(f"{layer}.weight", True, factor)])
        bias = self._tensors[f"{layer}.bias"] * np.float32(factor)
        return self.add("Add", [product, self.constant(f"{layer}.bias", bias)])

    def normalised(self, x: str, layer: str) -> str:
        """Add a layer normalisation."""
        parts = [f"{layer}.weight", f"{layer}.bias"]
        names = [self.constant(part, self._tensors[part]) for part in parts]
        return self.add("LayerNormalization", [x, *names], axis=-1, epsilon=self._epsilon)

    def attended(self, x: str, layer: str, size: int, split: str, joined: str) -> str:
        """Add self-attention to states [n, length, width], without its output layer.

        Args:
            x: the states.
            layer: its parts `query`, `key` and `value` are layers.
            size: width of a head.
            split: a constant, the shape [0, 0, heads, size].
            joined: a constant, the shape [0, 0, width].
        """
        heads = []
        for part in ("query", "key", "value"):
            # Scaling the query saves a multiplication of the scores.
            factor = size**-0.5 if part == "query" else 1.0
            one = self.dense(x, f"{layer}.{part}", factor)
            turned = [0, 2, 3, 1] if part == "key" else [0, 2, 1, 3]
            heads.append(self.add("Transpose", [self.add("Reshape", [one, split])], perm=turned))
        query, key, value = heads
        scores = self.add("MatMul", [query, key])
        seen = self.add("MatMul", [self.add("Softmax", [scores], axis=-1), value])
        return self.add("Reshape", [self.add("Transpose", [seen], perm=[0, 2, 1, 3]), joined])

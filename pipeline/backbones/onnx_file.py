"""A backbone that is the user's own ONNX file in `data/weights`, with a small YAML beside it.

The file has one input, float32 [n, 3, crop, crop]: the pictures, normalised with mean and std. It
has one output: features [n, d], or maps [n, d, h, w] whose means are then the features. The YAML
has the same name. It states the preprocessing, with the fields of `kinds.Pixels` and
`kinds.Fitted`, and the licence of the weights. This module adds the normalisation in front of the
graph.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..core.backbone import Backbone
from ..core.errors import ParamsError, WeightsError
from ..kinds import FITS, OPSET, Fitted, Pixels
from . import given, plugin
from .family import UNKNOWN, Family, Opened

if TYPE_CHECKING:
    import onnx

NEEDED = ("resize", "crop", "interpolation", "mean", "std")
FURTHER = ("fit", "licence")
OLDEST = 13  # the oldest opset that is converted to ours
BEYOND = ".data"  # added to the file's name: where PyTorch's exporter writes large weights

BEFORE = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
scaled (uint8[n, {side}, {side}, 3] pictures) => (float[n, 3, {side}, {side}] scaled)
{{
    numbers = Cast<to = 1>(pictures)
    channels = Transpose<perm = [0, 3, 1, 2]>(numbers)
    most = Constant<value = float {{255.0}}>()
    shares = Div(channels, most)
    centred = Sub(shares, mean)
    scaled = Div(centred, std)
}}
"""


def content(backbone: Backbone) -> str:
    """Return the digests of the file, the YAML beside it and, if there are any, external weights.

    Raises:
        WeightsError: the file or the YAML does not exist.
    """
    file = Path(backbone.name)
    beyond = file.with_name(file.name + BEYOND)
    files = [file, described_in(backbone), *([beyond] if beyond.exists() else [])]
    return " ".join(given.digest(one, plugin.asked_by(backbone)) for one in files)


def described_in(backbone: Backbone) -> Path:
    """Return the path of the YAML beside the file."""
    return Path(backbone.name).with_suffix(".yaml")


def opened(backbone: Backbone) -> Opened:
    """Return the graph from pictures to features, converted to our opset, checked and run once.

    Raises:
        ParamsError: the graph or the YAML is not as the module's docstring describes.
        WeightsError: a file does not exist or is damaged.
    """
    preprocessing = _preprocessing(backbone)
    model = _versions(backbone, _load(backbone))
    whole = _from_pictures(backbone, model, preprocessing)
    return Opened(plugin.graph(backbone, whole, preprocessing), preprocessing, {})


def _description(backbone: Backbone) -> dict[str, Any]:
    """Return the content of the YAML; check that it has the right keys."""
    file = described_in(backbone)
    given.digest(file, plugin.asked_by(backbone))  # raises an error if it does not exist
    try:
        description = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    should = f"it should have {', '.join(NEEDED)} and, optionally, {' and '.join(FURTHER)}"
    if not isinstance(description, dict):
        raise ParamsError(f"{file} is not a mapping; {should}")
    if lacking := [key for key in NEEDED if key not in description]:
        raise ParamsError(f"{file} lacks {', '.join(lacking)}; {should}")
    if unknown := [str(key) for key in description if key not in (*NEEDED, *FURTHER)]:
        raise ParamsError(f"{file} has {', '.join(unknown)}, which is not known; {should}")
    return description


def _preprocessing(backbone: Backbone) -> Pixels | Fitted:
    description = _description(backbone)
    prepared = plugin.preprocessing_of(backbone, tuple(description[key] for key in NEEDED))
    if not all(math.isfinite(one) for one in (*prepared.mean, *prepared.std)):
        raise ParamsError(f"{described_in(backbone)} has a mean or std that is not finite")
    if "fit" not in description:
        return prepared
    if description["fit"] not in FITS:
        raise ParamsError(
            f"{described_in(backbone)} has fit {description['fit']!r:.40}; use"
            f" {' or '.join(FITS)}, or leave it out for a centre crop"
        )
    return Fitted(*prepared, description["fit"])


def _load(backbone: Backbone) -> "onnx.ModelProto":
    """Load the graph with its weights; inline its functions and drop what is unused."""
    import onnx
    from onnx import external_data_helper, inliner

    file = Path(backbone.name)
    try:
        model = onnx.load(file, load_external_data=False)
        for tensor in model.graph.initializer:
            if external_data_helper.uses_external_data(tensor):
                where = {entry.key: entry.value for entry in tensor.external_data}["location"]
                if where != file.name + BEYOND:
                    raise plugin.wrong(
                        backbone,
                        f"keeps weights in {where}; write them into the file itself, or into"
                        f" {file.name}{BEYOND} beside it",
                    )
        external_data_helper.load_external_data_for_model(model, str(file.parent))
        model = inliner.inline_local_functions(model)
    except ParamsError:
        raise
    except Exception as error:  # damaged bytes: protobuf and the checker raise own classes
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"{plugin.asked_by(backbone)}: {file} is damaged: {reason}") from None
    foreign = sorted(_foreign(model.graph))
    if foreign:
        raise plugin.wrong(
            backbone,
            f"has operators that ONNX does not define ({', '.join(foreign[:3])}): "
            "export it without them",
        )
    return model


def _foreign(graph: "onnx.GraphProto") -> set[str]:
    """Return the operators from domains other than ONNX's, including those inside branches."""
    found = {
        f"{node.domain}.{node.op_type}" for node in graph.node if node.domain not in ("", "ai.onnx")
    }
    for node in graph.node:
        for attribute in node.attribute:
            for inner in _inside(attribute):
                found |= _foreign(inner)
    return found


def _inside(attribute: "onnx.AttributeProto") -> "list[onnx.GraphProto]":
    """Return the graphs of a branch or loop; reading `g` of another attribute would create one."""
    branches = [attribute.g] if attribute.HasField("g") else []
    return [*branches, *attribute.graphs]


def _versions(backbone: Backbone, model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Convert the graph to the opset of the other parts of a bundle."""
    import onnx

    versions = [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")]
    version = versions[0] if versions else 0
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", version))
    if not OLDEST <= version <= OPSET:
        raise plugin.wrong(
            backbone,
            f"uses opset {version}; export it with one from {OLDEST} to {OPSET}",
        )
    if version == OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter's C++ has one class for all errors
        reason = " ".join(str(error).split())[:160]
        raise plugin.wrong(
            backbone,
            f"cannot be converted to opset {OPSET} ({reason}); export it with that opset",
        ) from None


def _from_pictures(
    backbone: Backbone, model: "onnx.ModelProto", preprocessing: Pixels | Fitted
) -> "onnx.ModelProto":
    """Add the normalisation before the graph; name its outputs `features` and perhaps `maps`."""
    import numpy as np
    import onnx
    from onnx import compose, helper, numpy_helper, parser

    side = preprocessing.crop
    constants = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in constants]
    _stop_if_other_input(backbone, inputs, side)
    if len(model.graph.output) != 1:
        outputs = ", ".join(one.name for one in model.graph.output)
        raise plugin.wrong(backbone, f"has the outputs {outputs}; it should have only one")
    del model.graph.input[:]
    model.graph.input.append(inputs[0])
    model.ir_version = max(model.ir_version, 8)
    network = prefixed(model, "network/")
    before = parser.parse_model(
        BEFORE.format(ir_version=network.ir_version, opset=OPSET, side=side)
    )
    for key in ("mean", "std"):
        values = np.array(getattr(preprocessing, key), np.float32).reshape(1, 3, 1, 1)
        before.graph.initializer.append(numpy_helper.from_array(values, key))
    # The two graphs have no names in common, because the second's begin with `network/`.
    ends = [("scaled", network.graph.input[0].name)]
    whole = compose.merge_models(before, network, ends)
    last = whole.graph.output[0].name
    rank = len(onnx.shape_inference.infer_shapes(whole).graph.output[0].type.tensor_type.shape.dim)
    del whole.graph.output[:]
    if rank == 4:
        whole.graph.node.append(helper.make_node("Identity", [last], ["maps"]))
        whole.graph.node.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
        whole.graph.node.append(helper.make_node("Flatten", ["pooled"], ["features"], axis=1))
    elif rank == 2:
        whole.graph.node.append(helper.make_node("Identity", [last], ["features"]))
    else:
        raise plugin.wrong(
            backbone,
            f"returns an array with {rank} axes; it should return features [n, d], or maps"
            " [n, d, h, w]",
        )
    for output, axes in (("features", 2), ("maps", 4))[: rank // 2]:
        shape = ["n", *[None] * (axes - 1)]
        value = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, shape)
        whole.graph.output.append(value)
    return whole


def _stop_if_other_input(
    backbone: Backbone, inputs: "list[onnx.ValueInfoProto]", side: int
) -> None:
    """Check that there is one input, for pictures of the shape that a bundle provides."""
    import onnx

    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        has = (
            f"the inputs {names}; it should have only one"
            if names
            else "no input; it should have one"
        )
        raise plugin.wrong(backbone, f"has {has}")
    tensor = inputs[0].type.tensor_type
    sides = [one.dim_value for one in tensor.shape.dim]  # 0 for an axis of any length
    if tensor.elem_type != onnx.TensorProto.FLOAT or len(sides) != 4:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise plugin.wrong(
            backbone, f"takes {kind} {sides}; it should take float [n, 3, {side}, {side}]"
        )
    if sides[0]:
        raise plugin.wrong(
            backbone, f"has a fixed batch size of {sides[0]}; export it with a dynamic first axis"
        )
    if any(one not in (0, wanted) for one, wanted in zip(sides[1:], (3, side, side), strict=True)):
        raise plugin.wrong(
            backbone,
            f"takes {sides[1:]}, but {described_in(backbone)} describes [3, {side}, {side}]",
        )


def prefixed(model: "onnx.ModelProto", prefix: str) -> "onnx.ModelProto":
    """Return a copy of the graph with a prefix before every name, and without `value_info`.

    Names inside branches get the prefix too. `onnx.compose.add_prefix` does not change names of
    the outer graph that a branch uses.
    """
    import onnx

    def rename(graph: "onnx.GraphProto") -> None:
        del graph.value_info[:]
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = prefix + value.name
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [prefix + name if name else "" for name in names]
            for attribute in node.attribute:
                for inner in _inside(attribute):
                    rename(inner)

    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    rename(renamed.graph)
    return renamed


FAMILY = Family(
    opened,
    licence=lambda backbone: str(_description(backbone).get("licence", UNKNOWN)),
    content=content,
)

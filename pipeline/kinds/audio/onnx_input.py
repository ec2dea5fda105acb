"""The ONNX graph from the result of `read` to the backbone's input, which is the identity."""

from typing import TYPE_CHECKING

from .. import IR_VERSION, OPSET, Input, Pixels, Spectrum

if TYPE_CHECKING:
    import onnx

GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
sound ({form} sound) => ({form} input)
{{
    input = Identity (sound)
}}
"""


def graph(preprocessing: Input) -> "onnx.ModelProto":
    """Return the identity graph for windows of a waveform, a spectrum or pixels."""
    from onnx import parser

    if isinstance(preprocessing, Pixels):
        form = f"uint8[w, {preprocessing.crop}, {preprocessing.crop}, 3]"
    elif isinstance(preprocessing, Spectrum):
        form = f"float[w, {preprocessing.bands}, frames]"
    else:
        form = "float[w, samples]"
    return parser.parse_model(GRAPH.format(ir_version=IR_VERSION, opset=OPSET, form=form))

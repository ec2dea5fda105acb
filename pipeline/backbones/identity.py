"""The identity: vectors that another model made are features already."""

from onnx import parser

from ..kinds import IR_VERSION, OPSET, Vector
from .opened import Opened

GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
identity (float[n, length] vectors) => (float[n, length] features)
{{
    features = Identity(vectors)
}}
"""


def opened(name: str) -> Opened:
    """The graph, for vectors of any length."""
    model = parser.parse_model(GRAPH.format(ir_version=IR_VERSION, opset=OPSET))
    return Opened(model, Vector(), {})


def made_by(name: str) -> tuple[str, ...]:
    """The package that writes the graph; there are no weights."""
    return ("onnx",)


def licence(name: str) -> str:
    """That of whatever made the vectors, which nobody told."""
    return "of your vectors"

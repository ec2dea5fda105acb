"""Counts of terms as features: the floor of texts, without any pretraining.

The kind of the examples counts; `heads/tf_idf.py` weighs the counts when a head is trained.
"""

from onnx import parser

from ..kinds import IR_VERSION, OPSET, Terms
from .opened import Opened

# Of 2048, 4096 and 8192 columns the figures of `benchmarks/text.md` differ by less than 0.01.
WIDTH = 4096

GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
terms (float[n, {width}] terms) => (float[n, {width}] features)
{{
    features = Identity(terms)
}}
"""


def opened(name: str) -> Opened:
    """The graph, which leaves the counts as they are."""
    model = parser.parse_model(GRAPH.format(ir_version=IR_VERSION, opset=OPSET, width=WIDTH))
    return Opened(model, Terms(WIDTH), {}, ("onnx",))


def distribution(name: str) -> str | None:
    """None: there are no weights."""
    return None


def licence(name: str) -> str:
    """None is needed: nothing was trained."""
    return "none needed"

"""Counts of terms as features: the floor of texts, without any pretraining.

The kind of the examples counts; `heads/tf_idf.py` weighs the counts when a head is trained.
"""

from onnx import parser

from ..kinds import IR_VERSION, OPSET, Terms
from .opened import Opened

# Columns. With 4096 of them the accuracy on validation titles of `benchmarks/text.py` was lower by
# 0.03, since more words share a column; 8192 take 33 kB a text in the feature store.
WIDTH = 8192

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
    return Opened(model, Terms(WIDTH), {})


def made_by(name: str) -> tuple[str, ...]:
    """The package that writes the graph; there are no weights."""
    return ("onnx",)


def licence(name: str) -> str:
    """None is needed: nothing was trained."""
    return "none needed"

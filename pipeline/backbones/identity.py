"""The identity, for vectors that another model computed: they already are features."""

from ..core.backbone import Backbone
from ..kinds import IR_VERSION, OPSET, Vector
from .family import Family, Opened

GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
identity (float[n, length] vectors) => (float[n, length] features)
{{
    features = Identity(vectors)
}}
"""


def opened(backbone: Backbone) -> Opened:
    """Return the graph, for vectors of any length."""
    from onnx import parser  # slow to import, and not needed once there is an export

    model = parser.parse_model(GRAPH.format(ir_version=IR_VERSION, opset=OPSET))
    return Opened(model, Vector(), {})


# The licence depends on the model that computed the vectors.
FAMILY = Family(opened, licence=lambda _: "of your vectors")

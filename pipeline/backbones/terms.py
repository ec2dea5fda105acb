"""Term counts as features: the baseline for texts, without pretraining.

`kinds/text` counts the terms; `heads/tf_idf.py` weights the counts when a head is trained.
"""

from ..core.backbone import Backbone
from ..kinds import IR_VERSION, OPSET, Terms
from .family import Family, Opened

# Columns. With 4096 the accuracy on the validation titles of `benchmarks/text.py` was lower by
# 0.03, because more words share a column; 8192 take 33 kB per text in the feature store.
WIDTH = 8192

GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
terms (float[n, {width}] terms) => (float[n, {width}] features)
{{
    features = Identity(terms)
}}
"""


def opened(backbone: Backbone) -> Opened:
    """Return the graph, which does not change the counts."""
    from onnx import parser  # slow to import, and not needed once there is an export

    model = parser.parse_model(GRAPH.format(ir_version=IR_VERSION, opset=OPSET, width=WIDTH))
    return Opened(model, Terms(WIDTH), {})


FAMILY = Family(opened, licence=lambda _: "none needed")

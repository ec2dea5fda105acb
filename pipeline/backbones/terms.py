"""Term counts and character n-grams as features: baselines for texts, without pretraining.

`kinds/text` counts both. `heads/tf_idf.py` weights the counts of terms when a head is trained;
nothing is fitted to `characters`.
"""

from ..core.backbone import Backbone
from ..kinds import IR_VERSION, OPSET, Characters, Terms
from .family import Family, Opened

# Columns of terms. With 4096 the accuracy on the validation titles of `benchmarks/text.py` was
# lower by 0.03, because more words share a column; 8192 take 33 kB per text in the feature store.
WIDTH = 8192
WIDTH_OF_CHARACTERS = 4096

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

    by_characters = backbone.name == "characters"
    takes = Characters(WIDTH_OF_CHARACTERS) if by_characters else Terms(WIDTH)
    text = GRAPH.format(ir_version=IR_VERSION, opset=OPSET, width=takes.width)
    return Opened(parser.parse_model(text), takes, {})


FAMILY = Family(opened, licence=lambda _: "none needed")

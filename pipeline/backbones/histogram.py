"""A baseline for pictures, without pretraining: histograms of colours and of gradients.

The colours are histograms of each channel in 2 x 2 cells. A level counts in the two nearest of its
eight bins, in proportion. The gradients are a simple form of HOG (Dalal and Triggs, CVPR 2005): in
4 x 4 cells, the mean slope of the grey levels uphill in each of eight directions.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..core.backbone import Backbone
from ..kinds import IR_VERSION, OPSET, Pixels
from .family import Family, Opened

if TYPE_CHECKING:
    import onnx

SIDE = 64
BINS, DIRECTIONS = 8, 8
DIMENSION = 3 * BINS * 2 * 2 + DIRECTIONS * 4 * 4
GREY = (0.299, 0.587, 0.114)  # of ITU-R BT.601
SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32) / 8

GRAPH = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
histogram (uint8[n, {side}, {side}, 3] pictures) => (float[n, {dimension}] features)
<float full = {{255}}, float one = {{1}}>
{{
    levels = Cast<to = 1>(pictures)
    shares = Div(levels, full)
    planes = Transpose<perm = [0, 3, 1, 2]>(shares)
    from_centres = Conv<group = 3>(planes, steps, centres)
    distances = Abs(from_centres)
    left = Sub(one, distances)
    near = Relu(left)
    of_colours = AveragePool<kernel_shape = [32, 32], strides = [32, 32]>(near)
    colours = Flatten(of_colours)
    slopes = Conv(planes, directions)
    uphill = Relu(slopes)
    of_gradients = AveragePool<kernel_shape = [15, 15], strides = [15, 15]>(uphill)
    gradients = Flatten(of_gradients)
    features = Concat<axis = 1>(colours, gradients)
}}
"""


def opened(backbone: Backbone) -> Opened:
    """Return the graph: `pictures` uint8 [n, SIDE, SIDE, 3] to `features` [n, DIMENSION]."""
    from onnx import numpy_helper, parser  # slow to import, and not needed once there is an export

    form = {"ir_version": IR_VERSION, "opset": OPSET, "side": SIDE, "dimension": DIMENSION}
    model: onnx.ModelProto = parser.parse_model(GRAPH.format(**form))
    for name, weights in _weights().items():
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    return Opened(model, Pixels(SIDE, SIDE, "bilinear", (0.0,) * 3, (1.0,) * 3), {})


def _weights() -> dict[str, NDArray[np.float32]]:
    """Return the kernels: of distances from the bins' centres, in bins, and of the directions."""
    centres = np.tile(np.arange(BINS), 3)
    angles = 2 * np.pi * np.arange(DIRECTIONS)[:, None, None] / DIRECTIONS
    kernels = np.cos(angles) * SOBEL + np.sin(angles) * SOBEL.T
    directions = np.array(GREY)[None, :, None, None] * kernels[:, None]
    return {
        "steps": np.full((3 * BINS, 1, 1, 1), BINS - 1, np.float32),
        "centres": (-centres).astype(np.float32),
        "directions": directions.astype(np.float32),
    }


# There are no weights, so only the licence of this code applies.
FAMILY = Family(opened, licence=lambda _: "none (no weights)")

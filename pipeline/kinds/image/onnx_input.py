"""An ONNX graph from pictures of any size to a backbone's pixels: one `Resize` and a crop.

The graph is written in ONNX's text format, so neither this module nor its users need PyTorch.
"""

import onnx
from onnx import parser

from .. import IR_VERSION, OPSET, Fitted, Pixels
from .preprocess import LONGEST, colour

CUBIC = 'mode = "cubic", cubic_coeff_a = -0.5, exclude_outside = 1, antialias = 1'
FILTERS = {
    "lanczos": CUBIC,  # the most similar filter in ONNX
    "nearest": 'mode = "nearest", nearest_mode = "round_prefer_ceil"',
    "bilinear": 'mode = "linear", exclude_outside = 1, antialias = 1',
    "bicubic": CUBIC,
}

# From a picture to the input of the backbone. `Resize` rounds sides down, so a scale is raised by a
# millionth if, rounded to float32, it would make a side too short.
PREPROCESS = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
preprocess (uint8[height, width, 3] picture) => (uint8[1, {crop}, {crop}, 3] input)
<int64[2] upright = {{2, 3}}, int64[1] front = {{0}}, int64 crop = {{{crop}}},
 float[2] ones = {{1, 1}}, double half = {{0.5}}, double resize = {{{resize}}},
 double a_little = {{1.000001}}>
{{
{seen}
    sides = Shape<end = 2>(seen)
    size = Cast<to = 11>(sides)
    whole = {whole}(size)
    factor = Div(resize, whole)
    exact = Mul(size, factor)
    rounded = Round(exact)
    scaled = Max(rounded, {least})
    of_rounded = Div(scaled, size)
    scale = {scale}
    larger = Mul(scale, a_little)
    size_float = Cast<to = 1>(size)
    scaled_float = Cast<to = 1>(scaled)
    scale_float = Cast<to = 1>(scale)
    larger_float = Cast<to = 1>(larger)
    becomes = Mul(size_float, scale_float)
    is_short = Less(becomes, scaled_float)
    scales_of_sides = Where(is_short, larger_float, scale_float)
    scales = Concat<axis = 0>(ones, scales_of_sides)
    planes = Transpose<perm = [2, 0, 1]>(seen)
    batch = Unsqueeze(planes, front)
    resized = Resize<{filter}>(batch, , scales)
    new = Cast<to = 7>(scaled)
{filled}
    margin = Sub(length, crop)
    margin_exact = Cast<to = 11>(margin)
    margin_half = Mul(margin_exact, half)
    first_exact = {first}(margin_half)
    first = Cast<to = 7>(first_exact)
    end = Add(first, crop)
    square = Slice(filled, first, end, upright)
    input = Transpose<perm = [0, 2, 3, 1]>(square)
}}
"""

# For backbones that see whole pictures; each side keeps at least one pixel.
WHOLE = """
    one = Constant<value = double {1.0}>()
    seen = Identity(picture)
"""

# The centre of a panorama; otherwise a picture of one pixel in height would be scaled to gigabytes.
MIDDLE = """
    lengths = Shape<end = 2>(picture)
    shorter = ReduceMin(lengths)
    none = Constant<value = int64 {{0}}>()
    two = Constant<value = int64 {{2}}>()
    reach = Constant<value = int64 {{{longest}}}>()
    across = Constant<value = int64[2] {{0, 1}}>()
    most = Mul(shorter, reach)
    beyond = Sub(lengths, most)
    beyond_or_none = Max(beyond, none)
    cut = Div(beyond_or_none, two)
    until = Sub(lengths, cut)
    seen = Slice(picture, cut, until, across)
"""

# Fills the rest of the square with a colour, [1, 3, 1, 1].
BORDER = """
    colour = Constant<value = int32[1, 3, 1, 1] {{{colour}}}>()
    nowhere = Constant<value = int64[2] {{0, 0}}>()
    none = Constant<value = int64 {{0}}>()
    two = Constant<value = int64 {{2}}>()
    lacking = Sub(crop, new)
    lacking_or_none = Max(lacking, none)
    before = Div(lacking_or_none, two)
    after = Sub(lacking_or_none, before)
    pads = Concat<axis = 0>(nowhere, before, nowhere, after)
    levels = Cast<to = 6>(resized)
    above_colour = Sub(levels, colour)
    padded = Pad(above_colour, pads)
    levels_filled = Add(padded, colour)
    filled = Cast<to = 2>(levels_filled)
    length = Add(new, lacking_or_none)
"""


def graph(preprocessing: Pixels | Fitted) -> onnx.ModelProto:
    """Return the graph for `preprocess.py`: uint8 [height, width, 3] to [1, crop, crop, 3].

    The input is called `picture`, the output `input`. Some levels differ from Pillow's by 1. The
    difference is larger if `preprocess.base` decodes or shrinks a picture in two steps, because the
    graph has one, and for Lanczos filters, which the graph replaces with bicubic ones.
    """
    fitted = preprocessing if isinstance(preprocessing, Fitted) else None
    fit = fitted.fit if fitted else ""
    numbers = {
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "crop": preprocessing.crop,
        "resize": preprocessing.resize if fit else max(preprocessing.resize, preprocessing.crop),
        "filter": FILTERS[preprocessing.interpolation],
        "seen": WHOLE if fit else MIDDLE.format(longest=LONGEST),
        "whole": {"": "ReduceMin", "squash": "Identity", "border": "ReduceMax"}[fit],
        "least": "one" if fit else "resize",
        # If not fitted, rounding down crops the longer side and does not squeeze it.
        "scale": "Identity(of_rounded)" if fit else "Max(of_rounded, factor)",
        "filled": "filled = Identity(resized) length = Identity(new)",
        "first": "Round" if fit else "Floor",
    }
    if fitted and fit == "border":
        numbers["filled"] = BORDER.format(colour=", ".join(map(str, colour(fitted))))
    return parser.parse_model(PREPROCESS.format(**numbers))

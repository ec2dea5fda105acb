"""A picture of any size to a backbone's pixels, as an ONNX graph that does what Pillow does.

It is written in ONNX's own notation, so that no PyTorch is needed here, nor where it is used.
"""

import onnx
from onnx import inliner, parser

from .. import IR_VERSION, OPSET, Fitted, Pixels
from .preprocess import REACH, colour

# Per axis: the weights [crop, length] with which Pillow's `resize` makes each of the pixels that
# `bases.base` and `bases.crop` leave of an axis, from the picture's pixels. A filter of the
# interpolation is laid over each new pixel's place, stretched by the factor when shrinking
# (Pillow, src/libImaging/Resample.c). `shorter` is the picture's shorter side; the box that cuts a
# panorama is rounded to float32 as Pillow's is. All else is in float64.
AXIS = """
<opset_import: ["" : {opset}], domain: "headstart">
axis_weights (length, whole) => (weights, fewer{seen})
{{
    size = Cast<to = 11>(length)
    side = Cast<to = 11>(whole)
    resize = Constant<value = double {{{resize}.0}}>()
    crop = Constant<value = double {{{crop}.0}}>()
    reach = Constant<value = double {{{reach}.0}}>()
    support = Constant<value = double {{{support}.0}}>()
    half = Constant<value = double {{0.5}}>()
    zero = Constant<value = double {{0.0}}>()
    one = Constant<value = double {{1.0}}>()
    two = Constant<value = double {{2.0}}>()

    factor = Div(resize, side)
    exact = Mul(size, factor)
    rounded = Round(exact)
    scaled = Max(rounded, {least})
    surplus = Sub(scaled, reach)
    surplus_half = Div(surplus, two)
    surplus_floor = Floor(surplus_half)
    cut = Max(surplus_floor, zero)
    start_exact = Div(cut, factor)
    kept = Sub(scaled, cut)
    end_scaled = Div(kept, factor)
    end_exact = Min({end}, size)
    start_float = Cast<to = 1>(start_exact)
    end_float = Cast<to = 1>(end_exact)
    span_float = Sub(end_float, start_float)
    start = Cast<to = 11>(start_float)
    span = Cast<to = 11>(span_float)
    left_out = Add(cut, cut)
    pixels = Sub(scaled, left_out)
    scale = Div(span, pixels)
    fewer = Sub(size, pixels)
    stretch = Max(scale, one)
    radius = Mul(support, stretch)

    margin = Sub(pixels, crop)
    margin_half = Div(margin, two)
{first}    last = Add(first, crop)
    numbers = Range(first, last, one)
    middles = Add(numbers, half)
    places = Mul(middles, scale)
    centres_flat = Add(places, start)
    down = Constant<value = int64[1] {{1}}>()
    centres = Unsqueeze(centres_flat, down)
    left = Sub(centres, radius)
    left_half = Add(left, half)
    left_floor = Floor(left_half)
    right = Add(centres, radius)
    right_half = Add(right, half)
    right_floor = Floor(right_half)

    sources = Range(zero, size, one)
    source_middles = Add(sources, half)
    offsets = Sub(source_middles, centres)
    distances = Abs(offsets)
    x = Div(distances, stretch)
{filter}
    not_before = GreaterOrEqual(sources, left_floor)
    before_end = Less(sources, right_floor)
    within = And(not_before, before_end)
    inside = Where(within, y, zero)
    across = Constant<value = int64[1] {{1}}>()
    total = ReduceSum(inside, across)
    share = Div(inside, total)
{mask}}}
"""

# The weights of each pixel.
WEIGHTS = """    weights = Cast<to = 1>(share)
"""

# Where the middle begins: as `preprocess.crop`, or as timm cuts out or fills up (`Fitted`).
FIRST = """    first = Floor(margin_half)
"""
FIRST_OF_FITTED = """    first_cut = Round(margin_half)
    first_filled = Ceil(margin_half)
    is_cut = GreaterOrEqual(margin, zero)
    first = Where(is_cut, first_cut, first_filled)
"""
# The same where some are not of the picture; `seen` [crop, 1] is 1 of those that are, else 0.
MASK = """    from_first = GreaterOrEqual(numbers, zero)
    to_last = Less(numbers, pixels)
    is_seen_flat = And(from_first, to_last)
    is_seen = Unsqueeze(is_seen_flat, down)
    seen_share = Where(is_seen, share, zero)
    weights = Cast<to = 1>(seen_share)
    seen = Cast<to = 1>(is_seen)
"""

# What Pillow's filters are at the distance x ≥ 0. Bicubic is Keys' (1981) with a = -0.5; Lanczos'
# is sinc(x) sinc(x / 3). The nearest pixel is the one that the new pixel's centre is in.
FILTERS = {
    "lanczos": """
    three = Constant<value = double {3.0}>()
    pi = Constant<value = double {3.141592653589793}>()
    least = Constant<value = double {1e-9}>()
    away = Max(x, least)
    angle = Mul(away, pi)
    third = Div(angle, three)
    sine = Sin(angle)
    sine_of_third = Sin(third)
    sines = Mul(sine, sine_of_third)
    angles = Mul(angle, third)
    window = Div(sines, angles)
    is_near = Less(x, three)
    y = Where(is_near, window, zero)
""",
    "nearest": """
    chosen = Floor(centres)
    is_chosen = Equal(sources, chosen)
    y = Cast<to = 11>(is_chosen)
""",
    "bilinear": """
    falling = Sub(one, x)
    y = Max(falling, zero)
""",
    "bicubic": """
    near_3 = Constant<value = double {1.5}>()
    near_2 = Constant<value = double {2.5}>()
    near_a = Mul(near_3, x)
    near_b = Sub(near_a, near_2)
    near_c = Mul(near_b, x)
    near_d = Mul(near_c, x)
    near = Add(near_d, one)
    far_0 = Constant<value = double {2.0}>()
    far_1 = Constant<value = double {4.0}>()
    far_2 = Constant<value = double {2.5}>()
    far_a = Mul(half, x)
    far_b = Sub(far_2, far_a)
    far_c = Mul(far_b, x)
    far_d = Sub(far_c, far_1)
    far_e = Mul(far_d, x)
    far_f = Add(far_e, far_0)
    is_near = Less(x, one)
    is_far = Less(x, far_0)
    beyond = Where(is_far, far_f, zero)
    y = Where(is_near, near, beyond)
""",
}

# Scale the first axis of a picture, then the second, each rounded to bytes as Pillow does:
# [length, other, 3] to float [crop, crop, 3].
SCALE = """
<opset_import: ["" : {opset}], domain: "headstart">
scale (picture, first, second) => (square)
{{
    half = Constant<value = float {{0.5}}>()
    zero = Constant<value = float {{0.0}}>()
    most = Constant<value = float {{255.0}}>()
    rest = Constant<value = int64[2] {{0, -1}}>()
    pixels = Constant<value = int64[3] {{0, -1, 3}}>()
    levels = Cast<to = 1>(picture)
    lines = Reshape(levels, rest)
    exact = MatMul(first, lines)
    exact_half = Add(exact, half)
    whole = Floor(exact_half)
    bytes = Clip(whole, zero, most)
    narrow = Reshape(bytes, pixels)
    by_channel = Transpose<perm = [0, 2, 1]>(narrow)
    second_t = Transpose<perm = [1, 0]>(second)
    small = MatMul(by_channel, second_t)
    small_half = Add(small, half)
    small_whole = Floor(small_half)
    small_bytes = Clip(small_whole, zero, most)
    square = Transpose<perm = [0, 2, 1]>(small_bytes)
}}
"""

# Pillow 13 scales down first, then across, where that shortens the picture by more than twice as
# many pixels, else across first: which of the two is rounded first can be seen.
LEVELS = """\
            twice_fewer_columns = Mul(fewer_columns, twice)
            most_down = Greater(fewer_rows, twice_fewer_columns)
            shrinks = Greater(fewer_rows, zero)
            down_first = And(most_down, shrinks)
            levels = If (down_first) <
                then_branch = tall () => (float[{crop}, {crop}, 3] tall_levels) {{
                    tall_levels = headstart.scale(picture, down, across)
                }},
                else_branch = wide () => (float[{crop}, {crop}, 3] wide_levels) {{
                    turned = Transpose<perm = [1, 0, 2]>(picture)
                    turned_levels = headstart.scale(turned, across, down)
                    wide_levels = Transpose<perm = [1, 0, 2]>(turned_levels)
                }}
            >
"""

# One picture to what the backbone takes. A picture that has the wanted size already is only
# cropped.
PREPROCESS = (
    """
<ir_version: {ir_version}, opset_import: ["" : {opset}, "headstart" : 1]>
preprocess (uint8[height, width, 3] picture) => (uint8[1, {crop}, {crop}, 3] input)
<int64 resize = {{{resize}}}, int64 reach = {{{reach}}}, int64[1] crop = {{{crop}}},
 int64[1] two = {{2}}, int64[2] sides = {{0, 1}}, int64[1] one_picture = {{0}},
 double zero = {{0.0}}, double twice = {{2.0}}>
{{
    height = Shape<start = 0, end = 1>(picture)
    width = Shape<start = 1, end = 2>(picture)
    rows = Squeeze(height)
    columns = Squeeze(width)
    shorter = Min(rows, columns)
    longer = Max(rows, columns)
    as_wanted = Equal(shorter, resize)
    not_cut = LessOrEqual(longer, reach)
    is_base = And(as_wanted, not_cut)
    square = If (is_base) <
        then_branch = middle () => (uint8[{crop}, {crop}, 3] cut_out) {{
            size = Concat<axis = 0>(height, width)
            around = Sub(size, crop)
            begin = Div(around, two)
            end = Add(begin, crop)
            cut_out = Slice(picture, begin, end, sides)
        }},
        else_branch = scaled () => (uint8[{crop}, {crop}, 3] made) {{
            down, fewer_rows = headstart.axis_weights(rows, shorter)
            across, fewer_columns = headstart.axis_weights(columns, shorter)
"""
    + LEVELS
    + """            made = Cast<to = 2>(levels)
        }}
    >
    input = Unsqueeze(square, one_picture)
}}
"""
)


# One picture that is seen whole to what the backbone takes, as `PREPROCESS`. Its whole length along
# an axis is that of the axis (`squash`) or of the longer one (`border`); there, what the picture
# does not reach has a colour of its own.
WHOLE = (
    """
<ir_version: {ir_version}, opset_import: ["" : {opset}, "headstart" : 1]>
preprocess (uint8[height, width, 3] picture) => (uint8[1, {crop}, {crop}, 3] input)
<int64 resize = {{{resize}}}, int64 least = {{{least_side}}}, int64[1] crop = {{{crop}}},
 int64[2] sides = {{0, 1}}, int64[1] one_picture = {{0}}, float half = {{0.5}},
 double zero = {{0.0}}, double twice = {{2.0}}, float one = {{1.0}},
 float[3] colour = {{{colour}}}>
{{
    height = Shape<start = 0, end = 1>(picture)
    width = Shape<start = 1, end = 2>(picture)
    rows = Squeeze(height)
    columns = Squeeze(width)
    shorter = Min(rows, columns)
    longer = Max(rows, columns)
    is_long = Equal(longer, resize)
    is_wide = GreaterOrEqual(shorter, least)
    is_base = And(is_long, is_wide)
    square = If (is_base) <
        then_branch = middle () => (uint8[{crop}, {crop}, 3] cut_out) {{
            size = Concat<axis = 0>(height, width)
            around = Sub(size, crop)
            around_float = Cast<to = 1>(around)
            begin_exact = Mul(around_float, half)
            begin_rounded = Round(begin_exact)
            begin = Cast<to = 7>(begin_rounded)
            end = Add(begin, crop)
            cut_out = Slice(picture, begin, end, sides)
        }},
        else_branch = scaled () => (uint8[{crop}, {crop}, 3] made) {{
            down, fewer_rows, seen_rows = headstart.axis_weights(rows, {of_rows})
            across, fewer_columns, seen_columns = headstart.axis_weights(columns, {of_columns})
"""
    + LEVELS
    + """            seen_across = Transpose<perm = [1, 0]>(seen_columns)
            seen_both = MatMul(seen_rows, seen_across)
            unseen = Sub(one, seen_both)
            last = Constant<value = int64[1] {{2}}>()
            unseen_levels = Unsqueeze(unseen, last)
            filled = Mul(unseen_levels, colour)
            whole = Add(levels, filled)
            made = Cast<to = 2>(whole)
        }}
    >
    input = Unsqueeze(square, one_picture)
}}
"""
)


def graph(preprocessing: Pixels | Fitted) -> onnx.ModelProto:
    """What `preprocess.py` does: uint8 `picture` [height, width, 3] to `input` [1, crop, crop, 3].

    Its levels differ from Pillow's by 1 here and there, for Pillow's weights are whole numbers, and
    now and then by 2 where bilinear weights mix bytes half and half. A picture of more than four
    times the size, which `preprocess.base` shrinks in two steps, is scaled in one here.
    """
    shorter = max(preprocessing.resize, preprocessing.crop)
    numbers = {
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "resize": shorter,
        "crop": preprocessing.crop,
        "reach": REACH * shorter,
        "support": {"nearest": 1, "bilinear": 1, "bicubic": 2, "lanczos": 3}[
            preprocessing.interpolation
        ],
        "filter": FILTERS[preprocessing.interpolation],
        "least": "resize",
        "end": "end_scaled",
        "first": FIRST,
        "seen": "",
        "mask": WEIGHTS,
    }
    first = PREPROCESS
    if isinstance(preprocessing, Fitted):
        first, squash = WHOLE, preprocessing.fit == "squash"
        numbers |= {
            "least": "one",
            "end": "size",
            "first": FIRST_OF_FITTED,
            "seen": ", seen",
            "mask": MASK,
            "colour": ", ".join(f"{level}.0" for level in colour(preprocessing)),
            "least_side": preprocessing.resize if squash else preprocessing.crop,
            "of_rows": "rows" if squash else "longer",
            "of_columns": "columns" if squash else "longer",
        }
    text = "".join(part.format(**numbers) for part in (first, AXIS, SCALE))
    return inliner.inline_local_functions(parser.parse_model(text))

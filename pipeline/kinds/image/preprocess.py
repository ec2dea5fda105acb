"""A picture is decoded and scaled once, to its base; all its views are made from that.

NumPy and Pillow only, so that whatever asks a finished model need not load what augments.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import Pixels
from . import decode
from .reading import PLAIN, Reading

REACH = 3  # a base is at most this many times as long as its shorter side


def base(data: bytes, preprocessing: Pixels, reading: Reading = PLAIN) -> NDArray[np.uint8]:
    """Decode a picture as declared and scale its shorter side to `preprocessing.resize`.

    Returns:
        [height, width, 3] of 8-bit sRGB; the shorter side is at least the crop.
    """
    shorter = max(preprocessing.resize, preprocessing.crop)
    picture = decode.decode(data, shorter, reading)
    factor = shorter / min(picture.size)
    width, height = (max(shorter, round(side * factor)) for side in picture.size)
    # A panorama is cut to its middle before it is scaled: nothing else of it is ever seen.
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    reach = REACH * shorter
    left, top = max(0, (width - reach) // 2), max(0, (height - reach) // 2)
    box = (left / factor, top / factor, (width - left) / factor, (height - top) / factor)
    box = (box[0], box[1], min(box[2], picture.width), min(box[3], picture.height))
    scaled = picture.resize(
        (width - 2 * left, height - 2 * top),
        filters[preprocessing.interpolation],
        box=box,
        reducing_gap=decode.REDUCING_GAP,
    )
    return decode.pixels(scaled)


def crop(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The square of `side` pixels in the middle."""
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]

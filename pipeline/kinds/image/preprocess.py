"""Decode and scale a picture once, to its base, from which all its views are made.

The module uses only NumPy and Pillow, so that prediction does not import augmentation libraries.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import Fitted, Pixels
from . import decode
from .reading import PLAIN, Reading

REACH = 3  # maximum aspect ratio of a base
LONGEST = 30  # maximum aspect ratio in the ONNX graph and in PyTorch
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def base(
    data: bytes, preprocessing: Pixels | Fitted, reading: Reading = PLAIN
) -> NDArray[np.uint8]:
    """Decode a picture with the read settings, and scale its shorter side to `resize`.

    For `Fitted`, both sides or the longer one are scaled: see `_whole`.

    Returns:
        [height, width, 3] of 8-bit sRGB; the shorter side is at least the crop.
    """
    if isinstance(preprocessing, Fitted):
        return _whole(data, preprocessing, reading)
    shorter = max(preprocessing.resize, preprocessing.crop)
    picture = decode.decode(data, shorter, reading)
    factor = shorter / min(picture.size)
    width, height = (max(shorter, round(side * factor)) for side in picture.size)
    # A panorama is cropped to its centre before scaling, because views show nothing else.
    reach = REACH * shorter
    left, top = max(0, (width - reach) // 2), max(0, (height - reach) // 2)
    box = (left / factor, top / factor, (width - left) / factor, (height - top) / factor)
    box = (box[0], box[1], min(box[2], picture.width), min(box[3], picture.height))
    scaled = picture.resize(
        (width - 2 * left, height - 2 * top),
        FILTERS[preprocessing.interpolation],
        box=box,
        reducing_gap=decode.REDUCING_GAP,
    )
    return decode.pixels(scaled)


def _whole(data: bytes, preprocessing: Fitted, reading: Reading) -> NDArray[np.uint8]:
    """Scale as timm's `transforms_imagenet_eval` does for the crop modes `squash` and `border`.

    All pixels are the same as in timm, except that `decode` applies colour profiles and decodes
    large JPEGs at a reduced size.
    """
    resize, crop = preprocessing.resize, preprocessing.crop
    picture = decode.decode(data, resize, reading)
    filter_ = FILTERS[preprocessing.interpolation]
    if preprocessing.fit == "squash":
        return decode.pixels(picture.resize((resize, resize), filter_))
    ratio = max(picture.size) / resize
    width, height = (max(1, round(side / ratio)) for side in picture.size)
    scaled = decode.pixels(picture.resize((width, height), filter_))
    base = np.empty((max(height, crop), max(width, crop), 3), np.uint8)
    base[:] = colour(preprocessing)
    top, left = (base.shape[0] - height) // 2, (base.shape[1] - width) // 2
    base[top : top + height, left : left + width] = scaled
    return base


def colour(preprocessing: Fitted) -> list[int]:
    """Return the colour that fills the rest of the square, which is zero after normalisation."""
    return [round(255 * level) for level in preprocessing.mean]


def crop(picture: NDArray[np.uint8], side: int, fitted: bool = False) -> NDArray[np.uint8]:
    """Return the centre crop of `side` pixels, for `Fitted` with the same rounding as timm."""
    top, left = (first(length, side, fitted) for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def first(length: int, side: int, fitted: bool) -> int:
    """Return where the central `side` pixels of an axis start."""
    return round((length - side) / 2) if fitted else (length - side) // 2

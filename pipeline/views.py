"""Views: what the backbone sees of a picture. View 0 is the picture; the plan makes the others.

A picture is decoded and scaled once (its base); each of its views is warped from that.
"""

import os
import sys
from importlib.metadata import version
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline import pictures

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network
# Its optional part for tensors imports PyTorch: seconds, for something that no view needs.
sys.modules.setdefault("albumentations.pytorch", None)  # type: ignore[arg-type]

import albumentations  # noqa: E402


class Preprocessing(NamedTuple):
    """How a backbone wants its pictures.

    resize: pixels of the shorter side before cropping; crop: side of the square cut from the
    middle; interpolation: `bicubic` or `bilinear`; mean and std: of each channel, for values
    from 0 to 1.
    """

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class View(NamedTuple):
    """One augmentation: degrees counter-clockwise, a factor, and two flips."""

    angle: float = 0.0
    scale: float = 1.0
    hflip: bool = False
    vflip: bool = False


ORIGINAL = View()

# The libraries that make the pixels: another version may make others.
LIBRARIES = " ".join(
    f"{name} {version(name)}" for name in ("pillow", "opencv-python-headless", "albumentations")
)


def base(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode a picture and scale its shorter side to `preprocessing.resize`.

    Returns:
        [height, width, 3] of 8-bit sRGB; the shorter side is at least the crop.
    """
    shorter = max(preprocessing.resize, preprocessing.crop)
    picture = pictures.decode(data, shorter_side=shorter)
    factor = shorter / min(picture.size)
    width, height = (max(shorter, round(side * factor)) for side in picture.size)
    # A panorama is cut to its middle before it is scaled: nothing else of it is ever seen.
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    reach = 3 * shorter
    left, top = max(0, (width - reach) // 2), max(0, (height - reach) // 2)
    box = (left / factor, top / factor, (width - left) / factor, (height - top) / factor)
    box = (box[0], box[1], min(box[2], picture.width), min(box[3], picture.height))
    scaled = picture.resize(
        (width - 2 * left, height - 2 * top),
        filters[preprocessing.interpolation],
        box=box,
        reducing_gap=pictures.REDUCING_GAP,
    )
    return pictures.pixels(scaled)


def apply(picture: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """Turn, scale and flip a picture about its middle, by Albumentations; same shape out.

    What the warp pulls in from outside is the picture mirrored at its edge.
    """
    steps: list[albumentations.DualTransform] = []
    if (view.angle, view.scale) != (0.0, 1.0):
        steps.append(
            albumentations.Affine(
                rotate=(view.angle, view.angle),
                scale=(view.scale, view.scale),
                interpolation=cv2.INTER_LINEAR,
                border_mode=cv2.BORDER_REFLECT_101,
                p=1,
            )
        )
    if view.hflip:
        steps.append(albumentations.HorizontalFlip(p=1))
    if view.vflip:
        steps.append(albumentations.VerticalFlip(p=1))
    for step in steps:
        picture = step(image=picture)["image"]
    return picture


def crop(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The square of `side` pixels in the middle."""
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]

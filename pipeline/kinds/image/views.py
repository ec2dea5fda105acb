"""Views: what the backbone sees of a picture. View 0 is the picture; the plan makes the others.

Each view of a picture is warped from its base (`preprocess.py`).
"""

import os
import sys
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network
# Its optional part for tensors imports PyTorch: seconds, for something that no view needs.
sys.modules.setdefault("albumentations.pytorch", None)  # type: ignore[arg-type]

import albumentations  # noqa: E402

from .. import Asked, Preprocessing  # noqa: E402
from . import ORIGINAL as UNCHANGED  # noqa: E402
from . import preprocess  # noqa: E402


class View(NamedTuple):
    """One augmentation: degrees counter-clockwise, a factor, and two flips."""

    angle: float = 0.0
    scale: float = 1.0
    hflip: bool = False
    vflip: bool = False


ORIGINAL = View(*UNCHANGED)


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


class ViewMaker:
    """Makes views on the CPU for a backbone's preprocessing; any number of threads may call it."""

    made_by = ""

    def __init__(self, preprocessing: Preprocessing) -> None:
        """Remember how the backbone wants its pictures."""
        self.preprocessing = preprocessing

    def __call__(self, asked: Asked) -> NDArray[np.uint8]:
        """The asked views of each picture, cropped, uint8 [views, side, side, 3]."""
        side = self.preprocessing.crop
        seen = []
        for data, wanted in asked:
            base = preprocess.base(data, self.preprocessing)
            seen += [preprocess.crop(apply(base, View(*view)), side) for view in wanted]
        return np.stack(seen)

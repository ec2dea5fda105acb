"""Planned views of a picture, made with Albumentations.

The module is separate from `views.py`, so that code without augmentation does not need
Albumentations.
"""

import os
import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import makes a web request
# Its optional module for tensors imports PyTorch, which takes seconds, and no view needs it. Other
# code can still import the module later.
PART = "albumentations.pytorch"
sys.modules.setdefault(PART, None)  # type: ignore[arg-type]

import albumentations  # noqa: E402

if sys.modules[PART] is None:
    del sys.modules[PART]

if TYPE_CHECKING:
    from .views import View


def warp(picture: NDArray[np.uint8], view: "View") -> NDArray[np.uint8]:
    """Rotate, scale and flip a picture about its centre; the shape stays.

    Pixels from outside the picture are mirrored at its edge.
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

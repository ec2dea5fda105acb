"""Views: what the backbone sees of a picture. View 0 is the picture; the plan makes the others.

Each view of a picture is warped from its base (`pipeline/kinds/image/preprocess.py`).
"""

import os
import sys
from importlib.metadata import version
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network
# Its optional part for tensors imports PyTorch: seconds, for something that no view needs.
sys.modules.setdefault("albumentations.pytorch", None)  # type: ignore[arg-type]

import albumentations  # noqa: E402


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

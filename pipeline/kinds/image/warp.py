"""Planned views of a picture, made with OpenCV.

The module is separate from `views.py`, so that code without augmentation does not need OpenCV.
"""

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .views import View


def warp(picture: NDArray[np.uint8], view: "View") -> NDArray[np.uint8]:
    """Rotate, scale and flip a picture about its centre; the shape stays.

    Pixels from outside the picture are mirrored at its edge. The pixels are those of Albumentations
    2.0.8 (`Affine` and the flips), which takes more than a second to import.
    """
    height, width = picture.shape[:2]
    x, y = width / 2 - 0.5, height / 2 - 0.5
    angle = math.radians(view.angle % 360)
    cosine, sine = np.cos(angle), np.sin(angle)
    to_centre = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
    rotate = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    scale = np.diag([view.scale, view.scale, 1])
    from_centre = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    matrix = to_centre @ rotate @ scale @ from_centre
    seen: NDArray[Any] = picture
    if not np.allclose(matrix, np.eye(3)):
        linear, mirrored = cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101
        seen = cv2.warpAffine(seen, matrix[:2], (width, height), flags=linear, borderMode=mirrored)
    if view.hflip:
        seen = cv2.flip(seen, 1)
    if view.vflip:
        seen = cv2.flip(seen, 0)
    return seen

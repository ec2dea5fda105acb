"""Views of a picture, the input of a backbone. View 0 is the picture; the plan has the others.

Each view of a picture is warped from its base (`preprocess.py`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import Asked, Fitted, Pixels
from . import ORIGINAL as UNCHANGED
from . import preprocess
from .reading import PLAIN, Reading


class View(NamedTuple):
    """One augmentation: degrees counter-clockwise, a factor, and two flips."""

    angle: float = 0.0
    scale: float = 1.0
    hflip: bool = False
    vflip: bool = False


ORIGINAL = View(*UNCHANGED)


def apply(picture: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """Rotate, scale and flip a picture about its centre, as in `warp`; the shape stays."""
    if view == ORIGINAL:
        return picture
    from .warp import warp

    return warp(picture, view)


class ViewMaker:
    """Makes views on the CPU for a backbone's preprocessing; thread-safe."""

    made_by = ""

    def __init__(self, preprocessing: Pixels | Fitted, reading: Reading = PLAIN) -> None:
        """Store the backbone's preprocessing and the read settings."""
        self.preprocessing, self.reading = preprocessing, reading

    def __call__(self, asked: Asked) -> NDArray[np.uint8]:
        """Make the requested views of each picture, cropped, uint8 [views, side, side, 3]."""
        side, fitted = self.preprocessing.crop, isinstance(self.preprocessing, Fitted)
        seen = []
        for data, wanted in asked:
            base = preprocess.base(data, self.preprocessing, self.reading)
            seen += [preprocess.crop(apply(base, View(*view)), side, fitted) for view in wanted]
        return np.stack(seen)

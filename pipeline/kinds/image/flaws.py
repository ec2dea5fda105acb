"""What makes a picture hardly usable, whatever it shows: blank, dark, bright, blurred, odd shape.

Blur is seen in the picture's spectrum. At any scale, a photograph has about the same detail (Field,
"Relations between the statistics of natural images", JOSA A 1987), but a blurred one has little at
the finest. So sharpness compares the two, and depends on neither contrast nor brightness.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from .. import Flaw

if TYPE_CHECKING:
    import pandas as pd

SIDE = 128  # pixels of the shorter side at which a picture is measured; smaller ones stay as is
LEAST_SIDE = 64  # pixels; the sharpness of smaller pictures is not measured
END = 0.01  # the fraction of pixels that are darker than `low`, and brighter than `high`

# Absolute limits, in grey levels from 0 to 255; a picture has to be far from the others as well.
BLANK = 8  # between low and high
DARK = 32  # high
BRIGHT = 224  # low
BLURRED = -4.5  # sharpness
LONG = 5.0  # the longer side over the shorter one


class Measures(NamedTuple):
    """Grey levels of the darkest and of the brightest part, and sharpness in octaves.

    sharpness: the energy of the Laplacian at the finest scale over that at a quarter of the scale,
    as a binary logarithm; NaN if the picture is too small.
    """

    low: int
    high: int
    sharpness: float


def measure(picture: Image.Image) -> Measures:
    """Measure a picture in RGB."""
    shorter = min(picture.size)
    grey = picture.reduce(max(1, shorter // (2 * SIDE))).convert("L")
    if (factor := SIDE / min(grey.size)) < 1:
        grey = grey.resize([round(side * factor) for side in grey.size], Image.Resampling.BOX)
    below = np.cumsum(grey.histogram())
    low, high = np.searchsorted(below, [END * below[-1], (1 - END) * below[-1]]).tolist()
    if min(grey.size) < LEAST_SIDE:
        return Measures(low, high, math.nan)
    coarse = grey.reduce(4)
    sharpness = math.log2((_detail(grey) + 0.1) / (_detail(coarse) + 0.1))  # 0.1 is rounding
    return Measures(low, high, round(sharpness, 2))


def _detail(grey: Image.Image) -> float:
    """Return the mean square of the Laplacian."""
    levels: npt.NDArray[np.int32] = np.asarray(grey, dtype=np.int32)
    inside = 4 * levels[1:-1, 1:-1] - levels[:-2, 1:-1] - levels[2:, 1:-1]
    inside -= levels[1:-1, :-2] + levels[1:-1, 2:]
    return float(np.square(inside).mean())


def flaws(table: "pd.DataFrame") -> list[Flaw]:
    """Return the flaws of pictures; `table` has width, height and `Measures`."""
    low, high, sharpness, width, height = (
        table[name].to_numpy(float) for name in (*Measures._fields, "width", "height")
    )
    return [
        Flaw("blank", np.log2(1 + high - low), math.log2(1 + BLANK)),
        Flaw("dark", np.log2(1 + high), math.log2(1 + DARK)),
        Flaw("bright", np.log2(256 - low), math.log2(256 - BRIGHT)),
        Flaw("blurred", sharpness, BLURRED),
        Flaw("of odd shape", -np.abs(np.log2(width / height)), -math.log2(LONG)),
    ]

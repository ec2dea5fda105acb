"""Cells of a picture, half of them blurred at a time: which of them speak for a class.

RISE (Petsiuk et al., BMVC 2018) draws at random which places of a picture are hidden, and asks
about thousands of such pictures. Here a design says which: that of Plackett and Burman (Biometrika,
1946), in which each cell is hidden in half of the pictures, and any two together in a quarter. So
no cell's effect is taken for another's, few pictures are enough, and nothing is drawn. The edges
are soft, as RISE's are: hard ones are things that no picture has. benchmarks/reasons.md compares.
"""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .preprocess import crop

CELLS = 7  # a side
PRIME = 59  # 4 k + 3, and at least the number of cells
BLUR = 0.1  # the standard deviation, of the picture's side


@functools.cache
def together() -> NDArray[np.bool_]:
    """The cells, row by row, that each of the pictures hides, [pictures, cells].

    Paley's construction (1933): the first row marks which numbers are squares modulo the prime, the
    others are its rotations, and the last one hides nothing. The opposites of all follow: what two
    cells do together is then not taken for what a third one does.
    """
    squares = {number * number % PRIME for number in range(PRIME)}
    first = np.array([number in squares for number in range(PRIME)])
    rows = [np.roll(first, places) for places in range(PRIME)]
    design = np.stack([*rows, np.zeros_like(first)])[:, : CELLS * CELLS]
    return np.concatenate([design, ~design])


def hidden(picture: NDArray[np.uint8], side: int, fitted: bool = False) -> list[NDArray[np.uint8]]:
    """The picture with the cells of each row of `together` blurred.

    Args:
        picture: uint8 [height, width, 3], as the graph takes it.
        side: of the square in its middle that the backbone sees, in pixels.
        fitted: whether the picture is prepared as `Fitted` says; then all of it stays.

    Returns:
        pictures as high as wide, of whose middle the graph makes the same as of the whole one's.
    """
    shorter = min(picture.shape[:2])
    top, left = ((length - side) // 2 - (shorter - side) // 2 for length in picture.shape[:2])
    square = picture if fitted else picture[top : top + shorter, left : left + shorter]
    seen = Image.fromarray(crop(square, side, fitted))
    blurred = seen.filter(ImageFilter.GaussianBlur(BLUR * side))
    found = []
    for cells in together():
        mask = Image.fromarray(255 * as_map(cells).astype(np.uint8))
        soft = mask.resize((side, side), Image.Resampling.BILINEAR)
        one = square.copy()
        crop(one, side, fitted)[:] = np.asarray(Image.composite(blurred, seen, soft))
        found.append(one)
    return found


def as_map(cells: NDArray[Any]) -> NDArray[Any]:
    """What is known of each cell, [cells], as a map [h, w]."""
    return cells.reshape(CELLS, CELLS)

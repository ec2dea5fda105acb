"""Cells of a picture that are evidence for a class, found by blurring about half at a time.

RISE (Petsiuk et al., BMVC 2018) hides random parts of a picture, and needs predictions for
thousands of masked pictures. This module uses a Plackett-Burman design (Biometrika, 1946) instead,
in which each cell is hidden in half of the pictures, and any two cells together in a quarter. So
the effects of cells are not confounded, few pictures are enough, and nothing is random. The edges
of masks are soft, as in RISE, because hard edges do not occur in pictures. benchmarks/reasons.md
compares the methods.
"""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .preprocess import crop

CELLS = 7  # per side
PRIME = 59  # 4 k + 3, and at least the number of cells
BLUR = 0.1  # the standard deviation, as a fraction of the picture's side


@functools.cache
def together() -> NDArray[np.bool_]:
    """Return which cells, row by row, each picture hides, [pictures, cells].

    The design is Paley's construction (1933): the first row marks the squares modulo the prime, the
    next ones are its rotations, and the last one hides nothing. The complements of all rows follow
    (a foldover), so that interactions of two cells are not confounded with the effect of a third.
    """
    squares = {number * number % PRIME for number in range(PRIME)}
    first = np.array([number in squares for number in range(PRIME)])
    rows = [np.roll(first, places) for places in range(PRIME)]
    design = np.stack([*rows, np.zeros_like(first)])[:, : CELLS * CELLS]
    return np.concatenate([design, ~design])


def hidden(picture: NDArray[np.uint8], side: int, fitted: bool = False) -> list[NDArray[np.uint8]]:
    """Return the picture with the cells of each row of `together` blurred.

    Args:
        picture: uint8 [height, width, 3], the input of the graph.
        side: side in pixels of the centre crop that the backbone sees.
        fitted: whether the preprocessing is `Fitted`; if so, the picture is not cropped.

    Returns:
        pictures, square unless `fitted`. Apart from the blur, the graph makes the same input from
        each as from the whole picture.
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
    """Reshape values per cell, [cells], to a map [h, w]."""
    return cells.reshape(CELLS, CELLS)

"""Segments of time that are evidence for a class, found by hiding them or by activation maps."""

import itertools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .. import Input, Shown
from .show import RATE, coloured, picture, png
from .views import heard_of
from .windows import inputs, rate_of

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

SHORTEST = 0.06  # seconds of a segment, a short syllable
MOST = 24  # segments per sound
# Inputs for all segments. Long sounds have fewer and longer segments, but no fewer than 4, so the
# longest sounds exceed this number.
MOST_INPUTS = 192
FADE = 0.005  # seconds of fading out and in, to avoid clicks
SIDE = 224  # default side of a picture in pixels
TINT = np.array((232, 84, 20))  # the colour of evidence for the class
BAR = 0.06  # fraction of the picture's height, for the bar of weights below


def stretches(seconds: float, windows: int) -> int:
    """Return the number of segments of a sound with `windows` inputs."""
    most = max(4, min(MOST, MOST_INPUTS // windows))
    return max(1, min(most, int(seconds / SHORTEST)))


def hidden(data: bytes, preprocessing: Input) -> list[NDArray[np.float32] | NDArray[np.uint8]]:
    """Return inputs made from a sound, in each of which one segment is silent.

    Raises:
        RefusedError: as in `decode.decode`.
    """
    rate = rate_of(preprocessing)
    samples = heard_of(data, rate)
    count = stretches(len(samples) / rate, len(inputs(samples, preprocessing)))
    edges = np.linspace(0, len(samples), count + 1).round().astype(int)
    fade = round(FADE * rate)
    places = np.arange(len(samples))
    found = []
    for start, end in itertools.pairwise(edges):
        distance = np.maximum(start - places, places - (end - 1))  # 0 or less inside the segment
        loud = np.clip(distance / fade, 0, 1).astype(np.float32)
        found.append(inputs(samples * loud, preprocessing))
    return found


def marked(data: bytes, weights: NDArray[np.float32], side: int | None) -> Shown:
    """Draw the spectrogram with segments tinted by their weights, and a bar of weights below.

    Args:
        weights: [segments], from 0 to 1.
        side: side of the picture in pixels; `SIDE` if None.
    """
    side = side or SIDE
    bar = max(4, round(BAR * side))
    drawn = picture(heard_of(data, RATE), side, side - bar)
    across = weights[np.arange(side) * len(weights) // side]
    drawn = tinted(drawn, np.broadcast_to(across, drawn.shape[:2]))
    beneath = tinted(np.full((bar, side, 3), 255, np.uint8), np.broadcast_to(across, (bar, side)))
    return Shown("image/png", png(np.concatenate([drawn, beneath])))


def overlaid(windows: Bytes, heat: NDArray[np.float32], side: int | None) -> Shown:
    """Draw a backbone's input pictures [w, crop, crop, 3] side by side, with the map over them.

    `heat` [h, w · columns] is from 0 to 1. With a `side`, the picture is square.
    """
    joined = np.concatenate(list(windows[..., 0]), axis=1)
    height, width = joined.shape
    size = (side, side) if side else (width, height)
    base = Image.fromarray(coloured(joined)).resize(size)
    levels = Image.fromarray(np.round(255 * heat).astype(np.uint8))
    spread = np.asarray(levels.resize(size, Image.Resampling.BILINEAR)) / 255
    return Shown("image/png", png(tinted(np.asarray(base), spread)))


def tinted(pixels: Bytes, weights: NDArray[np.floating]) -> Bytes:
    """Multiply pixels [h, w, 3] by `TINT`, with 0.85 times the weights [h, w] as opacity."""
    opacity = np.asarray(weights)[..., None] * 0.85
    mixed = pixels * (1 - opacity * (1 - TINT / 255))
    return np.round(mixed).astype(np.uint8)

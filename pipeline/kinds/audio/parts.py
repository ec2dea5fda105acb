"""Which stretch of time speaks for a class: stretches are hidden in turn, or a map is laid over."""

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

SHORTEST = 0.06  # seconds of a stretch, a short syllable
MOST = 24  # stretches of a sound
MOST_INPUTS = 192  # of a backbone, for all stretches together; a long sound has fewer, longer ones
FADE = 0.005  # seconds in which a sound goes down to silence and comes back: no click is heard
SIDE = 224  # pixels of a picture, by default
TINT = np.array((232, 84, 20))  # of what speaks for the class
BAR = 0.06  # of a picture's height, for the weights beneath it


def stretches(seconds: float, windows: int) -> int:
    """The number of stretches into which a sound of `windows` inputs is divided."""
    most = max(4, min(MOST, MOST_INPUTS // windows))
    return max(1, min(most, int(seconds / SHORTEST)))


def hidden(data: bytes, preprocessing: Input) -> list[NDArray[np.float32] | NDArray[np.uint8]]:
    """The inputs of a sound with one stretch after the other silent.

    Raises:
        RefusedError: as `decode.decode`.
    """
    rate = rate_of(preprocessing)
    samples = heard_of(data, rate)
    count = stretches(len(samples) / rate, len(inputs(samples, preprocessing)))
    edges = np.linspace(0, len(samples), count + 1).round().astype(int)
    fade = round(FADE * rate)
    places = np.arange(len(samples))
    found = []
    for start, end in itertools.pairwise(edges):
        distance = np.maximum(start - places, places - (end - 1))  # 0 and less inside
        loud = np.clip(distance / fade, 0, 1).astype(np.float32)
        found.append(inputs(samples * loud, preprocessing))
    return found


def marked(data: bytes, weights: NDArray[np.float32], side: int | None) -> Shown:
    """The spectrogram, tinted where a stretch counts, and its weight as a bar beneath.

    Args:
        data: the sound's file.
        weights: [stretches], from 0 to 1.
        side: pixels of a small picture; None for one of `SIDE`.
    """
    side = side or SIDE
    bar = max(4, round(BAR * side))
    drawn = picture(heard_of(data, RATE), side, side - bar)
    across = weights[np.arange(side) * len(weights) // side]
    drawn = tinted(drawn, np.broadcast_to(across, drawn.shape[:2]))
    beneath = tinted(np.full((bar, side, 3), 255, np.uint8), np.broadcast_to(across, (bar, side)))
    return Shown("image/png", png(np.concatenate([drawn, beneath])))


def overlaid(windows: Bytes, heat: NDArray[np.float32], side: int | None) -> Shown:
    """The pictures that a backbone saw [w, crop, crop, 3], beside each other, under their map.

    `heat` [h, w · columns] is from 0 to 1. The picture is as high as it is wide with a `side`.
    """
    joined = np.concatenate(list(windows[..., 0]), axis=1)
    height, width = joined.shape
    size = (side, side) if side else (width, height)
    base = Image.fromarray(coloured(joined)).resize(size)
    levels = Image.fromarray(np.round(255 * heat).astype(np.uint8))
    spread = np.asarray(levels.resize(size, Image.Resampling.BILINEAR)) / 255
    return Shown("image/png", png(tinted(np.asarray(base), spread)))


def tinted(pixels: Bytes, weights: NDArray[np.floating]) -> Bytes:
    """Pixels [h, w, 3] multiplied by `TINT` as far as the weights [h, w] say."""
    opacity = np.asarray(weights)[..., None] * 0.85
    mixed = pixels * (1 - opacity * (1 - TINT / 255))
    return np.round(mixed).astype(np.uint8)

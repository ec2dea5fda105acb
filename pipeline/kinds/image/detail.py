"""Detail: whether two pictures that look alike from afar are one, once laid over each other.

Patches of one wall, handwritten digits and drawings of one thing are alike from afar and no copies.
Two questions tell them from copies:

- How much do the two share? A few smooth shapes agree by chance, a thousand details do not.
  `information` counts it, in nats, as for a Gaussian channel: the correlation of each octave of
  frequencies, times the octave's degrees of freedom.
- Do they disagree anywhere by more than saving, scaling and brightening explain? The worst of
  sixteen fields decides, so two clocks that show other times are not one.

`benchmarks/alarms.md` has what is found, and on which sets the limits were chosen.
"""

from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from .decode import decode, pixels

Floats = npt.NDArray[np.float32]

# Pixels a side of a picture as it is laid over another, and of the two as they are compared.
SIDE, GRID = 128, 64
# By how many pixels of `SIDE` a place or size that thumbnails gave may be moved to fit better.
MOVE, RESIZE = 4, 3
# Smallest part of a picture that is laid over another, in pixels of `SIDE`: about four fifths.
SMALLEST = 100
# Weights of red, green and blue in grey.
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)

# Least information of a copy, in nats. Pairs of bricks share 52 by chance, coarse JPEGs of flat
# patches as much; JPEGs of quality 70 of 64-pixel patches share 100 and more, photographs 400.
LEAST_INFORMATION = 50.0
# Octaves of frequency, in periods a side; above are pixels that a scaled copy does not have.
OCTAVES = (1, 3, 6, 12, 24)
# Grey levels (standard deviation) of noise that every picture is taken to have.
NOISE = 1.0
# Correlations count as at most this, squared: no file holds more.
MOST_AGREEMENT = 0.999

# What is compared field by field: details between these two blurs (standard deviation, in pixels).
FINE, COARSE = 1.0, 4.0
FIELDS = 4  # a side


class Limits(NamedTuple):
    """The most that copies differ: grey levels, and a share of the detail that is there."""

    levels: float
    share: float


# A JPEG of quality 30 differs by 5 levels. Tiny pictures are seldom saved so, and a digit may be
# as like another as that, so of these only nearly identical ones are copies.
DETAIL, TINY_DETAIL, TINY = Limits(5.0, 0.3), Limits(2.5, 0.2), 48
# The same for colours, on a grid of `COLOURS` a side.
COLOUR, COLOURS = Limits(5.0, 0.2), 12
# A picture whose colours are fainter (root mean square) is grey.
COLOURLESS = 2.0
# Contrast of a copy over that of the other: what a brightened picture has. Of a picture made grey
# the contrast stays, and grey levels too.
MOST_GAIN, MADE_GREY = 2.0, (1.1, 12.0)


class Place(NamedTuple):
    """How a picture lies on another, in pixels of thumbnails: mirrored, and which is the part."""

    mirrored: bool
    swapped: bool
    size: int
    left: int
    top: int


class Opened(NamedTuple):
    """A picture squeezed to uint8 [SIDE, SIDE, 3], and the shorter side it had, SIDE at most."""

    squeezed: npt.NDArray[np.uint8]
    shorter_side: int


def opened(data: bytes) -> Opened:
    """The picture as it is laid over another."""
    picture = pixels(decode(data, shorter_side=SIDE))
    shorter = min(picture.shape[:2])
    how = cv2.INTER_AREA if shorter >= SIDE else cv2.INTER_CUBIC
    squeezed = cv2.resize(picture, (SIDE, SIDE), interpolation=how)
    return Opened(squeezed.astype(np.uint8), min(shorter, SIDE))


def same(one: Opened, other: Opened, place: Place, thumbnail: int) -> bool:
    """Whether two pictures are one; `place` is in pixels of thumbnails of that side."""
    first, second = laid(one, other, place, thumbnail)
    if information(first @ GREY, second @ GREY) < LEAST_INFORMATION:
        return False
    tiny = max(one.shorter_side, other.shorter_side) < TINY
    return agree(first, second, TINY_DETAIL if tiny else DETAIL)


def laid(one: Opened, other: Opened, place: Place, thumbnail: int) -> tuple[Floats, Floats]:
    """What the two show both, as [GRID, GRID, 3] each, laid as well as `MOVE` and `RESIZE` let."""
    first, second = one.squeezed.astype(np.float32), other.squeezed.astype(np.float32)
    if place.mirrored:
        first = np.ascontiguousarray(first[:, ::-1])
    whole, part = (second, first) if place.swapped else (first, second)
    grey_whole, grey_part = whole @ GREY, part @ GREY
    times = SIDE // thumbnail
    best = (-2.0, 0, 0, 0)
    middle = times * place.size
    for size in range(max(SMALLEST, middle - RESIZE), min(SIDE, middle + RESIZE) + 1):
        small = cv2.resize(grey_part, (size, size), interpolation=cv2.INTER_AREA)
        left, right = _window(times * place.left, size)
        top, bottom = _window(times * place.top, size)
        fit = cv2.matchTemplate(grey_whole[top:bottom, left:right], small, cv2.TM_CCOEFF_NORMED)
        down, across = np.unravel_index(int(np.nan_to_num(fit, posinf=0).argmax()), fit.shape)
        best = max(best, (float(fit[down, across]), size, left + int(across), top + int(down)))
    _, size, left, top = best
    seen = np.ascontiguousarray(whole[top : top + size, left : left + size])
    return _scaled(part, GRID), _scaled(seen, GRID)


def _window(start: int, size: int) -> tuple[int, int]:
    """From where to where a part of `size` may lie that should start near `start`."""
    first = min(max(0, start - MOVE), SIDE - size)
    return first, max(first + size, min(SIDE, start + size + MOVE + 1))


def _scaled(picture: Floats, side: int) -> Floats:
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)


def information(one: Floats, other: Floats) -> float:
    """What two grey pictures [GRID, GRID] share, in nats.

    An octave adds -n/2 ln(1 - r²): r is the correlation of its frequencies, and n how many of them
    there are, counted by their power (the participation ratio), so that a stripe has few.
    """
    first, second = (np.fft.fft2((grey - grey.mean()) * TAPER)[RINGS] for grey in (one, other))
    total = 0.0
    for octave in OCTAVE:
        here, there = first[octave], second[octave]
        power, powers = np.square(np.abs(here)), np.square(np.abs(there))
        noise = len(here) * float(np.square(TAPER).sum()) * NOISE**2
        common = float((here * there.conj()).real.sum())
        agreement = common / float(np.sqrt((power.sum() + noise) * (powers.sum() + noise)))
        if agreement > 0:
            freedom = float(power.sum() * powers.sum() / (power * powers).sum())
            total -= freedom / 2 * np.log(1 - min(agreement**2, MOST_AGREEMENT))
    return total


def _octaves() -> tuple[Floats, npt.NDArray[np.bool_], list[npt.NDArray[np.bool_]]]:
    """A taper [GRID, GRID] to the edges; which frequencies count; of these, each octave's."""
    slope = np.sqrt(np.hanning(GRID + 2)[1:-1])
    periods = np.fft.fftfreq(GRID) * GRID
    radius = np.hypot(periods[:, None], periods)
    counted = (radius >= OCTAVES[0]) & (radius < OCTAVES[-1])
    steps = pairwise(OCTAVES)
    each = [(radius[counted] >= low) & (radius[counted] < high) for low, high in steps]
    return np.outer(slope, slope).astype(np.float32), counted, each


TAPER, RINGS, OCTAVE = _octaves()


def agree(one: Floats, other: Floats, limits: Limits) -> bool:
    """Whether one picture [GRID, GRID, 3] is the other, but for brightness, contrast and noise.

    The one of less contrast is brightened to fit, and cut off at white as a brightened one is.
    """
    if (one @ GREY).std() < (other @ GREY).std():
        one, other = other, one
    grey, plain = one @ GREY, other @ GREY
    gain, offset = _brightening(plain, grey)
    if gain > MOST_GAIN:
        return False
    fitted = np.clip(gain * plain + offset, 0, 255).astype(np.float32)
    sharp, fitted_sharp = _detail(grey), _detail(fitted)
    apart = _fields(np.square(sharp - fitted_sharp))
    there = (_fields(np.square(sharp)) + _fields(np.square(fitted_sharp))) / 2
    if (apart > limits.levels**2 + limits.share**2 * there).any():
        return False
    tint = _scaled(one - grey[..., None], COLOURS)
    fitted_tint = _scaled(np.clip(gain * other + offset, 0, 255) - fitted[..., None], COLOURS)
    strong, weak = sorted((_strength(tint), _strength(fitted_tint)), reverse=True)
    if _strength(tint - fitted_tint) <= COLOUR.levels + COLOUR.share * strong:
        return True
    most_gain, most_offset = MADE_GREY
    return weak < COLOURLESS and gain < most_gain and abs(offset) < most_offset


def _brightening(plain: Floats, bright: Floats) -> tuple[float, float]:
    """Gain and offset that make `plain` most like `bright` where that is not black or white."""
    inside = (bright > 3) & (bright < 252)
    if inside.mean() < 0.05:
        inside = np.ones_like(inside)
    x, y = plain[inside].astype(np.float64), bright[inside].astype(np.float64)
    spread = float(np.square(x - x.mean()).mean())
    gain = float(((x - x.mean()) * (y - y.mean())).mean()) / max(spread, 1e-6)
    return gain, float(y.mean() - gain * x.mean())


def _detail(grey: Floats) -> Floats:
    fine, coarse = (cv2.GaussianBlur(grey, (0, 0), blur) for blur in (FINE, COARSE))
    return (fine - coarse).astype(np.float32)


def _fields(values: Floats) -> Floats:
    """Means [FIELDS, FIELDS] of values [GRID, GRID]."""
    side = GRID // FIELDS
    means: Floats = values.reshape(FIELDS, side, FIELDS, side).mean(axis=(1, 3))
    return means


def _strength(tint: Floats) -> float:
    """Root mean square of a picture's colours less its grey [n, n, 3]."""
    return float(np.sqrt(np.square(tint).sum(axis=2).mean()))

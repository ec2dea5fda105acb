"""Detail: whether two pictures that look alike from afar are one, once laid over each other.

Patches of one wall, handwritten digits and drawings of one thing are alike from afar and no copies.
Two questions distinguish them from copies:

- How much do the two share? A few smooth shapes agree by chance, a thousand details do not.
  `information` counts it, in nats, as for a Gaussian channel: the correlation of each octave of
  frequencies, times the octave's degrees of freedom.
- Do they disagree anywhere by more than saving, scaling and brightening explain? The worst of
  sixteen fields decides, so two clocks that show other times are not one.

`benchmarks/alarms.md` has what is found, and on which sets the limits were chosen.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import fft2

from .decode import decode, pixels
from .reading import PLAIN, Reading

Floats = npt.NDArray[np.float32]

# Pixels a side of a picture as it is laid over another, and of the two as they are compared.
SIDE, GRID = 128, 64
# By how many pixels of `GRID`, then of `SIDE`, a place or size may be moved to fit better.
MOVES = {GRID: 2, SIDE: 2}
# Smallest part of a picture that is laid over another: about four fifths of a side.
SMALLEST = 0.78
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
    """The most that copies differ: grey levels, and a fraction of the detail that is there."""

    levels: float
    fraction: float


# A JPEG of quality 30 differs by 5 levels. Tiny pictures are seldom saved so, and a digit may be
# as like another as that, so of these only nearly identical ones are copies.
DETAIL, TINY_DETAIL, TINY = Limits(5.0, 0.3), Limits(2.5, 0.2), 48
# Differences over the most that copies have: where levels disagree; that no better place cures.
OTHERWISE, HOPELESS = 2.0, 12.0
# The same for grey levels and colours on a grid of `COLOURS` a side: hearts of two colours differ.
LEVEL, COLOUR, COLOURS = Limits(5.0, 0.1), Limits(5.0, 0.1), 12
# A picture whose colours are fainter (root mean square) is grey.
COLOURLESS = 2.0
# Contrast of a copy over that of the other, and the grey levels that are added. A picture made grey
# keeps both.
BRIGHTER, MADE_GREY = (2.0, 60.0), (1.1, 12.0)


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


def opened(data: bytes, reading: Reading = PLAIN) -> Opened:
    """The picture as it is laid over another."""
    # A JPEG may be decoded at a half, a quarter or an eighth that still has SIDE pixels a side.
    picture = pixels(decode(data, SIDE // 2, reading))
    shorter = min(picture.shape[:2])
    how = cv2.INTER_AREA if shorter >= SIDE else cv2.INTER_CUBIC
    squeezed = cv2.resize(picture, (SIDE, SIDE), interpolation=how)
    return Opened(squeezed.astype(np.uint8), min(shorter, SIDE))


def same(one: Opened, other: Opened, place: Place, thumbnail: int) -> bool:
    """Whether two pictures are one; `place` is in pixels of thumbnails of that side."""
    tiny = max(one.shorter_side, other.shorter_side) < TINY
    limits = TINY_DETAIL if tiny else DETAIL
    for first, second in laid(one, other, place, thumbnail):
        apart = disagreement(first, second, limits)
        if apart > HOPELESS:
            return False
        if apart <= 1:
            return information(first @ GREY, second @ GREY) >= LEAST_INFORMATION
    return False


def laid(
    one: Opened, other: Opened, place: Place, thumbnail: int
) -> Iterator[tuple[Floats, Floats]]:
    """What the two show both, as [GRID, GRID, 3] each, laid as well as each of `MOVES` lets."""
    first, second = one.squeezed, other.squeezed
    if place.mirrored:
        first = np.ascontiguousarray(first[:, ::-1])
    whole, part = (second, first) if place.swapped else (first, second)
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (whole, part)]
    grey_whole, grey_part = (grey.astype(np.float32) for grey in greys)
    size, left, top, known = place.size, place.left, place.top, thumbnail
    for side, move in MOVES.items():
        times = side // known
        wholes, parts = _scaled(grey_whole, side), _scaled(grey_part, side)
        size, left, top = _fit(wholes, parts, times * size, times * left, times * top, move)
        known = side
        fine = SIDE // side
        seen = whole[fine * top : fine * (top + size), fine * left : fine * (left + size)]
        yield _scaled(part, GRID), _scaled(np.ascontiguousarray(seen), GRID)


def _fit(
    whole: Floats, part: Floats, size: int, left: int, top: int, move: int
) -> tuple[int, int, int]:
    """Size and place (left, top) of the part on the whole, the best within `move` of the given."""
    side = len(whole)
    best = (-2.0, 0, 0, 0)
    least = max(round(SMALLEST * side), size - move)
    for tried in range(least, max(least, min(side, size + move)) + 1):
        small = cv2.resize(part, (tried, tried), interpolation=cv2.INTER_AREA)
        (x, right), (y, bottom) = (_window(at, tried, move, side) for at in (left, top))
        fit = cv2.matchTemplate(whole[y:bottom, x:right], small, cv2.TM_CCOEFF_NORMED)
        fit[~np.isfinite(fit)] = 0  # where the window is flat
        _, value, _, (across, down) = cv2.minMaxLoc(fit)
        best = max(best, (value, tried, x + across, y + down))
    return best[1:]


def _window(start: int, size: int, move: int, side: int) -> tuple[int, int]:
    """From where to where a part of `size` may lie that should start near `start`."""
    first = min(max(0, start - move), side - size)
    return first, max(first + size, min(side, start + size + move))


def _scaled(picture: Floats | npt.NDArray[np.uint8], side: int) -> Floats:
    wide = picture.astype(np.float32)
    return cv2.resize(wide, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)


def information(one: Floats, other: Floats) -> float:
    """What two grey pictures [GRID, GRID] share, in nats.

    An octave adds -n/2 ln(1 - r²): r is the correlation of its frequencies, and n how many of them
    there are, counted by their power (the participation ratio), so that a stripe has few.
    """
    first, second = (fft2((grey - grey.mean()) * TAPER).ravel()[RINGS] for grey in (one, other))
    powers, others = (np.square(part.real) + np.square(part.imag) for part in (first, second))
    common = first.real * second.real + first.imag * second.imag
    total = 0.0
    for start, end in pairwise(STARTS):
        power, other_power = powers[start:end], others[start:end]
        noise = (end - start) * FLOOR
        level, other_level = float(power.sum()), float(other_power.sum())
        agreement = float(common[start:end].sum()) / math.sqrt(
            (level + noise) * (other_level + noise)
        )
        if agreement > 0:
            freedom = level * other_level / float(power @ other_power)
            total -= freedom / 2 * math.log(1 - min(agreement**2, MOST_AGREEMENT))
    return total


def _octaves() -> tuple[Floats, npt.NDArray[np.int64], list[int]]:
    """A taper [GRID, GRID] to the edges; where the frequencies lie, by octave; each one's start."""
    slope = np.sqrt(np.hanning(GRID + 2)[1:-1])
    periods = np.fft.fftfreq(GRID) * GRID
    octave = np.digitize(np.hypot(periods[:, None], periods).ravel(), OCTAVES)
    places = np.argsort(octave, kind="stable")
    starts = np.searchsorted(octave[places], range(1, len(OCTAVES) + 1)).tolist()
    taper = np.outer(slope, slope).astype(np.float32)
    return taper, places[: starts[-1]], starts


TAPER, RINGS, STARTS = _octaves()
FLOOR = float(np.square(TAPER).sum()) * NOISE**2  # power of the noise, a frequency


def disagreement(one: Floats, other: Floats, limits: Limits) -> float:
    """By how much two pictures [GRID, GRID, 3] differ, but for brightness and contrast.

    At most 1 if saving and scaling explain it, `OTHERWISE` if grey levels or colours do not
    agree. The one of less contrast is brightened to fit, and cut off at white as a brightened one.
    """
    if (one @ GREY).std() < (other @ GREY).std():
        one, other = other, one
    grey, plain = one @ GREY, other @ GREY
    gain, offset = _brightening(plain, grey)
    if gain > BRIGHTER[0] or abs(offset) > BRIGHTER[1]:
        return OTHERWISE
    fitted = np.clip(gain * plain + offset, 0, 255).astype(np.float32)
    sharp, fitted_sharp = _detail(grey), _detail(fitted)
    apart = _fields(np.square(sharp - fitted_sharp))
    there = (_fields(np.square(sharp)) + _fields(np.square(fitted_sharp))) / 2
    worst = float((apart / (limits.levels**2 + limits.fraction**2 * there)).max())
    if worst > 1:
        return worst
    level = float(np.sqrt(np.square(_scaled(grey - fitted, COLOURS)).mean()))
    if level > LEVEL.levels + LEVEL.fraction * float(grey.std()):
        return OTHERWISE
    tint = _scaled(one - grey[..., None], COLOURS)
    fitted_tint = _scaled(np.clip(gain * other + offset, 0, 255) - fitted[..., None], COLOURS)
    strong, weak = sorted((_strength(tint), _strength(fitted_tint)), reverse=True)
    if _strength(tint - fitted_tint) <= COLOUR.levels + COLOUR.fraction * strong:
        return worst
    most_gain, most_offset = MADE_GREY
    made_grey = weak < COLOURLESS and gain < most_gain and abs(offset) < most_offset
    return worst if made_grey else OTHERWISE


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
    """Root mean square of a picture's colours minus its grey [n, n, 3]."""
    return float(np.sqrt(np.square(tint).sum(axis=2).mean()))

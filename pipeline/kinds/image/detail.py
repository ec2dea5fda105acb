"""Detail: whether two pictures with similar thumbnails are copies, once aligned.

Patches of the same wall, handwritten digits and drawings of the same thing have similar thumbnails
and are not copies. Two tests distinguish them from copies:

- How much do the two share? A few smooth shapes agree by chance, a thousand details do not.
  `information` measures it in nats, as for a Gaussian channel, from the correlation of each octave
  of spatial frequencies and the octave's degrees of freedom.
- Do they differ anywhere by more than compression, scaling and brightening explain? The worst of
  sixteen fields decides, so two clocks that show different times are not copies.

`benchmarks/alarms.md` has the detection rates, and the data sets on which the limits were chosen.
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

# Sides in pixels: of pictures during alignment, and of the aligned pictures during comparison.
SIDE, GRID = 128, 64
# By how many pixels a place or size may change for a better match, at `GRID`, then at `SIDE`.
MOVES = {GRID: 2, SIDE: 2}
# Smallest part of a picture that may match another: about four fifths of a side.
SMALLEST = 0.78
# Weights of red, green and blue in grey.
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)

# Minimum information of copies, in nats. Pairs of bricks share 52 by chance, and so do coarse JPEGs
# of flat patches; JPEGs of quality 70 of 64-pixel patches share 100 or more, photographs 400.
LEAST_INFORMATION = 50.0
# Limits of the octaves, in periods per side; scaled copies lack higher frequencies.
OCTAVES = (1, 3, 6, 12, 24)
# Standard deviation, in grey levels, of the noise assumed in every picture.
NOISE = 1.0
# Upper limit of squared correlations: no file is more precise.
MOST_AGREEMENT = 0.999

# Fields are compared in the detail between two blurs (standard deviations in pixels).
FINE, COARSE = 1.0, 4.0
FIELDS = 4  # per side


class Limits(NamedTuple):
    """How much copies may differ at most, in grey levels and as a fraction of the detail."""

    levels: float
    fraction: float


# A JPEG of quality 30 differs by 5 levels. Tiny pictures are rarely saved like this, and different
# digits may differ as little, so tiny pictures must be nearly identical to be copies.
DETAIL, TINY_DETAIL, TINY = Limits(5.0, 0.3), Limits(2.5, 0.2), 48
# Differences relative to the limits: if levels or colours differ; if no alignment can help.
OTHERWISE, HOPELESS = 2.0, 12.0
# Limits for grey levels and colours, on a grid of `COLOURS` per side: hearts may differ in colour.
LEVEL, COLOUR, COLOURS = Limits(5.0, 0.1), Limits(5.0, 0.1), 12
# Root mean square of the colours below which a picture is grey.
COLOURLESS = 2.0
# Maximum gain and offset (grey levels) of brightening. Conversion to grey hardly changes either.
BRIGHTER, MADE_GREY = (2.0, 60.0), (1.1, 12.0)


class Place(NamedTuple):
    """The alignment of two pictures, in pixels of thumbnails; `swapped`: the first is the part."""

    mirrored: bool
    swapped: bool
    size: int
    left: int
    top: int


class Opened(NamedTuple):
    """A picture resized to uint8 [SIDE, SIDE, 3], and its original shorter side, at most SIDE."""

    squeezed: npt.NDArray[np.uint8]
    shorter_side: int


def opened(data: bytes, reading: Reading = PLAIN) -> Opened:
    """Decode and resize a picture for alignment."""
    # A JPEG may be decoded at a reduced size that still has SIDE pixels per side.
    picture = pixels(decode(data, SIDE // 2, reading))
    shorter = min(picture.shape[:2])
    how = cv2.INTER_AREA if shorter >= SIDE else cv2.INTER_CUBIC
    squeezed = cv2.resize(picture, (SIDE, SIDE), interpolation=how)
    return Opened(squeezed.astype(np.uint8), min(shorter, SIDE))


def same(one: Opened, other: Opened, place: Place, thumbnail: int) -> bool:
    """Return whether two pictures are copies; `thumbnail` is the side that `place` refers to."""
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
    """Yield the common parts [GRID, GRID, 3] of both, aligned with each of `MOVES`."""
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
    """Return the best size and place (left, top) of the part, within `move` of the given values."""
    side = len(whole)
    best = (-2.0, 0, 0, 0)
    least = max(round(SMALLEST * side), size - move)
    for tried in range(least, max(least, min(side, size + move)) + 1):
        small = cv2.resize(part, (tried, tried), interpolation=cv2.INTER_AREA)
        (x, right), (y, bottom) = (_window(at, tried, move, side) for at in (left, top))
        fit = cv2.matchTemplate(whole[y:bottom, x:right], small, cv2.TM_CCOEFF_NORMED)
        fit[~np.isfinite(fit)] = 0  # if the window is flat
        _, value, _, (across, down) = cv2.minMaxLoc(fit)
        best = max(best, (value, tried, x + across, y + down))
    return best[1:]


def _window(start: int, size: int, move: int, side: int) -> tuple[int, int]:
    """Return the range of pixels for a part of `size` that starts near `start`."""
    first = min(max(0, start - move), side - size)
    return first, max(first + size, min(side, start + size + move))


def _scaled(picture: Floats | npt.NDArray[np.uint8], side: int) -> Floats:
    wide = picture.astype(np.float32)
    return cv2.resize(wide, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)


def information(one: Floats, other: Floats) -> float:
    """Return the mutual information of two grey pictures [GRID, GRID], in nats.

    An octave adds -n/2 ln(1 - r²). Here r is the correlation of its frequencies, and n their
    effective number (the participation ratio of their power), which is small for stripes.
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
    """Return a window function [GRID, GRID], the frequencies sorted by octave, and the starts."""
    slope = np.sqrt(np.hanning(GRID + 2)[1:-1])
    periods = np.fft.fftfreq(GRID) * GRID
    octave = np.digitize(np.hypot(periods[:, None], periods).ravel(), OCTAVES)
    places = np.argsort(octave, kind="stable")
    starts = np.searchsorted(octave[places], range(1, len(OCTAVES) + 1)).tolist()
    taper = np.outer(slope, slope).astype(np.float32)
    return taper, places[: starts[-1]], starts


TAPER, RINGS, STARTS = _octaves()
FLOOR = float(np.square(TAPER).sum()) * NOISE**2  # power of the noise per frequency


def disagreement(one: Floats, other: Floats, limits: Limits) -> float:
    """Return the difference of two pictures [GRID, GRID, 3] apart from brightness and contrast.

    The difference is at most 1 if compression and scaling explain it, and `OTHERWISE` if grey
    levels or colours do not agree. The picture with less contrast is brightened to match the other,
    and clipped at white.
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
    """Fit gain and offset from `plain` to `bright`, where `bright` is not black or white."""
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
    """Return the means [FIELDS, FIELDS] of values [GRID, GRID]."""
    side = GRID // FIELDS
    means: Floats = values.reshape(FIELDS, side, FIELDS, side).mean(axis=(1, 3))
    return means


def _strength(tint: Floats) -> float:
    """Return the root mean square of `tint` [n, n, 3], a picture's colours minus its grey."""
    return float(np.sqrt(np.square(tint).sum(axis=2).mean()))

"""Copies: whether two pictures are the same, by template matching of their thumbnails.

If the thumbnails match, the pictures are compared in detail (`detail.py`). `benchmarks/alarms.md`
has the detection rates and false alarms.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ...examples.files import read
from .. import Example
from . import detail
from .decode import decode
from .reading import PLAIN, Reading

Floats = npt.NDArray[np.float32]
Pair = tuple[Example, Example]

# Side of a thumbnail in pixels. A thumbnail is matched with the other at each of these sizes, which
# finds crops down to four fifths of a side.
SIDE = 32
SIZES = range(26, SIDE + 1)
# Standard deviation of the blur in pixels, which lets crops with sub-pixel offsets match.
BLUR = 0.8
# Minimum correlation of the thumbnails of copies. Few pairs of different photographs reach it, but
# most pairs of handwritten digits do; copies that are brightened to white have 0.92.
LEAST_LIKENESS = 0.9
# Standard deviation in grey levels below which a picture is flat, with nothing to compare.
FLAT = 1.0
# Standard deviation to which thumbnails are scaled, except flat ones: if a row mixed low and high
# contrast, OpenCV's float32 sums would be off by up to 0.01.
CONTRAST = 50.0
# Tolerance for rounding errors of `fits`; the largest observed error is 0.0002.
ROUNDING = 0.002
# Thumbnails per row.
IN_A_ROW = 64
# Pictures in the cache for detailed comparison, 50 kB each.
HELD = 2048


def copies(pairs: Sequence[Pair], reading: Reading = PLAIN) -> list[bool]:
    """Read the pictures, and return for each pair whether its pictures are copies."""

    def data(picture: Example) -> bytes:
        path, digest = picture
        return read(Path(path), digest)

    @lru_cache(HELD)
    def opened(picture: Example) -> detail.Opened:
        return detail.opened(data(picture), reading)

    # Calls of OpenCV are short, so more threads than cores would mostly wait for each other.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        every = list(dict.fromkeys(picture for pair in pairs for picture in pair))
        thumbnails = threads.map(lambda picture: thumbnail(data(picture), reading), every)
        small = dict(zip(every, thumbnails, strict=True))
        best = fits_of_pairs(pairs, small, threads)

        def same(number: int) -> bool:
            one, other = pairs[number]
            fit, place = best_fit(small[one], small[other], best[number])
            return fit >= LEAST_LIKENESS and detail.same(opened(one), opened(other), place, SIDE)

        alike = np.flatnonzero(best.max(axis=(1, 2, 3)) >= LEAST_LIKENESS - ROUNDING).tolist()
        # Pairs with the same picture or folder are adjacent, so few pictures are opened twice.
        alike.sort(key=lambda number: pairs[number])
        verdicts = dict(zip(alike, threads.map(same, alike), strict=True))
    return [verdicts.get(number, False) for number in range(len(pairs))]


def fits_of_pairs(
    pairs: Sequence[Pair], small: Mapping[Example, Floats], threads: ThreadPoolExecutor
) -> Floats:
    """Match the thumbnails of each pair, up to `ROUNDING`, with many pairs per OpenCV call.

    Returns:
        the correlations of each pair, [n, 2, sizes, 2]; 0 if a thumbnail is flat. The second axis
        is the direction: the second thumbnail placed on the first, or the first on the second. The
        last axis says whether one of them is mirrored.
    """
    flat = {picture for picture, grey in small.items() if not grey.any()}
    partners: dict[Example, list[tuple[int, int, Example]]] = defaultdict(list)
    for number, (one, other) in enumerate(pairs):
        if not {one, other} & flat:
            partners[one].append((number, 1, other))
            partners[other].append((number, 0, one))
    rows = [
        (picture, others[start : start + IN_A_ROW])
        for picture, others in partners.items()
        for start in range(0, len(others), IN_A_ROW)
    ]

    def laid(row: tuple[Example, list[tuple[int, int, Example]]]) -> Floats:
        picture, others = row
        return fits(small[picture], [small[other] for _, _, other in others])

    best = np.zeros((len(pairs), 2, len(SIZES), 2), dtype=np.float32)
    for (_, others), fit in zip(rows, threads.map(laid, rows), strict=True):
        best[[number for number, _, _ in others], [way for _, way, _ in others]] = fit
    return best


def thumbnail(data: bytes, reading: Reading = PLAIN) -> Floats:
    """Return the picture in grey, resized to [SIDE, SIDE] and slightly blurred.

    The mean is 0 and the standard deviation `CONTRAST`; flat pictures are all 0.
    """
    picture = decode(data, SIDE, reading).convert("L")
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
    grey = cv2.GaussianBlur(small, (3, 3), BLUR).astype(np.float32)
    spread = grey.std()
    return np.zeros_like(grey) if spread < FLAT else (grey - grey.mean()) * (CONTRAST / spread)


def best_fit(one: Floats, other: Floats, fits: Floats) -> tuple[float, detail.Place]:
    """Return the best match of a thumbnail, or its mirror image, with another, and where it is.

    The match is the maximum normalised correlation over all places of either within the other, at
    one of `SIZES`: 1 for a copy, whatever its brightness and contrast. `fits` [2, sizes, 2], from
    `fits_of_pairs`, limits the search. The match is computed again for the pair alone, so the
    verdict does not depend on rounding in the joint computation with other pairs.
    """
    best, place = 0.0, detail.Place(False, False, SIDE, 0, 0)
    for swapped, at, mirrored in np.argwhere(fits >= fits.max() - 2 * ROUNDING).tolist():
        turned = np.ascontiguousarray(one[:, ::-1]) if mirrored else one
        whole, part = (other, turned) if swapped else (turned, other)
        size = SIZES[at]
        laid = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA)
        fit = cv2.matchTemplate(whole, laid, cv2.TM_CCOEFF_NORMED)
        fit[~np.isfinite(fit)] = 0
        top, left = (int(at) for at in np.unravel_index(int(fit.argmax()), fit.shape))
        if fit[top, left] > best:
            best = float(fit[top, left])
            place = detail.Place(bool(mirrored), bool(swapped), size, left, top)
    return best, place


def fits(part: Floats, wholes: Sequence[Floats]) -> Floats:
    """Return the best correlations [n, sizes, 2] of a thumbnail with n others.

    The thumbnail is matched at each of `SIZES` with the others and their mirror images. The others
    are concatenated in a row, so that OpenCV is called once per size instead of once per pair and
    size; places that overlap two of them are ignored.
    """
    row = np.concatenate([side for whole in wholes for side in (whole, whole[:, ::-1])], axis=1)
    best = np.zeros((len(wholes), len(SIZES), 2), dtype=np.float32)
    for at, size in enumerate(SIZES):
        laid = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA)
        places = SIDE - size + 1
        fit = np.zeros((places, row.shape[1]), dtype=np.float32)
        fit[:, : 1 - size] = cv2.matchTemplate(row, laid, cv2.TM_CCOEFF_NORMED)
        inside = fit.reshape(places, len(wholes), 2, SIDE)[..., :places]
        best[:, at] = np.where(np.isfinite(inside), inside, 0).max(axis=(0, 3))
    return best

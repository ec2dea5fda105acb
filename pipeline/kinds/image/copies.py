"""Copies: whether two pictures show the same, by laying one thumbnail over the other.

Where thumbnails fit, the pictures are compared in detail (`detail.py`). `benchmarks/alarms.md` has
what is found.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ...core.files import read
from .. import Example
from . import detail
from .decode import decode

Floats = npt.NDArray[np.float32]
Pair = tuple[Example, Example]

# A picture's thumbnail, pixels a side. One is laid over the other at each of these sizes, which
# finds crops down to four fifths of a side.
SIDE = 32
SIZES = range(26, SIDE + 1)
# Standard deviation, in pixels, of a blur that lets crops agree that are cut between two pixels.
BLUR = 0.8
# Least correlation of a copy's thumbnail. Of pairs that are none few photographs reach it, but most
# handwritten digits; copies brightened to white have 0.92.
LEAST_LIKENESS = 0.9
# Grey levels (standard deviation) below which a picture shows nothing to compare.
FLAT = 1.0
# Standard deviation that others are brought to: with faint pictures beside strong ones in a row,
# OpenCV's float32 sums would miss by up to 0.01.
CONTRAST = 50.0
# By how much `fits` may miss `likeness`, with room to spare: 0.0002 is the most that was seen.
ROUNDING = 0.002
# Thumbnails in a row.
IN_A_ROW = 64
# Pairs whose pictures are held in detail at a time, 50 kB each.
AT_A_TIME = 512


def copies(pairs: Sequence[Pair]) -> list[bool]:
    """Open the pictures; whether those of each pair are one, from afar and in detail."""

    def data(picture: Example) -> bytes:
        path, digest = picture
        return read(Path(path), digest)

    with ThreadPoolExecutor() as threads:
        every = list(dict.fromkeys(picture for pair in pairs for picture in pair))
        thumbnails = threads.map(lambda picture: thumbnail(data(picture)), every)
        small = dict(zip(every, thumbnails, strict=True))
        alike = from_afar(pairs, small, threads)
        verdicts: dict[int, bool] = {}
        for start in range(0, len(alike), AT_A_TIME):
            some = alike[start : start + AT_A_TIME]
            seen = list(dict.fromkeys(picture for number in some for picture in pairs[number]))
            opened = threads.map(lambda picture: detail.opened(data(picture)), seen)
            large = dict(zip(seen, opened, strict=True))

            def same(number: int, large: Mapping[Example, detail.Opened] = large) -> bool:
                one, other = pairs[number]
                _, place = best_fit(small[one], small[other])
                return detail.same(large[one], large[other], place, SIDE)

            verdicts.update(zip(some, threads.map(same, some), strict=True))
    return [verdicts.get(number, False) for number in range(len(pairs))]


def from_afar(
    pairs: Sequence[Pair], small: Mapping[Example, Floats], threads: ThreadPoolExecutor
) -> list[int]:
    """The numbers of the pairs whose `likeness` reaches `LEAST_LIKENESS`."""
    best = _likenesses(pairs, small, threads)
    # Near the limit a pair is looked at by itself: no verdict hangs on the others by a rounding.
    for doubtful in np.flatnonzero(abs(best - LEAST_LIKENESS) < ROUNDING).tolist():
        one, other = pairs[doubtful]
        best[doubtful] = likeness(small[one], small[other])
    alike: list[int] = np.flatnonzero(best >= LEAST_LIKENESS).tolist()
    return alike


def _likenesses(
    pairs: Sequence[Pair], small: Mapping[Example, Floats], threads: ThreadPoolExecutor
) -> npt.NDArray[np.float64]:
    """The `likeness` [n] of each pair but for `ROUNDING`, every thumbnail laid on many at once."""
    flat = {picture for picture, grey in small.items() if not grey.any()}
    partners: dict[Example, list[tuple[int, Example]]] = defaultdict(list)
    for number, (one, other) in enumerate(pairs):
        if not {one, other} & flat:
            partners[one].append((number, other))
            partners[other].append((number, one))
    rows = [
        (picture, others[start : start + IN_A_ROW])
        for picture, others in partners.items()
        for start in range(0, len(others), IN_A_ROW)
    ]

    def laid(row: tuple[Example, list[tuple[int, Example]]]) -> Floats:
        picture, others = row
        return fits(small[picture], [small[other] for _, other in others])

    best = np.zeros(len(pairs))
    for (_, others), fit in zip(rows, threads.map(laid, rows), strict=True):
        numbers = [number for number, _ in others]
        best[numbers] = np.maximum(best[numbers], fit)
    return best


def thumbnail(data: bytes) -> Floats:
    """The grey picture of `data`, squeezed to [SIDE, SIDE] and blurred a little.

    Its mean is 0 and its standard deviation `CONTRAST`; all of a flat one is 0.
    """
    picture = decode(data, shorter_side=SIDE).convert("L")
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
    grey = cv2.GaussianBlur(small, (3, 3), BLUR).astype(np.float32)
    spread = grey.std()
    return np.zeros_like(grey) if spread < FLAT else (grey - grey.mean()) * (CONTRAST / spread)


def likeness(one: Floats, other: Floats) -> float:
    """How well one thumbnail, or its mirror image, lies on the other or on a part of it.

    The best normalised correlation over all places at which either, at one of `SIZES`, lies within
    the other: 1 for a copy, whatever its brightness and contrast; 0 where one of them is flat.
    """
    return best_fit(one, other)[0] if one.any() and other.any() else 0.0


def best_fit(one: Floats, other: Floats) -> tuple[float, detail.Place]:
    """The best correlation of two thumbnails, neither flat, and where it is."""
    best, place = 0.0, detail.Place(False, False, SIDE, 0, 0)
    for mirrored, turned in ((False, one), (True, np.ascontiguousarray(one[:, ::-1]))):
        for size in SIZES:
            for swapped, whole, part in ((False, turned, other), (True, other, turned)):
                laid = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA)
                fit = cv2.matchTemplate(whole, laid, cv2.TM_CCOEFF_NORMED)
                fit = np.nan_to_num(fit, posinf=0, neginf=0)
                top, left = (int(at) for at in np.unravel_index(int(fit.argmax()), fit.shape))
                if fit[top, left] > best:
                    best = float(fit[top, left])
                    place = detail.Place(mirrored, swapped, size, left, top)
    return best, place


def fits(part: Floats, wholes: Sequence[Floats]) -> Floats:
    """The best correlations [n] of a thumbnail with n others on which it is laid, also mirrored.

    These stand in a row, so that OpenCV is called once a size and not once a pair and size; places
    where the thumbnail would lie across two of them are left out.
    """
    row = np.concatenate([side for whole in wholes for side in (whole, whole[:, ::-1])], axis=1)
    best = np.zeros(len(wholes), dtype=np.float32)
    for size in SIZES:
        laid = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA)
        places = SIDE - size + 1
        fit = np.zeros((places, row.shape[1]), dtype=np.float32)
        fit[:, : 1 - size] = cv2.matchTemplate(row, laid, cv2.TM_CCOEFF_NORMED)
        inside = fit.reshape(places, len(wholes), 2, SIDE)[..., :places]
        best = np.maximum(best, np.nan_to_num(inside, posinf=0, neginf=0).max(axis=(0, 2, 3)))
    return best

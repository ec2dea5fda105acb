"""Near-duplicates: the same photograph in two splits, as another file.

Features alone tell copies of photographs, but not of textures: patches of one wall are as alike to
a backbone as a patch and its own copy as a JPEG. So features only name candidates, and pixels
decide. `benchmarks/checks.md` has what is found.
"""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline import pictures

Floats = npt.NDArray[np.float32]

# Pairs compared at a time are at most this many rows against all of the other split.
ROWS = 512
# Candidates looked at for each picture.
NEAREST = 5

# A picture's thumbnail, pixels a side. One is laid over the other at each of these sizes, which
# finds crops down to four fifths of a side.
SIDE = 32
SIZES = range(26, SIDE + 1)
# Standard deviation, in pixels, of a blur that lets crops agree that are cut between two pixels.
BLUR = 0.8
# Least correlation of a copy's thumbnail. Pairs that are none reach 0.85 among photographs and 0.97
# among patches of one brick wall; copies cut to nine tenths have 0.96 and more in the middle.
LEAST_LIKENESS = 0.95
# Grey levels (standard deviation) below which a thumbnail shows nothing to compare.
FLAT = 1.0


def candidates(queries: Floats, bank: Floats, least: float) -> list[tuple[int, int, float]]:
    """For each query its nearest rows of the bank, `NEAREST` at most, from cosine `least` on.

    Args:
        queries: [n, d], each row of length 1.
        bank: [m, d], likewise.
        least: the least cosine.

    Returns:
        (row of the queries, row of the bank, cosine).
    """
    found = []
    for start in range(0, len(queries), ROWS):
        cosines = queries[start : start + ROWS] @ bank.T
        taken = min(NEAREST, len(bank))
        nearest = np.argpartition(-cosines, taken - 1, axis=1)[:, :taken]
        values = np.take_along_axis(cosines, nearest, axis=1)
        for row, place in np.argwhere(values >= least):
            found.append((start + int(row), int(nearest[row, place]), float(values[row, place])))
    return found


def thumbnail(data: bytes) -> Floats:
    """The grey picture of `data`, squeezed to [SIDE, SIDE] and blurred a little."""
    picture = pictures.decode(data, shorter_side=SIDE).convert("L")
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
    return cv2.GaussianBlur(small, (3, 3), BLUR).astype(np.float32)


def likeness(one: Floats, other: Floats) -> float:
    """How well one thumbnail, or its mirror image, lies on the other or on a part of it.

    The best normalised correlation over all places at which either, at one of `SIZES`, lies within
    the other: 1 for a copy, whatever its brightness and contrast; 0 where one of them is flat.
    """
    if min(one.std(), other.std()) < FLAT:
        return 0.0
    best = 0.0
    for turned in (one, np.ascontiguousarray(one[:, ::-1])):
        for size in SIZES:
            for whole, part in ((turned, other), (other, turned)):
                laid = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA)
                fit = cv2.matchTemplate(whole, laid, cv2.TM_CCOEFF_NORMED)
                best = max(best, float(np.nan_to_num(fit, posinf=0, neginf=0).max()))
    return best

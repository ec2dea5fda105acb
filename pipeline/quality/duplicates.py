"""Near-duplicates: the same photograph in two splits, as another file.

Features alone tell copies of photographs, but not of textures: patches of one wall are as alike to
a backbone as a patch and its own copy as a JPEG. So features only name candidates, and pixels
decide. `benchmarks/checks.md` has what is found.

Pixels of a pair are compared once: verdicts are kept in the feature store.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from ..core.errors import StoreError
from ..kinds.image import decode
from ..store import local
from ..store.local import FeatureStore

Floats = npt.NDArray[np.float32]

VERDICT_CODE = 2  # raise when pictures.py or this module come to call other pairs alike

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
# Grey levels (standard deviation) below which a picture shows nothing to compare.
FLAT = 1.0
# Standard deviation that others are brought to: with faint pictures beside strong ones in a row,
# OpenCV's float32 sums would miss by up to 0.01.
CONTRAST = 50.0
# By how much `fits` may miss `likeness`, with room to spare: 0.0002 is the most that was seen.
ROUNDING = 0.002
# Thumbnails in a row.
IN_A_ROW = 64


class Picture(NamedTuple):
    """A picture of the manifest: its path and its bytes' SHA-256."""

    path: str
    digest: str


Pair = tuple[Picture, Picture]


def candidates(queries: Floats, bank: Floats, least: float) -> list[tuple[int, int, float]]:
    """For each query its nearest rows of the bank, `NEAREST` at most, from cosine `least` on.

    Args:
        queries: [n, d], each row of length 1.
        bank: [m, d], likewise.
        least: the least cosine.

    Returns:
        (row of the queries, row of the bank, cosine).
    """

    def some(start: int) -> list[tuple[int, int, float]]:
        cosines = queries[start : start + ROWS] @ bank.T
        taken = min(NEAREST, len(bank))
        nearest = np.argpartition(-cosines, taken - 1, axis=1)[:, :taken]
        values = np.take_along_axis(cosines, nearest, axis=1)
        return [
            (start + int(row), int(nearest[row, place]), float(values[row, place]))
            for row, place in np.argwhere(values >= least)
        ]

    with ThreadPoolExecutor() as threads:
        return [pair for part in threads.map(some, range(0, len(queries), ROWS)) for pair in part]


def compare(pairs: Sequence[Pair]) -> tuple[list[bool], int]:
    """Whether each pair shows the same, and how many of the pairs an earlier run had compared.

    Verdicts are kept in the feature store, an entry a pair: the pictures of a pair that is known
    are not opened. Where the store cannot be used, that is said and pairs are compared.
    """
    keys = [_key(one.digest, other.digest) for one, other in pairs]
    verdicts: dict[bytes, bool] = {}
    problem = None
    try:
        with FeatureStore(local.default_folder(), local.default_limit()) as cache:
            verdicts = {key: bool(kept[0]) for key, kept in cache.get(keys).items()}
    except StoreError as error:
        problem = error
    known = len(verdicts)
    new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in verdicts}
    found = dict(zip(new, look(list(new.values())), strict=True))
    try:
        if found and not problem:
            entries = {key: np.array([alike], dtype=np.float32) for key, alike in found.items()}
            with FeatureStore(local.default_folder(), local.default_limit()) as cache:
                cache.put(entries)
    except StoreError as error:
        problem = error
    if problem:
        print(f"checks: warning: pairs that were compared are compared again next time: {problem}")
    verdicts |= found
    return [verdicts[key] for key in keys], known


def _key(one: str, other: str) -> bytes:
    made_by = f"alike {VERDICT_CODE}, Pillow {PIL.__version__}, OpenCV {cv2.__version__}"
    return blake2b(f"{made_by}, {one} {other}".encode(), digest_size=16).digest()


def look(pairs: Sequence[Pair]) -> list[bool]:
    """Open the pictures; whether the `likeness` of each pair reaches `LEAST_LIKENESS`."""

    def opened(picture: Picture) -> Floats:
        return thumbnail(decode.read(Path(picture.path), picture.digest))

    with ThreadPoolExecutor() as threads:
        every = list(dict.fromkeys(picture for pair in pairs for picture in pair))
        small = dict(zip(every, threads.map(opened, every), strict=True))
        best = _likenesses(pairs, small, threads)
    # Near the limit a pair is looked at by itself: no verdict hangs on the others by a rounding.
    for doubtful in np.flatnonzero(abs(best - LEAST_LIKENESS) < ROUNDING).tolist():
        one, other = pairs[doubtful]
        best[doubtful] = likeness(small[one], small[other])
    alike: list[bool] = (best >= LEAST_LIKENESS).tolist()
    return alike


def _likenesses(
    pairs: Sequence[Pair], small: Mapping[Picture, Floats], threads: ThreadPoolExecutor
) -> npt.NDArray[np.float64]:
    """The `likeness` [n] of each pair but for `ROUNDING`, every thumbnail laid on many at once."""
    flat = {picture for picture, grey in small.items() if not grey.any()}
    partners: dict[Picture, list[tuple[int, Picture]]] = defaultdict(list)
    for number, (one, other) in enumerate(pairs):
        if not {one, other} & flat:
            partners[one].append((number, other))
            partners[other].append((number, one))
    rows = [
        (picture, others[start : start + IN_A_ROW])
        for picture, others in partners.items()
        for start in range(0, len(others), IN_A_ROW)
    ]

    def laid(row: tuple[Picture, list[tuple[int, Picture]]]) -> Floats:
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
    picture = decode.decode(data, shorter_side=SIDE).convert("L")
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
    grey = cv2.GaussianBlur(small, (3, 3), BLUR).astype(np.float32)
    spread = grey.std()
    return np.zeros_like(grey) if spread < FLAT else (grey - grey.mean()) * (CONTRAST / spread)


def likeness(one: Floats, other: Floats) -> float:
    """How well one thumbnail, or its mirror image, lies on the other or on a part of it.

    The best normalised correlation over all places at which either, at one of `SIZES`, lies within
    the other: 1 for a copy, whatever its brightness and contrast; 0 where one of them is flat.
    """
    if not (one.any() and other.any()):
        return 0.0
    best = 0.0
    for turned in (one, np.ascontiguousarray(one[:, ::-1])):
        for size in SIZES:
            for whole, part in ((turned, other), (other, turned)):
                laid = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA)
                fit = cv2.matchTemplate(whole, laid, cv2.TM_CCOEFF_NORMED)
                best = max(best, float(np.nan_to_num(fit, posinf=0, neginf=0).max()))
    return best


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

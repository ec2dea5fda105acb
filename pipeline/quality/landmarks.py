"""The map by a neighbour layout: `map/landmarks.parquet`, which `headstart map` writes.

The landmarks keep the places that the file has. Every other example is placed among its nearest
landmarks, and no other example decides where, so examples that are added move none of the old ones.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.params import ExtractParams
from ..tables.large import chunks
from ..tables.parquet import BAD

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

MOST = 2000  # landmarks, those with the lowest digests
LEAST = 0.1  # of the landmarks have to be among the examples
NEAREST = 5  # landmarks by which another example is placed
BROAD = 64  # approximate principal axes, in which distances are measured
GRID = 10_000  # a place is two whole numbers from 0 to this one
DECIMALS = 9  # of a cosine; further ones may differ with the number of rows
MADE_BY = b"headstart.made_by"  # in the metadata: which features the layout is of


class Landmarks(NamedTuple):
    """n landmarks: their digests, sorted, and places [n, 2] on the grid."""

    digests: npt.NDArray[np.str_]
    places: Places

    def placed(self, digests: npt.NDArray[np.str_], features: Floats, at: Places) -> Places:
        """Return the places of the examples at the positions `at`, [len(at), 2].

        An example has the mean place of its nearest landmarks, weighted by the inverse of the
        squared distance.

        Args:
            digests: of n examples, sorted, some of them landmarks.
            features: [n, d].
            at: positions of examples.
        """
        here = np.isin(self.digests, digests)
        known, place_of = np.searchsorted(digests, self.digests[here]), self.places[here]
        space = Space(features[known])
        marks = space.of(features[known])
        found = np.zeros((len(digests), 2), np.int64)
        others = np.setdiff1d(at, known)
        for some in chunks(len(others), max(features.shape[1], len(known))):
            cosines = np.round(space.of(features[others[some]]) @ marks.T, DECIMALS)
            near = np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]
            weights = 1 / (2 - 2 * np.take_along_axis(cosines, near, axis=1) + 1e-6)
            weights /= weights.sum(axis=1, keepdims=True)
            means = np.einsum("nk,nkc->nc", weights, place_of[near])
            found[others[some]] = np.rint(np.round(means, 4))
        found[known] = place_of
        return found[at]


def broad_axes(centred: Floats) -> Floats:
    """Return approximate first principal axes [d, `BROAD`] of features [n, d] with mean zero."""
    start = np.random.default_rng(0).standard_normal((centred.shape[1], BROAD))
    axes: Floats = np.linalg.qr(centred.T @ (centred @ start.astype(np.float32)))[0]
    return axes


class Space:
    """The space of the approximate first `BROAD` principal axes of landmarks."""

    def __init__(self, features: Floats) -> None:
        """Find the axes of these features, [n, d]."""
        self._mean = features.mean(axis=0)
        self._axes = np.eye(features.shape[1], dtype=np.float32)
        if features.shape[1] > BROAD:
            self._axes = broad_axes(features - self._mean)

    def of(self, features: Floats) -> Doubles:
        """Return unit vectors from the landmarks' mean to examples, [n, up to `BROAD`]."""
        along = (features - self._mean).astype(np.float64) @ self._axes
        lengths: Doubles = np.linalg.norm(along, axis=1, keepdims=True)
        found: Doubles = along / np.maximum(lengths, 1e-12)
        return found


def made_by(settings: ExtractParams, dimension: int) -> str:
    """Return in words which features the landmarks are of."""
    weights = f"{settings.weights} weights, " * (settings.weights != "pretrained")
    return f"{settings.backbone} ({weights}{dimension} features)"


def write(file: Path, landmarks: Landmarks, made: str) -> None:
    """Write landmarks; `made` is what `made_by` returns."""
    columns = {"digest": pa.array(landmarks.digests.tolist(), pa.string())}
    for name, values in zip("xy", landmarks.places.T, strict=True):
        columns[name] = pa.array(values, pa.int16())
    pq.write_table(pa.table(columns).replace_schema_metadata({MADE_BY: made}), file)


def read(file: Path, digests: Collection[str], made: str) -> tuple[Landmarks | None, str]:
    """Return the landmarks in `file`, or None and why the map cannot use it (empty without a file).

    A layout only changes how examples are shown, not a result, so a run goes on without landmarks.

    Args:
        file: as `write` wrote it.
        digests: of the examples.
        made: what `made_by` returns for their features.
    """
    if not file.exists():
        return None, ""
    try:
        table = pq.read_table(file)
        of = table.schema.metadata[MADE_BY].decode()
        columns = [table[name].cast(pa.int16()).to_pylist() for name in "xy"]
        places = np.array(columns, dtype=np.int64).T
        names = table["digest"].to_numpy().astype(str)
        if (names[1:] <= names[:-1]).any() or places.min() < 0 or places.max() > GRID:
            raise ValueError
    except BAD:
        return None, _unused(file, "is damaged")
    if of != made:
        return None, _unused(file, f"was made with {of}, not with {made}")
    if np.isin(names, list(digests)).mean() < LEAST:
        return None, _unused(file, "is of other examples")
    return Landmarks(names, places), ""


def _unused(file: Path, why: str) -> str:
    return (
        f"{file} {why}, so the map shows the principal axes: run `headstart map` again,"
        " or delete the file"
    )

"""The map of the report: places of examples in the plane, and their nearest neighbours.

The plane is that of the first two principal axes of the features. They are found by subspace
iteration (Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011) from
a fixed start, so the same examples have the same places. With a file of landmarks, places are those
of a neighbour layout instead (`landmarks.py`).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..tables.large import in_parts
from .landmarks import BROAD, GRID, Landmarks, broad_axes

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

MOST = 20_000  # examples on the map, as many as a browser can redraw while the user moves the map
AXES = 12  # found together; the more there are, the faster the first two converge
ROUNDS = 12
NEAREST = 5
EXACT = 2000  # examples; with more, neighbours are found in a space of `BROAD` dimensions
ROWS = 256  # whose cosines are computed at a time, in the processor's cache


class Places(NamedTuple):
    """Where n examples are: places [n, 2] on the grid, and novelty [n].

    Novelty is the distance from the space of the first `AXES` principal axes, over the median of
    all examples: the squared prediction error of Jackson and Mudholkar (Technometrics 1979), as a
    root.
    """

    places: npt.NDArray[np.int64]
    novelty: Doubles


def placed(features: Floats) -> Places:
    """Return the places of examples with these features, [n, d]."""
    rows, dimension = features.shape
    axes = min(AXES, rows, dimension)
    mean = features.mean(axis=0)
    basis = np.random.default_rng(0).standard_normal((dimension, axes)).astype(np.float32)
    for _ in range(ROUNDS):
        basis, before = np.zeros_like(basis), np.linalg.qr(basis)[0]
        for some in in_parts(features):
            along = features[some] @ before - mean @ before
            basis += features[some].T @ along - np.outer(mean, along.sum(axis=0))
    basis = np.linalg.qr(basis)[0]
    along, lengths = np.empty((rows, axes)), np.empty(rows)
    for some in in_parts(features):
        part = features[some]
        along[some] = part @ basis - mean @ basis
        lengths[some] = np.einsum("ij,ij->i", part, part, dtype=np.float64)
        lengths[some] += float(mean @ mean) - 2 * (part @ mean)
    _, turned = np.linalg.eigh(along.T @ along)
    first = turned[:, ::-1][:, :2]
    loadings = basis @ first
    # An axis has no sign of its own: its largest loading is positive.
    signs = np.sign(loadings[np.abs(loadings).argmax(axis=0), range(loadings.shape[1])])
    plane = np.zeros((rows, 2))
    plane[:, : len(signs)] = along @ first * signs
    low, high = plane.min(axis=0), plane.max(axis=0)
    scale = max(float((high - low).max()), 1e-12)  # the same for both axes
    rest = np.sqrt(np.maximum(lengths - np.square(along).sum(axis=1), 0))
    middle = max(float(np.median(rest)), 1e-12)
    return Places(np.rint((plane - low) / scale * GRID).astype(np.int64), rest / middle)


def chosen(rows: pd.DataFrame, issues: set[str]) -> npt.NDArray[np.int64]:
    """Return the positions of at most `MOST` rows for the map, in the order of the rows.

    Test examples come first, then those at the paths `issues`, then the others by digest, which is
    a random order that new examples do not change.
    """
    rank = np.where(rows["split"] == "test", 0, np.where(rows["path"].isin(issues), 1, 2))
    order = np.lexsort((rows["digest"].to_numpy(str), rank))
    return np.sort(order[:MOST])


def neighbours(features: Floats) -> npt.NDArray[np.int64]:
    """Return for each row the positions of the rows with the highest cosine, [n, NEAREST].

    Features are centred first. If there are more than `EXACT` rows, they are projected to their
    approximate first `BROAD` principal axes. With fewer than `NEAREST` other rows, the rest is -1.
    """
    centred = features - features.mean(axis=0)
    if len(features) > EXACT and features.shape[1] > BROAD:
        centred = centred @ broad_axes(centred)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    found = np.full((len(features), NEAREST), -1)
    for first in range(0, len(features), ROWS):
        cosines = centred[first : first + ROWS] @ centred.T
        rows = np.arange(len(cosines))
        cosines[rows, first + rows] = -2
        for place in range(min(NEAREST, len(features) - 1)):
            found[first + rows, place] = best = cosines.argmax(axis=1)
            cosines[rows, best] = -2
    return found


def drawn(
    rows: pd.DataFrame,
    features: Floats,
    answers: pd.DataFrame,
    issues: set[str],
    landmarks: Landmarks | None = None,
) -> pd.DataFrame:
    """Return the table of the map: one row per example on it.

    Args:
        rows: n rows, as `originals` returns them.
        features: [n, d].
        answers: n rows, of out-of-fold heads: `suggested`, `right` and `doubt`.
        issues: the paths of examples with a finding, which the map should have.
        landmarks: of a neighbour layout; None for the principal axes.

    Returns:
        `digest`, `x`, `y`, `novelty`, the columns of `answers`, and `near_1` etc., the digests of
        the nearest neighbours on the map; empty if there are fewer. With landmarks also `landmark`,
        whether an example is one.
    """
    places, novelty = placed(features)
    at = chosen(rows, issues)
    every = rows["digest"].to_numpy(str)
    digests = every[at]
    shown = places[at] if landmarks is None else landmarks.placed(every, features, at)
    table = pd.DataFrame({"digest": digests, "x": shown[:, 0], "y": shown[:, 1]})
    if landmarks is not None:
        table["landmark"] = np.isin(digests, landmarks.digests)
    table["novelty"] = [float(f"{value:.4g}") for value in novelty[at]]
    table = pd.concat([table, answers.iloc[at].reset_index(drop=True)], axis=1)
    named = np.append(digests, "")  # -1 is the last
    for number, column in enumerate(neighbours(features[at]).T, start=1):
        table[f"near_{number}"] = named[column]
    return table

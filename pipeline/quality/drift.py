"""Drift: whether another split's examples look like the training examples, class by class.

A kernel two-sample test (Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012) on features.
Examples are compared, and permuted, within their class only, so another mix of classes is no drift.
Where several labels or numbers are learned, few examples have the same ones, so all examples are
compared as one class, and another mix of labels or numbers is drift too.
Splits that were drawn at random are not tested: a difference would be chance. Nor are splits by
place, which differ by design.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.params import ChecksParams
from ..tables.manifest import GIVEN, SPLITS

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

PERMUTATIONS = 1999
# Examples of a class and split that are looked at; rows sorted by digest are in random order.
MOST = 500


class Drift(NamedTuple):
    """The outcome of a test; `compared` counts the examples of classes that both sides have.

    `distance` is the squared maximum mean discrepancy, and `by_chance` its mean when the two sides
    are shuffled. All but `compared` are NaN where there is nothing to compare.
    """

    compared: int
    distance: float
    by_chance: float
    p_value: float


def test(
    train: Floats, train_labels: Integers, other: Floats, other_labels: Integers, seed: int
) -> Drift:
    """Compare two sets of features [n, d] and [m, d] with labels [n] and [m].

    The classes' discrepancies are added up, weighted by the other side's examples. The kernel is
    Gaussian, as wide as the median distance within the class.
    """
    random = np.random.default_rng(seed)
    classes = np.intersect1d(train_labels, other_labels)
    compared, totals = 0, np.zeros(1 + PERMUTATIONS)
    for label in classes:
        ours, theirs = train[train_labels == label][:MOST], other[other_labels == label][:MOST]
        sides = np.repeat([1 / len(ours), -1 / len(theirs)], [len(ours), len(theirs)])
        shuffled = random.permuted(np.tile(sides, (PERMUTATIONS, 1)), axis=1)
        weights = np.concatenate([sides[None], shuffled])
        kernel = _kernel(np.concatenate([ours, theirs]).astype(np.float64))
        totals += len(theirs) * ((weights @ kernel) * weights).sum(axis=1)
        compared += len(theirs)
    if not compared:
        return Drift(0, np.nan, np.nan, np.nan)
    distance, chance = totals[0] / compared, totals[1:] / compared
    # A shuffle that changes nothing must not fall behind by a rounding.
    reached = int((chance >= distance - 1e-9).sum())
    return Drift(
        compared, float(distance), float(chance.mean()), (1 + reached) / (1 + PERMUTATIONS)
    )


def _kernel(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    squares = np.square(features).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares - 2 * features @ features.T, 0)
    width = float(np.median(apart[np.triu_indices(len(apart), 1)]))
    kernel: npt.NDArray[np.float64] = np.exp(-apart / max(width, 1e-12))
    return kernel


def drifts(
    rows: pd.DataFrame, features: Floats, origins: dict[str, str], settings: ChecksParams
) -> pd.DataFrame:
    """A row for val and for test: whether their examples look like the training examples.

    Args:
        rows: as `originals` gives them, n of them.
        features: [n, d].
        origins: where each split comes from; given ones are tested.
        settings: `drift_level` is shared by the splits that are tested.
    """
    split = rows["split"].to_numpy()
    labels = rows.get("number", pd.Series(0, index=rows.index)).to_numpy()
    train = split == "train"
    tested = sum(origins[name] == GIVEN for name in SPLITS[1:])
    table: list[dict[str, Any]] = []
    for name in SPLITS[1:]:
        ours = split == name
        found = Drift(0, np.nan, np.nan, np.nan)
        if origins[name] == GIVEN:
            sides = (features[train], labels[train], features[ours], labels[ours])
            found = test(*sides, settings.seed)
        table.append(
            {"split": name, "pictures": int(ours.sum()), "origin": origins[name]}
            | found._asdict()
            | {"drifted": found.p_value <= settings.drift_level / max(tested, 1)}
        )
    return pd.DataFrame(table)

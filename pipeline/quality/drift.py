"""Drift: whether another split's examples look like the training examples, class by class.

The test is a kernel two-sample test (Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012) on
features. Examples are compared and permuted only within their class, so a different class balance
is not drift. In multi-label tasks and in regression, few examples have the same labels or targets.
All examples are therefore compared as one class, and a different mix of labels or targets is drift
too.

Examples of a group (a patient, a day) look alike, so two sets of groups differ by chance more than
two sets of examples. The test therefore permutes whole groups, among groups with the same majority
class. Splits that were drawn at random are not tested, because they differ only by chance. Splits
by place are not tested either, because they differ by design.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.params import ChecksParams
from ..tables.large import taken
from ..tables.manifest import GIVEN, SPLITS, groups

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

PERMUTATIONS = 1999
# Examples per class and split that are compared; rows sorted by digest are in random order.
MOST = 500
LEAST_GROUPS = 6  # with fewer, there are too few permutations for a test


class Drift(NamedTuple):
    """The outcome of a test; `compared` counts the other split's examples that took part.

    `distance` is the squared maximum mean discrepancy, and `by_chance` its mean over the
    permutations. If there is nothing to compare, all fields but `compared` are NaN. If there are
    too few groups, only `p_value` is NaN.
    """

    compared: int
    distance: float
    by_chance: float
    p_value: float


class Units(NamedTuple):
    """The units that are permuted: groups, or single rows.

    `of_row` [r] is the unit of each row. `other` [u] says whether a unit is on the other side.
    `of_class` [u] is the class of most of its rows; units are permuted within this class.
    """

    of_row: Integers
    other: npt.NDArray[np.bool_]
    of_class: Integers

    @classmethod
    def of(cls, names: Integers, other: npt.NDArray[np.bool_], classes: Integers) -> "Units":
        """Return the units of rows, from the group's name, the side and the class of each row, [r].

        A group that the source itself divides is one unit on each side.
        """
        of_row: Integers = pd.factorize(2 * names + other)[0]
        first = np.unique(of_row, return_index=True)[1]
        many = int(classes.max()) + 1
        pairs, counts = np.unique(of_row * many + classes, return_counts=True)
        order = np.lexsort((-counts, pairs // many))  # the first class, if there is a tie
        most = order[np.unique(pairs[order] // many, return_index=True)[1]]
        return cls(of_row, other[first], pairs[most] % many)

    def least(self) -> float:
        """Return the lowest possible p-value, 1 over the number of permutations of groups.

        It is 1 if fewer than `LEAST_GROUPS` groups can be permuted.
        """
        ways, movable = 1, 0
        for label in np.unique(self.of_class):
            sides = self.other[self.of_class == label]
            if sides.any() and not sides.all():
                ways *= math.comb(len(sides), int(sides.sum()))
                movable += len(sides)
        return 1 / ways if movable >= LEAST_GROUPS else 1.0


def test(
    train: Floats,
    train_labels: Integers,
    other: Floats,
    other_labels: Integers,
    seed: int,
    groups_of: tuple[Integers, Integers] | None,
    level: float,
) -> Drift:
    """Compare two sets of features, [n, d] and [m, d], with labels [n] and [m].

    The discrepancies of the classes are added up, weighted by the number of examples on the other
    side. The kernel is Gaussian, and its width is the median distance within the class.

    Args:
        train: features of the training examples.
        train_labels: classes of the training examples.
        other: features of the other split's examples.
        other_labels: classes of the other split's examples.
        groups_of: the groups of both splits' examples, [n] and [m]; None if each example is its own
            group.
        level: significance level; a test of groups that cannot reach it has no p-value.
    """
    random = np.random.default_rng(seed)
    classes = np.intersect1d(train_labels, other_labels)
    kept = [
        (np.flatnonzero(train_labels == label)[:MOST], np.flatnonzero(other_labels == label)[:MOST])
        for label in classes
    ]
    if not kept:
        return Drift(0, np.nan, np.nan, np.nan)
    sizes = [(len(ours), len(theirs)) for ours, theirs in kept]
    ends = np.cumsum([0, *(sum(both) for both in sizes)])
    is_other = np.concatenate([np.repeat([False, True], both) for both in sizes])
    names = np.arange(len(is_other))
    if groups_of is not None:
        of_ours, of_theirs = groups_of
        names = np.concatenate([np.r_[of_ours[ours], of_theirs[theirs]] for ours, theirs in kept])
    units = Units.of(names, is_other, np.repeat(np.arange(len(kept)), np.diff(ends)))
    shuffles = _Shuffles(units, random)

    compared, totals = 0, np.zeros(1 + PERMUTATIONS)
    for number, (ours, theirs) in enumerate(kept):
        rows = slice(ends[number], ends[number + 1])
        sides = np.concatenate([is_other[None, rows], shuffles.of(rows)])
        there = sides.sum(axis=1, keepdims=True)
        here = len(sides[0]) - there
        both = (there > 0) & (here > 0)  # groups of several classes may all go to one side
        weights = both * np.where(sides, -1 / np.maximum(there, 1), 1 / np.maximum(here, 1))
        kernel = _kernel(np.concatenate([train[ours], other[theirs]]).astype(np.float64))
        totals += there[:, 0] * ((weights @ kernel) * weights).sum(axis=1)
        compared += len(theirs)
    distance, chance = totals[0] / compared, totals[1:] / compared
    # The tolerance counts a shuffle that changes nothing, despite rounding errors.
    reached = int((chance >= distance - 1e-9).sum())
    p_value = (1 + reached) / (1 + PERMUTATIONS)
    if len(units.other) < len(is_other):
        least = units.least()
        p_value = max(p_value, least) if least <= level else np.nan
    return Drift(compared, float(distance), float(chance.mean()), p_value)


class _Shuffles:
    """The sides of rows in each permutation of the units, which are permuted class by class.

    The permutations of a class are kept until the last row of its units was read. If units are
    single rows or groups of one class, only one class is in memory at a time.
    """

    def __init__(self, units: Units, random: np.random.Generator) -> None:
        self._units, self._random = units, random
        self._made: dict[int, npt.NDArray[np.bool_]] = {}  # [permutations, units of the class]
        self._next = 0  # the class that is permuted next
        by_class = np.argsort(units.of_class, kind="stable")
        starts = np.searchsorted(units.of_class[by_class], units.of_class)
        self._place = np.empty(len(by_class), np.int64)  # place of a unit in its class
        self._place[by_class] = np.arange(len(by_class))
        self._place -= starts
        self._last_row = np.zeros(int(units.of_class.max()) + 1, np.int64)
        of_rows = units.of_class[units.of_row]
        np.maximum.at(self._last_row, of_rows, np.arange(len(of_rows)))

    def of(self, rows: slice) -> npt.NDArray[np.bool_]:
        """Return whether each row is on the other side, [permutations, rows].

        Args:
            rows: the next rows; callers ask for all rows in order.
        """
        units = self._units.of_row[rows]
        classes = self._units.of_class[units]
        while self._next <= classes.max():
            own = self._units.other[self._units.of_class == self._next]
            many = np.tile(own, (PERMUTATIONS, 1))
            self._made[self._next] = self._random.permuted(many, axis=1)
            self._next += 1
        found = np.empty((PERMUTATIONS, len(units)), bool)
        for label in np.unique(classes):
            mine = classes == label
            found[:, mine] = self._made[label][:, self._place[units[mine]]]
        for label in [one for one in self._made if self._last_row[one] < rows.stop]:
            del self._made[label]
        return found


def _kernel(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    squares = np.square(features).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares - 2 * features @ features.T, 0)
    width = float(np.median(apart[np.triu_indices(len(apart), 1)]))
    kernel: npt.NDArray[np.float64] = np.exp(-apart / max(width, 1e-12))
    return kernel


def drifts(
    rows: pd.DataFrame, features: Floats, origins: dict[str, str], settings: ChecksParams
) -> pd.DataFrame:
    """Return for val and for test whether the examples look like the training examples.

    Args:
        rows: n rows, as `originals` returns them.
        features: [n, d].
        origins: the origin of each split; splits that come from the source are tested.
        settings: `drift_level` is divided by the number of tested splits.
    """
    split = rows["split"].to_numpy()
    labels = rows.get("number", pd.Series(0, index=rows.index)).to_numpy()
    train, group = split == "train", groups(rows)
    tested = sum(origins[name] == GIVEN for name in SPLITS[1:])
    level = settings.drift_level / max(tested, 1)
    table: list[dict[str, Any]] = []
    for name in SPLITS[1:]:
        ours = split == name
        found = Drift(0, np.nan, np.nan, np.nan)
        if origins[name] == GIVEN:
            sides = taken(features, train), labels[train], taken(features, ours), labels[ours]
            found = test(*sides, settings.seed, (group[train], group[ours]), level)
        table.append(
            {"split": name, "pictures": int(ours.sum()), "origin": origins[name]}
            | found._asdict()
            | {"drifted": found.p_value <= level}
        )
    return pd.DataFrame(table)


def too_few_groups(table: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows of `drifts` had examples to compare but too few groups for a test."""
    return (table["compared"] > 0) & table["p_value"].isna()

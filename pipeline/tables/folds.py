"""Folds of examples for cross-validation, the same in all stages."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .unit import unit

Integers = npt.NDArray[np.int64]


def folds(
    keys: Sequence[str],
    labels: npt.NDArray[Any],
    count: int,
    numbers: bool,
    seed: int | str = "fold",
) -> Integers:
    """Return the fold of each row, [n]; -1 for rows that are never held out.

    Rows with the same key are in the same fold, and all folds have about the same number of keys.
    Keys are dealt to the folds in the order of their rarest class, and within a class in the order
    of their hashes. So each class is spread over as many folds as possible; if all rows of a class
    would be in one fold, they are in none. In multi-label tasks, both having a label and not having
    it count as classes.

    Args:
        keys: the digest of each row's example, or the name of its group.
        labels: as `Split.labels`.
        count: number of folds, at least 2.
        numbers: whether the labels are regression targets, which do not affect the folds.
        seed: the random seed of the order of keys.
    """
    names, of_key = np.unique(np.array(keys), return_inverse=True)
    if len(names) < 2:
        return np.full(len(of_key), -1)
    rows = np.arange(len(of_key))
    if numbers:
        rows, classes = rows[:0], rows[:0]
    elif labels.ndim == 1:
        classes = labels.astype(np.int64)
    else:
        rows, column = np.nonzero(~np.isnan(labels))
        classes = 2 * column + (labels[rows, column] == 1)
    rarest = np.zeros(len(names), np.int64)
    order = np.argsort(-np.bincount(classes)[classes], kind="stable")
    rarest[of_key[rows[order]]] = classes[order]  # the rarest class of a key is last
    fold = np.zeros(len(names), np.int64)
    fold[of_key[rows[_in_one_place(classes, of_key[rows])]]] = -1
    dealt = np.flatnonzero(fold == 0)
    drawn = np.array([unit(f"{seed}:{name}") for name in names[dealt].tolist()])
    fold[dealt[np.lexsort((drawn, rarest[dealt]))]] = np.arange(len(dealt)) % count
    fold[of_key[rows[_in_one_place(classes, fold[of_key[rows]])]]] = -1
    return fold[of_key]


def _in_one_place(classes: Integers, places: Integers) -> npt.NDArray[np.bool_]:
    """Return for each of k rows whether all rows of its class are in the same place."""
    pairs = np.unique(np.stack([classes, places]), axis=1)
    alone: npt.NDArray[np.bool_] = np.bincount(pairs[0])[classes] == 1
    return alone

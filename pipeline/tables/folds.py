"""Folds of examples: one way to hold some out, wherever that is done."""

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
    """The fold of each row, [n]; -1 for rows that every head needs to learn from.

    Rows of one key are in one fold, and folds have about as many keys each. Keys are dealt to the
    folds in the order of their rarest class, and within it of their hashes. So examples of a class
    are in as many folds as can be, and the rows of one that would be in a single fold are in none.
    If an example has several labels, each that is there and each that is not counts as a class.

    Args:
        keys: of each row, the digest of its example or the name of its group.
        labels: as `Split.labels`.
        count: of folds, 2 or more.
        numbers: whether the labels are numbers, of which the folds are independent.
        seed: deals the keys in another order.
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
    rarest[of_key[rows[order]]] = classes[order]  # the last that a key gets counts
    fold = np.zeros(len(names), np.int64)
    fold[of_key[rows[_in_one_place(classes, of_key[rows])]]] = -1
    dealt = np.flatnonzero(fold == 0)
    drawn = np.array([unit(f"{seed}:{name}") for name in names[dealt].tolist()])
    fold[dealt[np.lexsort((drawn, rarest[dealt]))]] = np.arange(len(dealt)) % count
    fold[of_key[rows[_in_one_place(classes, fold[of_key[rows]])]]] = -1
    return fold[of_key]


def _in_one_place(classes: Integers, places: Integers) -> npt.NDArray[np.bool_]:
    """Whether the class of each of k rows, with its class and place, has no other place."""
    pairs = np.unique(np.stack([classes, places]), axis=1)
    alone: npt.NDArray[np.bool_] = np.bincount(pairs[0])[classes] == 1
    return alone

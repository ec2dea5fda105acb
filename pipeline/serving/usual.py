"""How usual an example is: how far its features are from those of the training examples.

The distance is that to the k-th nearest training example, of features of length 1 (Sun, Ming, Zhu
and Li, "Out-of-distribution detection with deep nearest neighbors", ICML 2022). An example is
unusual where it is farther than 95 % of the validation examples are, which no training example is
one of. The nearest one (k = 1) tells best in small sets, and every class has one
(benchmarks/sets.md).

So that an answer stays quick, the distance is taken to no more than 1,000 examples: the bank, the
first rows of the bundle's neighbours.

In a bundle that is to hold no training example, the bank is the mean of each class: nearly as good
for what is far from training, and as good or worse for what is near.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from ..core.errors import DataError
from .explain import directions

K = 1
MOST = 1000  # examples in the bank
LEAST = 5  # examples of a class; the mean of fewer would give them away
MEANS = "class_means"  # what `usual.of` says where they are the bank
MEANS_FILE = f"{MEANS}.safetensors"
WHY_NOT = (
    "so its answers do not tell how usual an example is: that goes by the means of classes, each of"
    f" {LEAST} training examples or more"
)
KEPT = 0.95  # of examples like those of training are not unusual
FEWEST = math.ceil(round(KEPT / (1 - KEPT), 6))  # of fewer, the largest distance keeps less

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Usual:
    """The bank [n, d], which neighbour counts, and the distance from which on one is unusual.

    `threshold` is None where there were too few examples to find it.
    """

    bank: Floats
    k: int
    threshold: float | None

    def distance(self, features: Floats) -> float:
        """Of an example's features [d], as the head sees them; from 0 to 2."""
        # Of a product with a matrix, NumPy would have several cores do a part each: an answer has
        # one, and the others are busy with other answers.
        cosines = np.einsum("nd,d->n", self.bank, directions(features[None])[0])
        nearest = float(cosines.max() if self.k == 1 else np.partition(cosines, -self.k)[-self.k])
        return math.sqrt(max(2 - 2 * nearest, 0))

    def unusual(self, distance: float) -> bool | None:
        """Whether an example at this distance is unlike those of training."""
        return None if self.threshold is None else distance > self.threshold


def bank_first(labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """The order of training examples in which the first `MOST` are the bank.

    They stay as they are where they are no more than that. Of more, each class gives its first
    example, then its second and so on, so that a rare class is not left out.

    Args:
        labels: of the examples, sorted by digest, which is a random order.
    """
    if len(labels) <= MOST:
        return np.arange(len(labels))
    seen: Counter[str] = Counter()
    turn = []
    for label in labels:
        turn.append(seen[label])
        seen[label] += 1
    return np.argsort(np.array(turn), kind="stable")


def class_means(neighbours: Floats, labels: npt.NDArray[np.integer], classes: int) -> Floats:
    """Where the examples of each class lie on average: directions [classes, d].

    Args:
        neighbours: [n, d], the training examples' features of length 1.
        labels: [n], positions of their classes.
        classes: how many there are.
    """
    sums = np.zeros((classes, neighbours.shape[1]), np.float32)
    np.add.at(sums, labels, neighbours)
    return directions(sums)


def described(
    neighbours: npt.NDArray[np.floating], keys: Sequence[str], val: Floats
) -> dict[str, Any]:
    """What `bundle.json` says of it: `k`, `examples`, `kept`, `threshold` and what that rests on.

    Args:
        neighbours: [n, d], the training examples' features of length 1, the bank first.
        keys: of each its group or its digest; what has the same key is no neighbour.
        val: [m, d], the validation examples' features as the head sees them.
    """
    bank = neighbours[:MOST].astype(np.float32)
    found = _nearest(directions(val), bank, [""] * len(val), keys[:MOST])
    on = "validation"
    if len(found) < FEWEST:
        # Of the training examples, each is asked about without itself.
        found = _nearest(bank, bank, keys[:MOST], keys[:MOST])
        on = "training"
    about: dict[str, Any] = {"k": K, "examples": len(bank), "kept": KEPT}
    if len(found) < FEWEST:
        return about | {"threshold": None}
    return about | {"threshold": _threshold(found), "rests_on": {on: len(found)}}


def of_means(means: npt.NDArray[np.floating], val: Floats) -> dict[str, Any]:
    """The same where the bank is the classes' means, and where no training example can help.

    Args:
        means: [classes, d], as `class_means` gives them.
        val: [m, d], as above.
    """
    about: dict[str, Any] = {"of": MEANS, "k": 1, "examples": len(means), "kept": KEPT}
    if len(val) < FEWEST:
        return about | {"threshold": None}
    found = _nearest(directions(val), means.astype(np.float32), ["val"] * len(val), [""])
    return about | {"threshold": _threshold(found), "rests_on": {"validation": len(found)}}


def _threshold(distances: npt.NDArray[np.float64]) -> float:
    """The distance that keeps `KEPT` of examples like these."""
    rank = math.ceil(round((len(distances) + 1) * KEPT, 6))
    return float(f"{np.sort(distances)[rank - 1]:.6g}")


def _nearest(
    features: Floats, bank: Floats, keys: Sequence[str], of_bank: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Distances of rows [m, d] to the bank's rows of other keys; rows without any are left out."""
    own, theirs = np.array(keys, dtype=str), np.array(of_bank, dtype=str)
    parts = [np.empty(0)]
    for start in range(0, len(features), 256):
        rows = slice(start, start + 256)
        cosines = np.where(own[rows, None] == theirs, -np.inf, features[rows] @ bank.T)
        known = (cosines > -np.inf).sum(axis=1) >= K
        parts.append(_distances(cosines[known], K))
    return np.concatenate(parts)


def _distances(cosines: Floats, k: int) -> npt.NDArray[np.float64]:
    """To the k-th nearest, [m], of cosines [m, n]."""
    if not len(cosines):
        return np.empty(0)
    place = cosines.shape[1] - k
    nearest = np.partition(cosines, place, axis=1)[:, place].astype(np.float64)
    return np.sqrt(np.maximum(2 - 2 * nearest, 0))


def read(folder: Path, about: dict[str, Any], dimension: int) -> Usual | None:
    """What a bundle tells of it; None of a bundle that tells nothing, as older ones do.

    Args:
        folder: of the bundle.
        about: what its `bundle.json` holds.
        dimension: of the features.

    Raises:
        DataError: it is damaged.
    """
    told = about.get("usual")
    if told is None:
        return None
    place = folder / "bundle.json"
    if not isinstance(told, dict):
        raise DataError(f"{place} is damaged: usual is no table")
    k, examples, threshold = (told.get(name) for name in ("k", "examples", "threshold"))
    if type(k) is not int or type(examples) is not int or not 1 <= k <= examples:
        raise DataError(f"{place} is damaged: usual.k is {k!r:.40}, of {examples!r:.40} examples")
    if threshold is not None and not (type(threshold) in (float, int) and 0 <= threshold <= 2):
        raise DataError(f"{place} is damaged: usual.threshold is {threshold!r:.40}")
    if told.get("of") not in (None, MEANS):
        raise DataError(f"{place} is damaged: usual.of is {told['of']!r:.40}")
    file = folder / (MEANS_FILE if told.get("of") else "neighbours.safetensors")
    try:
        with safe_open(file, "numpy") as tensors:
            rows = tensors.get_slice("features")
            whole = examples <= rows.get_shape()[0]
            bank = rows[: examples if whole else 0].astype(np.float32)
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if bank.shape != (examples, dimension) or not np.isfinite(bank).all():
        raise DataError(
            f"{file} is damaged: bundle.json tells of {examples} rows of {dimension} numbers"
        )
    return Usual(bank, k, threshold)

"""Novelty detection: how far an example's features are from those of the training examples.

The distance is the one to the k-th nearest training example, between features of length 1 (Sun,
Ming, Zhu and Li, "Out-of-distribution detection with deep nearest neighbors", ICML 2022). An
example is novel (`unusual`) if it is farther away than 95 % of the validation examples, none of
which was trained on. The nearest one (k = 1) detects best in small sets, and every class has one
(benchmarks/sets.md).

Answers stay quick because the distance is taken to at most 1,000 examples. They are called the
bank, and are the first rows of the bundle's neighbours.

If a bundle is to hold no training example, the bank is the mean of each class. That is nearly as
good at detecting what is far from training, and as good or worse for what is near.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from ..core.errors import DataError
from .explain import directions

K = 1
MOST = 1000  # examples in the bank
LEAST = 5  # examples of a class; the mean of fewer would give them away
MEANS = "class_means"  # `usual.of` of `bundle.json` if they are the bank
MEANS_FILE = f"{MEANS}.safetensors"
WHY_NOT = (
    "so its answers detect no novelty: that takes the means of classes, each of"
    f" {LEAST} training examples or more"
)
KEPT = 0.95  # fraction of in-distribution examples that are not reported as novel
FEWEST = math.ceil(round(KEPT / (1 - KEPT), 6))  # with fewer, the largest distance keeps less

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Novelty:
    """Its fields in `bundle.json`: which bank [examples, d] there is, and the threshold.

    The bank is the means of classes or, if not `of_means`, training examples. An example is novel
    if it is farther than `threshold` from the `k`-th nearest, which rests on that many examples of
    a split. It is None if there were too few examples to find it.
    """

    examples: int
    threshold: float | None
    k: int = K
    kept: float = KEPT
    of_means: bool = False
    rests_on: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, content: dict[str, Any]) -> Self:
        """Read what `content` returned, whoever wrote it.

        Raises:
            ValueError: it is damaged.
        """
        k, examples, threshold = (content.get(name) for name in ("k", "examples", "threshold"))
        if type(k) is not int or type(examples) is not int or not 1 <= k <= examples:
            raise ValueError(f"usual.k is {k!r:.40}, of {examples!r:.40} examples")
        if threshold is not None and not (type(threshold) in (float, int) and 0 <= threshold <= 2):
            raise ValueError(f"usual.threshold is {threshold!r:.40}")
        if content.get("of") not in (None, MEANS):
            raise ValueError(f"usual.of is {content['of']!r:.40}")
        of_means, rests_on = content.get("of") == MEANS, content.get("rests_on", {})
        return cls(examples, threshold, k, content.get("kept", KEPT), of_means, rests_on)

    def content(self) -> dict[str, Any]:
        """The part of `bundle.json`."""
        content: dict[str, Any] = {"of": MEANS} if self.of_means else {}
        content |= {"k": self.k, "examples": self.examples, "kept": self.kept}
        content["threshold"] = self.threshold
        return content | ({"rests_on": self.rests_on} if self.rests_on else {})


@dataclass(frozen=True)
class Detector:
    """The bank [n, d], which neighbour counts, and the distance from which an example is novel.

    `threshold` is None if there were too few examples to find it.
    """

    bank: Floats
    k: int
    threshold: float | None

    def distance(self, features: Floats) -> float:
        """The distance, from 0 to 2, of an example's features [d] as the head sees them."""
        # NumPy would divide a product with a matrix among several cores. An answer has one core,
        # and the others are busy with other answers.
        cosines = np.einsum("nd,d->n", self.bank, directions(features[None])[0])
        nearest = float(cosines.max() if self.k == 1 else np.partition(cosines, -self.k)[-self.k])
        return math.sqrt(max(2 - 2 * nearest, 0))

    def unusual(self, distance: float) -> bool | None:
        """Whether an example at this distance is out of distribution; None if that is not known."""
        return None if self.threshold is None else distance > self.threshold


def bank_first(labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """The order of training examples in which the first `MOST` are the bank.

    If there are no more than that, they keep their order. If there are more, each class gives its
    first example, then its second and so on, so that a rare class is not left out.

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
    """The mean direction of the examples of each class, [classes, d].

    Args:
        neighbours: [n, d], the training examples' features of length 1.
        labels: [n], positions of their classes.
        classes: how many there are.
    """
    sums = np.zeros((classes, neighbours.shape[1]), np.float32)
    np.add.at(sums, labels, neighbours)
    return directions(sums)


def of_examples(neighbours: npt.NDArray[np.floating], keys: Sequence[str], val: Floats) -> Novelty:
    """The threshold for a bank of training examples.

    Args:
        neighbours: [n, d], the training examples' features of length 1, the bank first.
        keys: of each its group or its digest; what has the same key is no neighbour.
        val: [m, d], the validation examples' features as the head sees them.
    """
    bank = neighbours[:MOST].astype(np.float32)
    found = _nearest(directions(val), bank, [""] * len(val), keys[:MOST])
    on = "validation"
    if len(found) < FEWEST:
        # Each training example is compared with the others.
        found = _nearest(bank, bank, keys[:MOST], keys[:MOST])
        on = "training"
    if len(found) < FEWEST:
        return Novelty(len(bank), None)
    return Novelty(len(bank), _threshold(found), rests_on={on: len(found)})


def of_means(means: npt.NDArray[np.floating], val: Floats) -> Novelty:
    """The same if the bank is the classes' means, so that no training example can help.

    Args:
        means: [classes, d], as `class_means` gives them.
        val: [m, d], as above.
    """
    if len(val) < FEWEST:
        return Novelty(len(means), None, of_means=True)
    found = _nearest(directions(val), means.astype(np.float32), ["val"] * len(val), [""])
    rests_on = {"validation": len(found)}
    return Novelty(len(means), _threshold(found), of_means=True, rests_on=rests_on)


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
    """The distances [m] to the k-th nearest, from cosines [m, n]."""
    if not len(cosines):
        return np.empty(0)
    place = cosines.shape[1] - k
    nearest = np.partition(cosines, place, axis=1)[:, place].astype(np.float64)
    return np.sqrt(np.maximum(2 - 2 * nearest, 0))


def read(folder: Path, novelty: Novelty, dimension: int) -> Detector:
    """The bank of a bundle, of features of a dimension.

    Raises:
        DataError: it is damaged.
    """
    file = folder / (MEANS_FILE if novelty.of_means else "neighbours.safetensors")
    try:
        with safe_open(file, "numpy") as tensors:
            rows = tensors.get_slice("features")
            whole = novelty.examples <= rows.get_shape()[0]
            bank = rows[: novelty.examples if whole else 0].astype(np.float32)
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if bank.shape != (novelty.examples, dimension) or not np.isfinite(bank).all():
        raise DataError(
            f"{file} is damaged: bundle.json has {novelty.examples} rows of {dimension} features"
        )
    return Detector(bank, novelty.k, novelty.threshold)

"""Novelty detection: how far an example's features are from those of the training examples.

The distance is measured to the k-th nearest training example, between features of length 1 (Sun,
Ming, Zhu and Li, "Out-of-distribution detection with deep nearest neighbors", ICML 2022). An
example is novel (`unusual`) if it is farther away than 95 % of the validation examples, or of the
training examples if there are too few validation examples. In small data sets the nearest example
(k = 1) detects novelty best, and every class has at least one example (benchmarks/sets.md).

The distance is computed to at most 1,000 examples, so that prediction stays fast. These examples
are called the bank, and are the first rows of the bundle's neighbours.

If a bundle may not include training examples, the bank is the mean of each class. Such a bank
detects far novelty nearly as well, and near novelty equally well or worse.
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
LEAST = 5  # examples of a class; a mean of fewer would disclose them
MEANS = "class_means"  # `usual.of` in `bundle.json` if the bank is the class means
MEANS_FILE = f"{MEANS}.safetensors"
AT_ONCE = 4096  # rows scaled at once
WHY_NOT = (
    "so there is no novelty detection: it needs classes with at least"
    f" {LEAST} training examples each"
)
KEPT = 0.95  # fraction of in-distribution examples that are not reported as novel
FEWEST = math.ceil(round(KEPT / (1 - KEPT), 6))  # fewer distances have no such quantile

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Novelty:
    """The fields of novelty detection in `bundle.json`: the bank [examples, d] and the threshold.

    The bank has class means if `of_means`, else training examples. An example is novel if it is
    farther than `threshold` from the `k`-th nearest row of the bank. `rests_on` has the split that
    set the threshold, and its number of examples. `threshold` is None if they were too few.
    """

    examples: int
    threshold: float | None
    k: int = K
    kept: float = KEPT
    of_means: bool = False
    rests_on: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, content: dict[str, Any]) -> Self:
        """Read the output of `content`, which may come from anyone.

        Raises:
            ValueError: the content is damaged.
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
        """Return the fields in `bundle.json`."""
        content: dict[str, Any] = {"of": MEANS} if self.of_means else {}
        content |= {"k": self.k, "examples": self.examples, "kept": self.kept}
        content["threshold"] = self.threshold
        return content | ({"rests_on": self.rests_on} if self.rests_on else {})


@dataclass(frozen=True)
class Detector:
    """The bank [n, d], the rank `k` of the neighbour, and the threshold of the distance.

    `threshold` is None if there were too few examples to set it.
    """

    bank: Floats
    k: int
    threshold: float | None

    def distance(self, features: Floats) -> float:
        """Return the distance, from 0 to 2, of features [d], which are as the head expects them."""
        # NumPy would spread a matrix product over several cores. A prediction has one core, since
        # the others are busy with other answers.
        cosines = np.einsum("nd,d->n", self.bank, directions(features[None])[0])
        nearest = float(cosines.max() if self.k == 1 else np.partition(cosines, -self.k)[-self.k])
        return math.sqrt(max(2 - 2 * nearest, 0))

    def unusual(self, distance: float) -> bool | None:
        """Whether an example at this distance is out of distribution; None without a threshold."""
        return None if self.threshold is None else distance > self.threshold


def bank_first(labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the order of training examples in which the first `MOST` are the bank.

    `MOST` examples or fewer keep their order. If there are more, the first example of each class
    comes first, then the second of each class and so on, so that no rare class is left out.

    Args:
        labels: the labels of the examples, sorted by digest, which is a random order.
    """
    if len(labels) <= MOST:
        return np.arange(len(labels))
    seen: Counter[str] = Counter()
    turn = []
    for label in labels:
        turn.append(seen[label])
        seen[label] += 1
    return np.argsort(np.array(turn), kind="stable")


def class_means(
    features: Floats, rows: npt.NDArray[np.integer], labels: npt.NDArray[np.integer], classes: int
) -> Floats:
    """Return the mean direction of the examples of each class, [classes, d].

    Args:
        features: [n, d].
        rows: which rows of `features` to average.
        labels: [n], positions of the rows' classes.
    """
    sums = np.zeros((classes, features.shape[1]), np.float32)
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        np.add.at(sums, labels[some], directions(features[some]))
    return directions(sums)


def of_examples(neighbours: npt.NDArray[np.floating], keys: Sequence[str], val: Floats) -> Novelty:
    """Set the threshold for a bank of training examples.

    Args:
        neighbours: [n, d], the training examples' features of length 1, the bank first.
        keys: each example's group or digest; examples with the same key are not neighbours.
        val: [m, d], the validation examples' features as the head expects them.
    """
    bank = neighbours[:MOST].astype(np.float32)
    found = _of_val(val, bank, keys[:MOST])
    on = "validation"
    if len(found) < FEWEST:
        # Each training example is compared with the others.
        found = _nearest(bank, bank, keys[:MOST], keys[:MOST])
        on = "training"
    if len(found) < FEWEST:
        return Novelty(len(bank), None)
    return Novelty(len(bank), _threshold(found), rests_on={on: len(found)})


def of_means(means: npt.NDArray[np.floating], val: Floats) -> Novelty:
    """Set the threshold for a bank of class means; training examples cannot replace `val` here.

    Args:
        means: [classes, d], from `class_means`.
        val: [m, d], as in `of_examples`.
    """
    if len(val) < FEWEST:
        return Novelty(len(means), None, of_means=True)
    found = _of_val(val, means.astype(np.float32), ["mean"])
    rests_on = {"validation": len(found)}
    return Novelty(len(means), _threshold(found), of_means=True, rests_on=rests_on)


def _threshold(distances: npt.NDArray[np.float64]) -> float:
    """Return the distance that a fraction `KEPT` of the examples does not exceed."""
    rank = math.ceil(round((len(distances) + 1) * KEPT, 6))
    return float(f"{np.sort(distances)[rank - 1]:.6g}")


def _of_val(val: Floats, bank: Floats, of_bank: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the distances of validation examples [m, d] to the nearest rows of the bank."""
    chunks = [directions(val[start : start + AT_ONCE]) for start in range(0, len(val), AT_ONCE)]
    return np.concatenate(
        [np.empty(0), *(_nearest(some, bank, [""] * len(some), of_bank) for some in chunks)]
    )


def _nearest(
    features: Floats, bank: Floats, keys: Sequence[str], of_bank: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Return distances of rows [m, d] to bank rows with other keys; drop rows that have none."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys([*keys, *of_bank]))}
    own, theirs = (np.array([numbers[key] for key in some]) for some in (keys, of_bank))
    parts = [np.empty(0)]
    for start in range(0, len(features), 256):
        rows = slice(start, start + 256)
        cosines = np.where(own[rows, None] == theirs, -np.inf, features[rows] @ bank.T)
        known = (cosines > -np.inf).sum(axis=1) >= K
        parts.append(_distances(cosines[known], K))
    return np.concatenate(parts)


def _distances(cosines: Floats, k: int) -> npt.NDArray[np.float64]:
    """Return the distances [m] to the k-th nearest, from cosines [m, n]."""
    if not len(cosines):
        return np.empty(0)
    place = cosines.shape[1] - k
    nearest = np.partition(cosines, place, axis=1)[:, place].astype(np.float64)
    return np.sqrt(np.maximum(2 - 2 * nearest, 0))


def read(folder: Path, novelty: Novelty, dimension: int) -> Detector:
    """Read the detector of a bundle whose features have `dimension` dimensions.

    Raises:
        DataError: the bank cannot be read or is damaged.
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

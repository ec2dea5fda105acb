"""Prediction sets of labels, and prediction intervals of targets (conformal prediction).

`conformal.py` calibrates sets and intervals; this module stores and applies the calibration, and
needs only NumPy.

The method for sets is RAPS (Angelopoulos, Bates, Malik and Jordan, "Uncertainty sets for image
classifiers using conformal prediction", ICLR 2021). A label's score is the total probability of the
more probable labels, plus a penalty for each rank after the first few. The set contains the labels
whose score is at most a quantile. The most probable label has the score 0, so it is always in the
set. RAPS also adds a random fraction of the label's own probability to its score. The sets then
have exactly the nominal coverage, but some are empty, and the same input can get different sets.
Headstart therefore leaves out the random fraction in the sets that it returns, and calibrates their
quantile without it.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..tables.unit import unit
from ..tasks import TASKS

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
AT_ONCE = 2**22  # probabilities sorted at once


@dataclass(frozen=True)
class LabelSets:
    """The calibration of sets, which contain the labels whose score is at most `quantile`.

    Each rank after the first `k_reg` adds `penalty`, which the paper calls lambda.
    """

    quantile: float
    penalty: float
    k_reg: int


@dataclass(frozen=True)
class PredictionSets:
    """The calibration of a head's prediction sets or intervals, and the examples behind it.

    Sets and intervals contain the truth with probability `coverage`. Sets of classes use `labels`;
    intervals extend by `reach` [t] to either side of each predicted target. If there is neither,
    `why_none` has the reason. `randomised` is the quantile of the paper's randomised sets.
    `examples` is the number of held-out examples, `folds` the number of heads trained for them, and
    `groups` the number of their groups; None without groups.
    """

    coverage: float
    why_none: str = ""
    labels: LabelSets | None = None
    randomised: float = 0.0
    reach: tuple[float, ...] = ()
    examples: int = 0
    folds: int = 0
    groups: int | None = None

    @classmethod
    def of(cls, content: object, outputs: int, task: str) -> Self:
        """Read the fields that the method `content` returned, from the head or bundle's JSON file.

        Args:
            content: the fields, in `models/head.json` or `bundle.json`.

        Raises:
            KeyError, TypeError, ValueError: the fields are damaged.
        """
        if not isinstance(content, dict):
            raise TypeError(f"sets is {content!r:.40}")
        if "why_no_sets" in content:  # in a bundle there is no other field then
            return cls(_number(content, "coverage", 0.0), str(content["why_no_sets"]))
        coverage = content["coverage"]
        if not (isinstance(coverage, float) and 0 < coverage < 1):
            raise ValueError(f"sets: coverage is {coverage!r:.40}")
        if TASKS[task].conformal is None:
            raise TypeError("the task has no prediction sets")
        found = cls(
            coverage,
            randomised=_number(content, "randomised", 0.0),
            examples=int(_number(content, "examples", 0)),
            folds=int(_number(content, "folds", 0)),
            groups=int(_number(content, "groups")) if "groups" in content else None,
        )
        if TASKS[task].conformal == "sets":
            quantile, penalty, k_reg = (
                _number(content, n) for n in ("quantile", "lambda", "k_reg")
            )
            return replace(found, labels=LabelSets(quantile, penalty, int(k_reg)))
        reach = content["reach"]
        if not isinstance(reach, list) or len(reach) != outputs:
            raise ValueError(f"sets: reach is not a list of {outputs} numbers")
        return replace(found, reach=tuple(_number({"reach": one}, "reach") for one in reach))

    def content(self) -> dict[str, Any]:
        """Return the fields to write as JSON."""
        if self.why_none:
            return {"coverage": self.coverage, "why_no_sets": self.why_none}
        rests: dict[str, Any] = {"examples": self.examples, "folds": self.folds}
        if self.groups is not None:
            rests["groups"] = self.groups
        if self.labels is None:
            made: dict[str, Any] = {"method": "residuals", "reach": list(self.reach)}
        else:
            made = {
                "method": "RAPS",
                "quantile": self.labels.quantile,
                "lambda": self.labels.penalty,
                "k_reg": self.labels.k_reg,
                "randomised": self.randomised,
            }
        return {"coverage": self.coverage} | made | rests


def _number(content: dict[str, Any], name: str, default: float | None = None) -> float:
    value = content[name] if default is None else content.get(name, default)
    if isinstance(value, bool) or not isinstance(value, float | int):
        raise TypeError(f"sets: {name} is {value!r:.40}")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"sets: {name} is {value!r:.40}")
    return float(value)


def size(probabilities: npt.NDArray[np.floating], sets: LabelSets) -> tuple[int, Integers]:
    """Return the size of a set, and all labels in descending order of probability.

    Args:
        probabilities: [c], the probabilities of one example.
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order].astype(np.float64)
    scores = np.cumsum(ranked) - ranked
    scores += _penalties(len(scores), sets)
    return int(np.searchsorted(scores, sets.quantile, side="right")), order


def sizes(
    probabilities: npt.NDArray[np.floating], sets: LabelSets, drawn: Doubles | None = None
) -> Integers:
    """Return the sizes [n] of the sets of many examples [n, c].

    With random numbers `drawn` [n] from 0 to 1, the sets are randomised and may be empty.
    """
    found = np.empty(len(probabilities), np.int64)
    penalties = _penalties(probabilities.shape[1], sets)
    for some in chunks(probabilities.shape):
        ranked = -np.sort(-probabilities[some].astype(np.float64), axis=1)
        scores = np.cumsum(ranked, axis=1) - ranked + penalties
        if drawn is not None:
            scores += drawn[some, None] * ranked
        found[some] = (scores <= sets.quantile).sum(axis=1)
    return found


def before(
    probabilities: npt.NDArray[np.floating], labels: Integers
) -> tuple[Integers, Doubles, Doubles]:
    """Return each label's rank, the probability of the labels before it, and its own probability.

    Args:
        probabilities: [n, c].
        labels: [n].

    Returns:
        the rank from 1 [n], the total probability of the labels before it [n], and the probability
        of the label [n].
    """
    rank, ahead = np.empty(len(labels), np.int64), np.empty(len(labels))
    own = np.empty(len(labels))
    places = np.arange(probabilities.shape[1])
    for some in chunks(probabilities.shape):
        part = probabilities[some].astype(np.float64)
        label = labels[some, None]
        mine = np.take_along_axis(part, label, axis=1)
        # If probabilities are equal, the first class comes first, as in `size`.
        first = (part > mine) | ((part == mine) & (places < label))
        rank[some] = first.sum(axis=1) + 1
        ahead[some] = np.where(first, part, 0).sum(axis=1)
        own[some] = mine[:, 0]
    return rank, ahead, own


def uniform(digests: npt.NDArray[np.str_]) -> Doubles:
    """Return a pseudo-random number from 0 to 1 for each example, [n], from its digest."""
    return np.array([unit(f"set:{digest}") for digest in digests.tolist()], np.float64)


def of_groups(groups: npt.ArrayLike) -> Doubles:
    """Return weights [n] of the rows; those of each group add up to 1."""
    _, which, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    weights: Doubles = 1 / sizes[which]
    return weights


def chunks(shape: tuple[int, ...]) -> list[slice]:
    """Return slices of a table's rows that limit how many values are in memory at once."""
    rows = max(1, AT_ONCE // max(1, shape[1]))
    return [slice(start, start + rows) for start in range(0, shape[0], rows)]


def _penalties(classes: int, sets: LabelSets) -> Doubles:
    """Return the penalty of each rank, [c], beginning with the most probable label."""
    found: Doubles = sets.penalty * np.maximum(np.arange(1, classes + 1) - sets.k_reg, 0)
    return found

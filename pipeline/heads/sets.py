"""Prediction sets of labels, and prediction intervals of targets (conformal prediction).

What `conformal.py` calibrates is described and applied here, with NumPy alone.

The labels are those of RAPS (Angelopoulos, Bates, Malik and Jordan, "Uncertainty sets for image
classifiers using conformal prediction", ICLR 2021). A label's score is the probability of all
labels that are more probable than it, and a penalty for each rank that it lies behind the first
few. The set holds the labels whose score is at most a quantile. The most probable label has the
score 0, so it is always in the set. RAPS adds to the score a random part of the label's own
probability. Sets then have exactly the nominal coverage, but some are empty, and the same question
gets several answers. So that part is 0 in the sets that people get, and their quantile is that of
scores without it.
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
    """Which labels a set holds: those whose score is at most `quantile`.

    The penalty is `penalty` for each rank behind the first `k_reg`; the paper calls it lambda.
    """

    quantile: float
    penalty: float
    k_reg: int


@dataclass(frozen=True)
class PredictionSets:
    """The calibration of a head's prediction sets or intervals, and what it rests on.

    They hold the truth with the probability `coverage`. Sets of classes are made with `labels`;
    intervals reach by `reach` [t] to either side of each target. If there is neither, `why_none`
    says why. `randomised` is the quantile of the paper's sets. `examples` is how many were held
    out, `folds` how many heads were trained for that, and `groups` how many groups the examples
    come from, if they do.
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
        """Read what `content` made, in `models/head.json` or `bundle.json`.

        Args:
            content: to be read.
            outputs: how many classes or targets the head has.
            task: what it answers with.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        if not isinstance(content, dict):
            raise TypeError(f"sets is {content!r:.40}")
        if "why_no_sets" in content:  # a bundle says no more
            return cls(_number(content, "coverage", 0.0), str(content["why_no_sets"]))
        coverage = content["coverage"]
        if not (isinstance(coverage, float) and 0 < coverage < 1):
            raise ValueError(f"sets: coverage is {coverage!r:.40}")
        if TASKS[task].conformal is None:
            raise TypeError("sets is not a table of this task")
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
        """The fields to write as JSON."""
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
    """How many of the most probable labels a set holds, and all labels, the most probable first.

    Args:
        probabilities: [c], the probabilities of one example.
        sets: as they were calibrated.
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order].astype(np.float64)
    scores = np.cumsum(ranked) - ranked
    scores += _penalties(len(scores), sets)
    return int(np.searchsorted(scores, sets.quantile, side="right")), order


def sizes(
    probabilities: npt.NDArray[np.floating], sets: LabelSets, drawn: Doubles | None = None
) -> Integers:
    """The same of many examples [n, c]: how many labels each set holds, [n].

    With `drawn` [n], numbers from 0 to 1, the sets are randomised and may be empty.
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
    """For each example's label: its rank from 1, the probability of all before it, and its own.

    Args:
        probabilities: [n, c].
        labels: [n].

    Returns:
        rank [n], probability of all labels before it [n], its own probability [n].
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
    """A number from 0 to 1 of each example, [n], drawn from its digest."""
    return np.array([unit(f"set:{digest}") for digest in digests.tolist()], np.float64)


def of_groups(groups: npt.ArrayLike) -> Doubles:
    """What each row weighs [n], so that the rows of a group weigh one together."""
    _, which, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    weights: Doubles = 1 / sizes[which]
    return weights


def chunks(shape: tuple[int, ...]) -> list[slice]:
    """Slices of the rows of a table, so that not too many values are held at once."""
    rows = max(1, AT_ONCE // max(1, shape[1]))
    return [slice(start, start + rows) for start in range(0, shape[0], rows)]


def _penalties(classes: int, sets: LabelSets) -> Doubles:
    """The penalties of the ranks of the labels, the most probable first, [c]."""
    found: Doubles = sets.penalty * np.maximum(np.arange(1, classes + 1) - sets.k_reg, 0)
    return found

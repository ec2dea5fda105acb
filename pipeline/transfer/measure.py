"""Figures of a trained network's answers."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..evaluation import comparing
from ..evaluation.intervals import Groups
from ..heads import losses
from ..heads.head import Floats
from ..heads.trained import Figures, figure_names
from .goal import CLASSES, Goal


def measure(
    logits: Floats,
    labels: npt.NDArray[Any],
    class_weights: Sequence[float | tuple[float, float]] | None = None,
    loss: str = "softmax",
) -> tuple[float, float]:
    """Mean loss, weighted by class, and accuracy (R² in regression); NaN without examples.

    Args:
        logits: [n, c].
        labels: as the loss takes them; targets in the units that they are learned in.
        class_weights: as `heads.losses` has them; None weighs all alike.
        loss: one of `heads.losses.LOSSES`.
    """
    weights = np.ones(logits.shape[1]) if class_weights is None else np.array(class_weights)
    return losses.figures(loss, lambda some: logits[some], labels, weights.astype(np.float32))


def figures_of(
    logits: Floats,
    labels: npt.NDArray[Any],
    confidence: float,
    goal: Goal = CLASSES,
    groups: Groups | None = None,
) -> dict[str, float | None]:
    """Loss, the task's measure and the ends of its interval, as reports have them.

    A measure that is not defined for these examples (R² of a single one) is None.

    Args:
        logits: [n, c].
        labels: as they are learned.
        confidence: of the interval.
        goal: what was learned.
        groups: [n], the group of each example; None if each is its own group.
    """
    loss, _ = measure(logits, labels, loss=goal.loss)
    score = comparing.scored(goal.task, logits, labels, confidence, groups)
    named = {"loss": loss, comparing.measure(goal.task): score.value}
    named |= {"low": score.low, "high": score.high}
    return _rounded(named)


def gain(
    frozen: Floats,
    trained: Floats,
    labels: npt.NDArray[Any],
    confidence: float,
    goal: Goal,
    groups: Groups,
) -> tuple[dict[str, float | None], str]:
    """How much less a network that was trained loses than the frozen one, by the paired t-test.

    Args:
        frozen: the logits of the head on the frozen network, [n, c].
        trained: those of the network that was trained, on the same examples.
        labels: as they are learned.
        confidence: of the interval.
        goal: what was learned.
        groups: [n], the group of each example.

    Returns:
        the difference, as reports have it; the same in words.
    """
    one, other = (
        comparing.example_losses(goal.task, logits, labels) for logits in (frozen, trained)
    )
    known = ~np.isnan(one)
    found = comparing.difference(one[known], other[known], confidence, groups[known])
    clear = found.p_value < 1 - confidence
    verdict = ("better" if found.mean > 0 else "worse") if clear else "no clear difference"
    words = (
        f"{verdict}: the frozen network's loss is higher by {found.mean:.4f}"
        f" ({found.low:.4f} to {found.high:.4f}, p = {found.p_value:.2g})"
    )
    return _rounded(asdict(found)), words


def _rounded(named: dict[str, float]) -> dict[str, float | None]:
    return {
        name: float(f"{value:.6g}") if math.isfinite(value) else None
        for name, value in named.items()
    }


def write_curve(curve: list[Figures], file: Path, loss: str = "softmax") -> None:
    """One row per epoch; what an epoch does not have stays empty."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([asdict(figures) for figures in curve])
    table.columns = ["epoch", *figure_names(loss)]
    table.to_csv(file, index=False, float_format="%.6g", lineterminator="\n")

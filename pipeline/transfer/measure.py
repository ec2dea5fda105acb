"""Metrics of a trained network's predictions."""

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
    """Return class-weighted mean loss, and accuracy (R² in regression); NaN without examples.

    Args:
        logits: [n, c].
        labels: labels, or targets in the units in which they are learned.
        class_weights: as in `heads.losses`; None for equal weights.
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
    """Return loss, the task's metric and the ends of its interval, as in reports.

    A metric that is not defined for these examples (such as R² of a single one) is None.

    Args:
        logits: [n, c].
        labels: labels in the units in which they are learned.
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
    """Return how much lower the trained network's loss is, by the paired t-test.

    Args:
        frozen: logits of the head on the frozen network, [n, c].
        trained: logits of the trained network for the same examples, [n, c].
        labels: labels in the units in which they are learned.
        groups: [n], the group of each example.

    Returns:
        the difference as reports have it, and in words.
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
    """Write one row per epoch; missing values stay empty."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([asdict(figures) for figures in curve])
    table.columns = ["epoch", *figure_names(loss)]
    table.to_csv(file, index=False, float_format="%.6g", lineterminator="\n")

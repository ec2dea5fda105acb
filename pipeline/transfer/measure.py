"""Figures of a trained network's answers."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from ..heads.head import Floats, probabilities
from ..heads.trained import Figures
from ..tasks.metrics import bootstrap, interval

RESAMPLES = 1000  # behind each interval


def measure(
    logits: Floats, labels: npt.NDArray[np.int64], class_weights: Sequence[float] | None = None
) -> tuple[float, float]:
    """Mean cross-entropy, weighted by the labels' classes, and accuracy; NaN without examples."""
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float64)
    loss = nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(labels), weights
    )
    return float(loss), float((logits.argmax(axis=1) == labels).mean())


def figures_of(logits: Floats, labels: npt.NDArray[np.int64], confidence: float) -> dict[str, Any]:
    """Loss, accuracy and the ends of the accuracy's bootstrap interval, as reports have them."""
    loss, accuracy = measure(logits, labels)
    shares = probabilities(logits)
    resampled = bootstrap(labels, shares, 1, 1, RESAMPLES, 0).overall["accuracy"]
    low, high = interval(resampled, confidence)
    named = {"loss": loss, "accuracy": accuracy, "low": float(low), "high": float(high)}
    return {name: float(f"{value:.6g}") for name, value in named.items()}


def write_curve(curve: list[Figures], file: Path) -> None:
    """A row an epoch; what an epoch does not have stays empty."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([asdict(figures) for figures in curve])
    table.to_csv(file, index=False, float_format="%.6g", lineterminator="\n")

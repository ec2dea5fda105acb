"""The predictions of two models for the same test examples, ready to be compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..tables import cells
from ..tables.manifest import TARGET
from .metrics import Weigh


def read_answers(predictions: Path, manifest: Path) -> pd.DataFrame | None:
    """Return a model's predictions by digest, one row per test example; None if unusable.

    The rows also have the manifest's columns of targets, and its column `group` if there is one.

    Args:
        predictions: the file that `evaluate` writes.
    """
    try:
        texts = {"path": str, "label": str, "predicted": str}
        written = pd.read_csv(predictions, dtype=texts, keep_default_na=False)
        answers = cells.as_written(written)
        names = pq.read_schema(manifest).names
        targets = [name for name in names if name.startswith(TARGET)]
        beside = [*targets, *(["group"] if "group" in names else [])]
        rows = pd.read_parquet(manifest, columns=["path", "digest", *beside]).set_index("path")
    except (FileNotFoundError, ValueError, pa.ArrowException):
        return None
    if not {"label", *([] if targets else ["predicted", "probability"])} <= set(answers.columns):
        return None  # predictions of another project
    of_rows = rows.reindex(answers["path"])
    found = answers.set_index(pd.Index(of_rows["digest"], name="digest"))
    return found.assign(**{name: of_rows[name].to_numpy() for name in beside})


@dataclass(frozen=True)
class Pair:
    """The predictions of two models, old and new: whether each is `right`, or how to measure them.

    `differing` [n] says for which examples the predictions differ in what the measure depends on:
    the predicted class for F1, the probabilities for the loss.
    """

    right: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None = None
    weigh: tuple[Weigh, ...] = ()
    outputs: int = 1
    differing: npt.NDArray[np.bool_] | None = None


def differing(before: npt.NDArray[Any], now: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return for which examples [n] the rows [n, c] of two models differ."""
    found: npt.NDArray[np.bool_] = (before != now).any(axis=1)
    return found


def every_probability(answers: pd.DataFrame) -> pd.DataFrame:
    """Return the probability of each class or label; no columns if there are none in the table."""
    every = [name for name in answers.columns if name.startswith("p(") and name.endswith(")")]
    return answers[every].rename(columns=lambda name: name[2:-1])

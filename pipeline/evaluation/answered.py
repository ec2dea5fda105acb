"""The answers of two models about the same test examples, ready to be measured side by side."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..tables import cells
from ..tables.manifest import TARGET
from .metrics import Array, Weigh


def read_answers(predictions: Path, manifest: Path) -> pd.DataFrame | None:
    """A model's answers, one row per test example, by its digest; None if there are none.

    The manifest's column `group` stands beside them, if there is one, and its columns of targets.

    Args:
        predictions: as `evaluate` writes it.
        manifest: of the same run.
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
        return None  # another project's
    of_rows = rows.reindex(answers["path"])
    found = answers.set_index(pd.Index(of_rows["digest"], name="digest"))
    return found.assign(**{name: of_rows[name].to_numpy() for name in beside})


@dataclass(frozen=True)
class Pair:
    """The answers of two models, old and new: whether each is `right`, or how to measure.

    `differing` are the examples [n] whose answers differ.
    """

    right: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None = None
    weigh: tuple[Weigh, ...] = ()
    outputs: int = 1
    differing: npt.NDArray[np.bool_] | None = None


def differing(before: Array, now: Array) -> npt.NDArray[np.bool_]:
    """The examples [n] for which the answers [n, c] of two models differ."""
    found: npt.NDArray[np.bool_] = (before != now).any(axis=1)
    return found


def every_probability(answers: pd.DataFrame) -> pd.DataFrame:
    """The probabilities, as far as there is a column for every class or label."""
    every = [name for name in answers.columns if name.startswith("p(") and name.endswith(")")]
    return answers[every].rename(columns=lambda name: name[2:-1])

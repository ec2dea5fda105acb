"""What two models answered about the same test examples, ready to be measured side by side."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..tables import cells
from ..tables.manifest import TARGET
from ..tasks import SEPARATOR
from . import label_metrics, number_metrics
from .metrics import Array, Weigh, weighted

MEASURES = r"loss|balanced_accuracy|macro_f1|calibration_error|top_(\d+)_accuracy"
OF_LABELS = ("loss", "mean_average_precision", "micro_f1", "macro_f1", "exact_match")
OF_CHOSEN = ("micro_f1", "macro_f1")  # of these measures, those that no probability is needed for
OF_NUMBERS = ("mae", "rmse", "r2")


def read_answers(predictions: Path, manifest: Path) -> pd.DataFrame | None:
    """A model's answers, a row a test example, by its digest; None where there are none.

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
    """What two models answered, old and new: whether each answer is `right`, or how to measure.

    `differing` are the examples [n] of which they say something else.
    """

    right: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None = None
    weigh: tuple[Weigh, ...] = ()
    outputs: int = 1
    differing: npt.NDArray[np.bool_] | None = None


def paired(old: pd.DataFrame, new: pd.DataFrame, measure: str, bins: int) -> Pair | None:
    """The answers of two models about the same examples, in the same order.

    Args:
        old: as `read_answers` gives them.
        new: those of the other model, whose labels or numbers are taken for true.
        measure: by what they are to be compared.
        bins: of the calibration error.

    Returns:
        None where the answers do not tell the measure.
    """
    columns = [name for name in new.columns if name.startswith(TARGET)]
    if not columns:
        return _of_classes(old, new, measure, bins)
    names, targets = [name.removeprefix(TARGET) for name in columns], new[columns].to_numpy(float)
    numbers = f"predicted({names[0]})" in new.columns
    return (_of_numbers if numbers else _of_labels)(old, new, measure, names, targets)


def _of_classes(old: pd.DataFrame, new: pd.DataFrame, measure: str, bins: int) -> Pair | None:
    given = new["label"]
    if measure == "accuracy":
        was, now = ((answers["predicted"] == given).to_numpy() for answers in (old, new))
        return Pair(right=(was, now))
    known = re.fullmatch(MEASURES, measure)
    found = [_shares(answers, measure) for answers in (old, new)]
    if not known or not all(len(shares.columns) for shares in found):
        return None
    names = sorted({*given}.union(*(table.columns for table in found)))
    labels = pd.Index(names).get_indexer(given).astype(np.int64)
    shares = [table.reindex(columns=names, fill_value=0).to_numpy(float) for table in found]
    top_k = int(known[1] or 1)
    weigh = tuple(
        partial(weighted, labels=labels, shares=one, top_k=top_k, bins=bins) for one in shares
    )
    return Pair(weigh=weigh, outputs=len(names), differing=_differing(*shares))


def _of_labels(
    old: pd.DataFrame, new: pd.DataFrame, measure: str, names: list[str], targets: Array
) -> Pair | None:
    """Several labels: those that `new` has targets for, whatever labels `old` knew."""
    if measure not in OF_LABELS or not all("predicted" in table for table in (old, new)):
        return None
    chosen = [_chosen(answers, names) for answers in (old, new)]
    known = ~np.isnan(targets)
    if measure == "exact_match":
        was, now = (((one == targets) | ~known).all(axis=1) for one in chosen)
        return Pair(right=(was, now))
    shares = [one.astype(float) for one in chosen]
    if measure not in OF_CHOSEN:  # the probability of every label is needed
        tables = [_every_share(answers) for answers in (old, new)]
        if not all(len(table.columns) for table in tables):
            return None
        shares = [t.reindex(columns=names, fill_value=0).to_numpy(float) for t in tables]
    about = [label_metrics.Answers.of(targets, *one) for one in zip(shares, chosen, strict=True)]
    weigh = tuple(partial(label_metrics.weighted, about=one) for one in about)
    differing = _differing(*(np.where(known, one, 0) for one in shares))
    return Pair(weigh=weigh, outputs=len(names), differing=differing)


def _of_numbers(
    old: pd.DataFrame, new: pd.DataFrame, measure: str, names: list[str], targets: Array
) -> Pair | None:
    """Numbers: those that `new` has targets for."""
    predicted = [f"predicted({name})" for name in names]
    if measure not in OF_NUMBERS or not set(predicted) <= set(old.columns) & set(new.columns):
        return None
    answers = [table[predicted].to_numpy(float) for table in (old, new)]
    weigh = tuple(partial(number_metrics.weighted, targets=targets, answers=a) for a in answers)
    return Pair(weigh=weigh, outputs=len(names), differing=_differing(*answers))


def _differing(before: Array, now: Array) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (before != now).any(axis=1)
    return found


def _chosen(answers: pd.DataFrame, names: list[str]) -> npt.NDArray[np.bool_]:
    """Which of the labels are among those that were answered, [n, c]."""
    told = [set(text.split(SEPARATOR)) for text in answers["predicted"]]
    return np.array([[name in one for name in names] for one in told])


def _shares(answers: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Probabilities, a column a class; without columns where the answers lack what is asked for.

    Loss and top-k accuracy need the probability of every class. For the others that of the
    predicted class will do.
    """
    if measure == "loss" or measure.startswith("top_"):
        return _every_share(answers)
    one_hot = pd.get_dummies(answers["predicted"], dtype=float)
    return one_hot.mul(answers["probability"].to_numpy(float), axis=0)


def _every_share(answers: pd.DataFrame) -> pd.DataFrame:
    """The probabilities, as far as there is a column for every class or label."""
    every = [name for name in answers.columns if name.startswith("p(") and name.endswith(")")]
    return answers[every].rename(columns=lambda name: name[2:-1])

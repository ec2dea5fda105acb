"""Out-of-fold predictions for the training and validation examples.

With `train.refit`, the head that `train` keeps was trained on all of these examples, so its own
predictions for them are too good. This module divides the examples into folds, trains the same head
on all folds but one, and predicts that fold. Temperature, thresholds and prediction sets are fitted
to these predictions (cross-fitting; for prediction sets, cross-conformal prediction, Vovk, 2015).

Each of these heads is trained from scratch. A head that starts from one trained on all examples
remembers the held-out ones until it has converged: with such a start, the out-of-fold accuracy on
ants and bees was 1.000 instead of 0.962.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..tables.features import Split
from ..tables.folds import folds
from ..tables.manifest import group_keys
from .description import Calibration
from .fit import one_thread_each, trained_again
from .head import Floats, activated
from .losses import LOSSES
from .sets import Doubles, Integers, of_groups
from .trained import Schedule, Trained

FEW = 2000  # examples; up to this number, all are held out in turn
FOLDS = 10  # for up to FEW examples
# If there are more, two parts are held out: each a tenth of the examples, within these bounds. More
# are held out only where the prediction sets need them (`enough`).
PARTS, LEAST, MOST = 2, 500, 1000
GROUPS = 100  # in each of these parts, if examples have enough groups
VIEW = -2  # instead of a fold, for augmented views in `enough`
COPIES = 2**29  # bytes for the features of heads that are trained in parallel


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions for m examples.

    `logits` [m, c] are logits, or predicted targets. `fold` [m] is the fold of each example; it is
    -1 for predictions of validation examples by a head trained without them. If examples have
    groups, `weights` [m] are the weights of the examples, which add up to 1 in each group. `lost`
    is the number of further examples (or groups, if there are any) that cannot be predicted,
    because all heads need them for training; if only some folds are held out, it is reduced in
    proportion. `whole` is the number of all of them, predicted or not; 0 if none is predicted. `of`
    describes the examples in words.
    """

    logits: Floats
    labels: npt.NDArray[Any]  # as `Split.labels`
    digests: npt.NDArray[np.str_]
    fold: Integers
    weights: Doubles | None = None
    lost: int = 0
    whole: int = 0
    of: str = "training and validation examples"

    @property
    def folds(self) -> int:
        """The number of heads that were trained for these predictions."""
        return len(np.unique(self.fold[self.fold >= 0]))


def out_of_fold(
    chosen: Trained,
    train: Split,
    val: Split,
    manifest: pd.DataFrame,
    schedule: Schedule,
    device: str,
    refits: bool,
    least: int = 0,
) -> OutOfFold:
    """Predict training and validation examples out of fold; return their logits or targets.

    If the chosen head is not trained again with the validation examples, it predicts these itself,
    and no training example is predicted.

    Args:
        chosen: the head that `train` chose, before it was trained on validation examples.
        train: n rows; augmented views are only trained on, and not predicted.
        manifest: the manifest of the examples; the examples of a group are held out together.
        refits: whether the chosen head is trained again with the validation examples.
        least: as `conformal.needed`.

    Raises:
        TrainingError: the training of a head diverged.
    """
    key_of = group_keys(manifest).set_axis(manifest["digest"])
    if len(val.labels) and not refits:
        assert chosen.head is not None  # noqa: S101 (`train` checks it)
        keys = key_of.loc[val.digests].tolist()
        weights = of_groups(keys) if len(set(keys)) < len(keys) else None
        logits, fold = chosen.head.logits(val.features), np.full(len(keys), -1)
        return OutOfFold(logits, val.labels, val.digests, fold, weights, of="validation examples")
    pool = Split.concat([train, val])
    keys, original = key_of.loc[pool.digests].tolist(), pool.views == 0
    grouped = len(set(keys)) < len(set(pool.digests))
    count, asked = division(int(original.sum()), len(set(keys)) if grouped else None)
    fold = folds(keys, pool.labels, count, numbers=LOSSES[schedule.loss].of_numbers)
    units = np.array(keys) if grouped else pool.digests
    asked, lost, whole = enough(units, np.where(original, fold, VIEW), asked, least)
    numbers = [number for number in range(asked) if (original & (fold == number)).any()]

    def answers(number: int) -> Floats:
        head = trained_again(chosen, pool, fold != number, schedule, device)
        return head.logits(pool.features[original & (fold == number)])

    with (
        one_thread_each(chosen.hyperparameters),
        ThreadPoolExecutor(_hands(pool, device)) as threads,
    ):
        logits = np.concatenate(
            [np.empty((0, len(schedule.class_weights)), np.float32), *threads.map(answers, numbers)]
        )
    of_each = [np.flatnonzero(original & (fold == number)) for number in numbers]
    rows = np.concatenate([np.empty(0, np.int64), *of_each])
    return OutOfFold(
        logits, pool.labels[rows], pool.digests[rows], fold[rows],
        weights=of_groups(units[rows]) if grouped else None,
        lost=lost,
        whole=whole,
        of=f"training{' and validation' * bool(len(val.labels))} examples",
    )  # fmt: skip


def division(examples: int, groups: int | None = None) -> tuple[int, int]:
    """Return the number of folds, and how many of them are held out if these are `enough`.

    Args:
        examples: the number of examples.
        groups: the number of their groups; None without groups.
    """
    if examples <= FEW:
        return FOLDS, FOLDS
    count = examples // int(np.clip(examples // 10, LEAST, MOST))
    if groups is not None:
        count = max(PARTS + 1, min(count, groups // GROUPS))
    return count, PARTS


def enough(
    units: npt.NDArray[np.str_], fold: Integers, asked: int, least: int
) -> tuple[int, int, int]:
    """Return how many folds to hold out, and what `lost` and `whole` of `OutOfFold` are then.

    More than `asked` folds are held out if these have too few units, and all folds have enough.

    Args:
        units: [n], the digest of each row's example, or the name of its group.
        fold: [n], from `folds`; `VIEW` for rows that are not predicted.
        asked: how many folds are held out otherwise.
        least: as `conformal.needed`.
    """
    kept, held = (len(set(units[some])) for some in (fold == -1, fold >= 0))
    if not held:
        return asked, 0, 0

    def found(parts: int) -> tuple[int, int]:
        there = len(set(units[(fold >= 0) & (fold < parts)]))
        return there, math.ceil(kept * there / held)

    if kept + held >= least:
        while sum(found(asked)) < least:
            asked += 1
    return asked, found(asked)[1], kept + held


def _hands(pool: Split, device: str) -> int:
    """Return how many heads are trained in parallel."""
    together = COPIES // (2 * max(pool.features.nbytes, 1))  # each copies rows, and scales them
    return max(1, min(together, os.cpu_count() or 1)) if device == "cpu" else 1


def write(file: Path, held: OutOfFold, calibration: Calibration, task: str) -> None:
    """Write the predictions as a table: `digest`, `fold` and `answers`, sorted by digest.

    `answers` has what `predict` returns: calibrated probabilities of classes or labels, or targets.
    """
    order = np.argsort(held.digests)
    logits = held.logits[order]
    if calibration.prior_shift:
        logits = logits + np.array(calibration.prior_shift, np.float32)
    answers = activated(task, logits, calibration.temperature).astype(np.float32)
    values = pa.array(answers.reshape(-1))
    table = pa.table(
        {
            "digest": held.digests[order].tolist(),
            "fold": pa.array(held.fold[order], pa.int32()),
            "answers": pa.FixedSizeListArray.from_arrays(values, held.logits.shape[1]),
        }
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, use_dictionary=False)

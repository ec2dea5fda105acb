"""The choice of a head and its layers by cross-validation: `train.layers: auto`.

If the features have several layers, each head that the parameters list is a contender twice: on all
layers, and on the last one. Up to `MOST` examples, drawn by their digests, are divided into five
folds, which respect groups. Only view 0 of each example is used.

The first head, on all layers, is kept unless the loss of the best one is lower by more than a
paired standard error. In classification, more of the best one's predictions must be right too,
because the loss alone would replace more accurate heads. Losses are compared after temperature
scaling, because `train` calibrates the head.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..tables.features import Split
from ..tables.folds import folds
from ..tables.layers import Layers
from . import penalty
from .head import Floats
from .hyperparameters import Hyperparameters, used
from .losses import LOSSES, Units
from .subsets import on_subsets
from .trained import Schedule

MOST = 1000  # examples
FOLDS = 5


@dataclass(frozen=True)
class Contender:
    """A head on all layers, or on the last one (`columns`), and its out-of-fold predictions.

    `rows` [m] are the places in the pool of the predicted examples, `losses` [m] are their losses,
    and `right` [m] says whether they are right, which is False for tasks in which no prediction is
    right or wrong. `behind` is how much higher the mean loss is than that of the chosen head, and
    `error` the standard error of that difference.
    """

    hyperparameters: Hyperparameters
    of: str
    layers: Layers
    columns: slice
    rows: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    behind: float = 0.0
    error: float = 0.0

    @property
    def of_last(self) -> slice | None:
        """The columns of the last layer, if the head takes it alone and there are others."""
        return self.columns if self.of == "last" else None

    def line(self, count: int) -> str:
        """Return what `train` prints about the chosen one of `count` contenders."""
        of = {"all": " on all layers", "last": " on the last layer", "": ""}[self.of]
        if not len(self.losses):
            return f"{self.hyperparameters.optimizer}{of}: too few examples for cross-validation"
        return (
            f"{self.hyperparameters.optimizer}{of}, chosen from {count} heads by cross-validation"
            f" on {len(self.losses):,} examples"
        )

    def noted(self) -> dict[str, object]:
        """Return what `models/head.json` records about the choice."""
        return {"examples": len(self.losses)}

    def row(self) -> dict[str, object]:
        """Return a row of `reports/sweep.csv`, to six digits: further ones depend on the CPU.

        Without losses, because no example could be held out, their columns are left out.
        """
        of = {"layers": self.of} if self.of else {}
        row: dict[str, object] = {**used(self.hyperparameters), **of}
        if not len(self.losses):
            return row
        figures = float(self.losses.mean()), self.behind, self.error
        named = zip(penalty.COLUMNS, figures, strict=True)
        return row | {name: float(f"{value:.6g}") for name, value in named}


def choose(
    pool: Split,
    keys: Sequence[str],
    heads: Sequence[Hyperparameters],
    layers: Layers,
    schedule: Schedule,
    weighing: str = "none",
    last_first: bool = False,
) -> list[Contender]:
    """Compare the heads; return the chosen one first, and the others by their loss.

    If no example can be held out, only the first head is returned.

    Args:
        pool: rows to choose by; only view 0 of the examples is used.
        keys: of each row, the digest of its example or the name of its group.
        heads: those with closed forms, the usual one first.
        layers: of the features; empty if they are of the last layer alone.
        weighing: `train.class_weights`.
        last_first: whether the head that is kept if in doubt is the first one on the last layer.
    """
    rows = penalty.drawn(pool, MOST)
    some, names, weights = pool.take(rows), np.asarray(keys)[rows], schedule.class_weights
    if some.labels.ndim == 1:  # without classes that were not drawn
        present, of_present = np.unique(some.labels, return_inverse=True)
        some, weights = replace(some, labels=of_present), weights[present]
    numbers = LOSSES[schedule.loss].of_numbers
    fold = folds(names.tolist(), some.labels, FOLDS, numbers=numbers, seed="choice")
    fold = np.where(fold < (1 if len(weights) > penalty.MANY else FOLDS), fold, -1)
    held = fold >= 0
    options: list[tuple[str, Layers, slice]] = [("all" * bool(layers), layers, slice(None))]
    options += [("last", (), slice(layers[0].width))] if layers else []
    if last_first:
        options.reverse()
    if not held.any():
        return [Contender(heads[0], *options[0], rows[held], np.empty(0), np.empty(0, bool))]
    found = []
    labels: npt.NDArray[Any] = some.labels[held]
    units = Units.of(schedule.loss, some.labels) if numbers else None
    for head, (of, own, columns) in itertools.product(heads, options):
        part = replace(some, features=some.features[:, columns])
        how = replace(schedule, class_weights=weights, layers=own)
        logits = _out_of_fold(part, fold, head, how, weighing)
        right = logits.argmax(axis=1) == (labels if labels.ndim == 1 else -1)
        true = units.learned(labels) if units else labels
        given = units.learned(logits).astype(np.float32) if units else logits
        losses = penalty.judged(schedule.loss, given, true, len(weights))
        found.append(Contender(head, of, own, columns, rows[held], losses, right))
    chosen, least = found[0], min(found, key=lambda one: float(one.losses.mean()))
    lead, error = penalty.compared(chosen.losses, least.losses, names[held])
    if lead > error and (least.right.sum() > chosen.right.sum() or labels.ndim == 2):
        chosen = least
    found.sort(key=lambda one: (one is not chosen, float(one.losses.mean())))
    behind = [penalty.compared(one.losses, chosen.losses, names[held]) for one in found]
    return [
        replace(one, behind=more, error=error)
        for one, (more, error) in zip(found, behind, strict=True)
    ]


def _out_of_fold(
    some: Split,
    fold: npt.NDArray[np.int64],
    head: Hyperparameters,
    schedule: Schedule,
    weighing: str,
) -> Floats:
    """Return out-of-fold logits [m, c] of the rows that are in any fold."""
    asked = [fold == number for number in np.unique(fold[fold >= 0])]
    logits = np.zeros((len(fold), len(schedule.class_weights)), np.float32)
    found = on_subsets(some, [~rows for rows in asked], asked, head, schedule, weighing)
    for rows, answers in zip(asked, found, strict=True):
        logits[rows] = answers
    return logits[fold >= 0]

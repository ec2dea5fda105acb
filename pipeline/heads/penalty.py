"""The weight decay `auto`: cross-validation chooses the penalty, and the scale of the features.

Up to `MOST` examples are divided into five folds, which respect groups. Examples are drawn by their
digests, so ten added examples change few of them. Only view 0 of each example is used.

- One call of L-BFGS solves all folds: each has its own weights, but they share the products with
  the features, which takes a fifth of the time. Each penalty starts from the weights of the next
  stronger one (Friedman, Hastie and Tibshirani, 2010).
- Penalties are compared by the loss of the out-of-fold predictions after temperature scaling,
  because `train` calibrates the head that is chosen. A strong penalty makes a head underconfident,
  and would lose for this reason alone.
- Fewer examples need a stronger penalty: the product of weight decay and number of examples, which
  is 1 / C in scikit-learn, stays the same. In the folds, each weight decay is therefore multiplied
  by the number of examples that the head will be trained on, and divided by the mean number that
  the folds' heads are trained on.

`benchmarks/heads.md` compares these choices with others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..tables.features import Split
from ..tables.folds import folds
from ..tables.layers import Layers
from ..tables.unit import unit
from . import lbfgs, tf_idf
from .head import Floats, fit_temperature, one_thread
from .hyperparameters import Hyperparameters
from .linear_loss import LinearLoss
from .losses import LOSSES, Units
from .scaling import GLOBAL, PER_FEATURE, centre_and_scale
from .sets import Doubles, Integers
from .trained import Schedule

PATH = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)  # from strong to weak
MOST = 2000  # examples
FOLDS = 5
# With more outputs, only one fold is predicted, and only the first candidate is tried.
MANY = 100
USUAL = 0.003  # kept unless another is better by more than a standard error; one of `PATH`
TOLERANCE = 1e-3  # as in `lbfgs.minimum`; the choice is that of converged heads
COLUMNS = ("out_of_fold_loss", "behind_chosen", "standard_error")
LEAST = 4  # iterations
HALVINGS = 14  # of the range of temperatures
# A path ends after this many penalties in a row that are worse than its best by so many standard
# errors, as weaker ones are worse still.
WORSE, STANDARD_ERRORS = 2, 2


@dataclass(frozen=True)
class Candidate:
    """Features that a head may be trained on: some columns, scaled as in `scaling.SCALINGS`.

    `layers` are the layers of the columns, as in `scaling.centre_and_scale`.
    """

    scaling: str
    columns: slice | None = None  # all
    layers: Layers = ()

    @property
    def of(self) -> str:
        """The layers as in `train.layers`, if there are several to choose from; else empty."""
        return "last" if self.columns else "all" if self.layers else ""


def candidates(layers: Layers, auto: bool) -> list[Candidate]:
    """Return the candidates for features of these layers, the simplest first.

    Args:
        layers: the layers of the features; empty for the last one alone.
        auto: whether the last layer alone is a candidate too.
    """
    of_last = slice(layers[0].width) if auto and layers else None
    alone = [Candidate(scaling, of_last) for scaling in (GLOBAL, PER_FEATURE)]
    together = [Candidate(scaling, layers=layers) for scaling in (GLOBAL, PER_FEATURE)]
    return alone + together if of_last else together


@dataclass(frozen=True)
class Point:
    """A penalty for a candidate: its out-of-fold loss, and how much higher than the chosen one's.

    `error` is the standard error of that difference, which is the mean of the paired differences of
    the examples' losses. With groups, it is computed from the groups' sums.
    """

    candidate: Candidate
    weight_decay: float
    loss: float
    behind: float
    error: float

    def row(self) -> dict[str, object]:
        """Return a row of `reports/sweep.csv`, to six digits: further ones depend on the CPU."""
        figures = zip(COLUMNS, (self.loss, self.behind, self.error), strict=True)
        of = {"weight_decay": self.weight_decay, "scaling": self.candidate.scaling}
        of |= {"layers": self.candidate.of} if self.candidate.of else {}
        return of | {name: float(f"{value:.6g}") for name, value in figures}


@dataclass(frozen=True)
class Choice:
    """The chosen penalty and candidate.

    `path` has each penalty that was tried: candidate by candidate, the strongest penalty first.

    `examples` is the number of examples that took part, and `folds` is the number of folds that
    were predicted; both are 0 if no example could be predicted. `untried` is the number of
    candidates that were not tried, because there are more than `MANY` outputs.
    """

    candidate: Candidate
    weight_decay: float
    examples: int
    folds: int
    path: list[Point]
    untried: int = 0

    @property
    def end(self) -> str:
        """Which end of `PATH` was chosen: `strongest`, `weakest`, or empty."""
        return {PATH[0]: "strongest", PATH[-1]: "weakest"}.get(self.weight_decay, "")

    def head(self, asked: Hyperparameters) -> Hyperparameters:
        """Return the hyperparameters `asked` with the chosen penalty and scaling."""
        scaling = self.candidate.scaling
        return replace(asked, weight_decay=self.weight_decay, scaling=scaling)

    def noted(self) -> dict[str, object]:
        """Return what `models/head.json` records about the choice."""
        found: dict[str, object] = {"examples": self.examples, "folds": self.folds}
        return found | ({"end": self.end} if self.end else {})

    def lines(self) -> list[str]:
        """Return what `train` prints."""
        if not self.examples:
            return [
                f"weight decay {self.weight_decay:g}, because there are too few examples or groups"
                " for cross-validation"
            ]
        scale = " for features of variance 1" if self.candidate.scaling == PER_FEATURE else ""
        of = {"last": " of the last layer", "all": " of all layers", "": ""}[self.candidate.of]
        scale = f"{scale or ' for features' * bool(of)}{of}"
        found = [
            f"weight decay {self.weight_decay:g}{scale}, chosen by cross-validation on"
            f" {self.examples:,} examples"
        ]
        if self.end:
            found.append(
                f"weight decay {self.weight_decay:g} is the {self.end} that auto tries; if a"
                f" {'stronger' if self.end == 'strongest' else 'weaker'} one may be better, set"
                " train.weight_decay to a list"
            )
        if self.untried and self.candidate.of == "last":
            found.append(
                f"with more than {MANY} outputs, auto compares no inner blocks; to use them, set"
                " train.layers to all"
            )
        return found


def choose(
    pool: Split,
    keys: Sequence[str],
    optimizer: str,
    schedule: Schedule,
    learned: int,
    candidates: Sequence[Candidate] = (Candidate(GLOBAL), Candidate(PER_FEATURE)),
) -> Choice:
    """Choose the weight decay, and one of the candidates.

    `USUAL` is kept for the first candidate unless the lowest loss is lower by more than the paired
    standard error: with few examples, a loss is often the lowest by chance. Losses that differ by
    less than the solver's tolerance count as equal, so the strongest of the penalties with the
    lowest loss is taken. A further candidate replaces those before it by the same rule.

    Args:
        pool: the rows to choose with; only view 0 of the examples is used.
        keys: for each row, the digest of its example or the name of its group.
        optimizer: `lbfgs` or `ridge`.
        schedule: the schedule of the head, whose class weights are used.
        learned: the number of examples that the head will be trained on.
        candidates: the candidates, the simplest first.
    """
    rows = drawn(pool, MOST)
    problem = _Problem.of(pool.take(rows), np.asarray(keys)[rows], optimizer, schedule, learned)
    if problem is None:
        return Choice(candidates[0], USUAL, 0, 0, [])
    untried = len(candidates) - 1 if problem.outputs > MANY else 0
    candidates = candidates[: len(candidates) - untried]
    tried: list[tuple[Candidate, float, Doubles]] = []
    best = 0
    with one_thread():
        for candidate in candidates:
            found = problem.losses(candidate)
            means = np.array([one.mean() for one in found])
            lowest = len(tried) + int(np.argmax(means <= (1 + TOLERANCE) * means.min()))
            tried += [(candidate, *of) for of in zip(PATH, found, strict=False)]
            if candidate is candidates[0]:
                best = PATH.index(USUAL) if len(tried) > PATH.index(USUAL) else lowest
            lead, error = compared(tried[best][2], tried[lowest][2], problem.held)
            if lead > error:
                best = lowest
    path = [
        Point(
            candidate, decay, float(losses.mean()), *compared(losses, tried[best][2], problem.held)
        )
        for candidate, decay, losses in tried
    ]
    chosen = path[best]
    return Choice(chosen.candidate, chosen.weight_decay, len(rows), problem.folds, path, untried)


def drawn(pool: Split, most: int) -> Integers:
    """Return the rows with view 0 of at most `most` examples, which are drawn by their digests."""
    rows = np.flatnonzero(pool.views == 0)
    if len(rows) > most:
        order = np.argsort([unit(f"penalty:{digest}") for digest in pool.digests[rows].tolist()])
        rows = rows[np.sort(order[:most])]
    return rows


def judged(loss: str, logits: Floats, labels: npt.NDArray[Any], outputs: int) -> Doubles:
    """Return the loss [m] of each example, the mean over its known labels or targets.

    The logits of classes and labels are divided by a temperature first.
    """
    of = LOSSES[loss]
    scaled = logits.astype(np.float64)
    if not of.of_numbers:
        scaled /= fit_temperature(logits, labels, HALVINGS)
    losses, _ = of.at(scaled, of.labels(labels))
    importance = of.importance(labels, np.ones(outputs, np.float32))
    known = np.maximum(importance.sum(axis=1), 1)
    found: Doubles = (losses * importance).sum(axis=1) / known
    return found


def compared(one: Doubles, other: Doubles, names: npt.NDArray[np.str_]) -> tuple[float, float]:
    """Return the mean difference of two lists of losses, and its standard error by group.

    `names` are the groups of the examples, or their digests.
    """
    difference = one - other
    mean = float(difference.mean())
    _, which = np.unique(names, return_inverse=True)
    sums = np.bincount(which, difference - mean)
    count = len(sums)
    error = np.sqrt(np.square(sums).sum() * count / max(count - 1, 1)) / len(difference)
    return mean, float(error)


@dataclass(frozen=True)
class _Problem:
    """The examples and their folds; `fold` [n] is -1 for examples that are never predicted.

    `features` are not centred or scaled. Heads minimise `loss`, with `targets` [n, p] and
    `importance` [n, p]; penalties are compared by the loss in the schedule. Weight decays are
    multiplied by `stronger` in a fold.
    """

    features: Floats
    labels: npt.NDArray[Any]
    names: npt.NDArray[np.str_]
    fold: Integers
    loss: str
    judged: str
    targets: npt.NDArray[Any]
    importance: Floats
    outputs: int
    stronger: float

    @classmethod
    def of(
        cls,
        pool: Split,
        names: npt.NDArray[np.str_],
        optimizer: str,
        schedule: Schedule,
        learned: int,
    ) -> "_Problem | None":
        judged, labels = LOSSES[schedule.loss], pool.labels
        weights = schedule.class_weights
        if labels.ndim == 1:  # without classes that were not drawn
            present, labels = np.unique(labels, return_inverse=True)
            weights = weights[present]
        fold = folds(names.tolist(), labels, FOLDS, numbers=judged.of_numbers, seed="penalty")
        predicted = 1 if len(weights) > MANY else FOLDS
        fold = np.where(fold < predicted, fold, -1)
        if not (fold >= 0).any():
            return None
        if judged.of_numbers:
            labels = Units.of(schedule.loss, labels).learned(labels)
        targets, importance = judged.labels(labels), judged.importance(labels, weights)
        loss = schedule.loss
        if optimizer == "ridge" and not judged.of_numbers:
            loss = "squared"
            targets = judged.targets(targets, len(weights)) - judged.middle
            importance = np.broadcast_to(importance, targets.shape)
        features = pool.features
        if schedule.counts:
            features = tf_idf.weighed(features, tf_idf.fitted(features))
        inside = np.mean([(fold != number).sum() for number in np.unique(fold[fold >= 0])])
        return cls(
            features, labels, names, fold, loss, schedule.loss, targets, importance, len(weights),
            stronger=learned / float(inside),
        )  # fmt: skip

    @property
    def folds(self) -> int:
        """The number of folds that are predicted."""
        return len(np.unique(self.fold[self.fold >= 0]))

    @property
    def held(self) -> npt.NDArray[np.str_]:
        """The groups, or digests, of the examples that are predicted."""
        return self.names[self.fold >= 0]

    def losses(self, candidate: Candidate) -> list[Doubles]:
        """Return the out-of-fold loss of each predicted example, for each penalty that is tried."""
        labels, found = self.labels[self.fold >= 0], list[Doubles]()
        worse = 0
        for logits in self._logits(candidate):
            found.append(judged(self.judged, logits, labels, self.outputs))
            best = min(found, key=lambda one: float(one.mean()))
            behind, error = compared(found[-1], best, self.held)
            worse = worse + 1 if behind > STANDARD_ERRORS * error else 0
            if worse == WORSE and found[-1].mean() >= found[-2].mean():
                break
        return found

    def _logits(self, candidate: Candidate) -> Iterator[Floats]:
        """Yield out-of-fold logits [m, c] for each penalty."""
        features = self.features[:, candidate.columns or slice(None)]
        mean, scale = centre_and_scale(features, candidate.scaling, candidate.layers)
        rows = np.ones((len(features), 1 + features.shape[1]), np.float32)
        rows[:, 1:] = (features - mean) / scale
        numbers = np.unique(self.fold[self.fold >= 0])
        inside = self.fold[:, None] != numbers  # [n, folds]
        importance = (inside[:, :, None] * self.importance[:, None]).reshape(len(rows), -1)
        total = importance.sum(axis=0, dtype=np.float64)
        importance = (importance / np.where(total > 0, total, 1)).astype(np.float32)
        loss, labels = LOSSES[self.loss], np.tile(self.targets, len(numbers))
        bias, learnable = loss.without_features(labels, importance)
        importance = importance * learnable
        weights = np.zeros((len(numbers), self.outputs, rows.shape[1]), np.float32)
        weights[:, :, 0] = np.broadcast_to(bias, weights.shape[0] * weights.shape[1]).reshape(
            weights.shape[:2]
        )
        flat = weights.reshape(importance.shape[1], -1)
        of_columns = np.square(rows).mean(axis=0, dtype=np.float64)
        start = LinearLoss(loss, rows, labels, importance, 0.0)
        curvature = np.maximum(start.curvature(flat)[0], 1e-6)[:, None] * of_columns
        held = np.flatnonzero(self.fold >= 0)
        place = np.searchsorted(numbers, self.fold[held])
        for decay in PATH:
            objective = replace(start, decay=decay * self.stronger)
            hessian = curvature.copy()
            hessian[:, 1:] += objective.decay
            flat, _ = lbfgs.minimum(objective, flat, _diagonal(hessian, flat), TOLERANCE, LEAST)
            answers = rows[held] @ flat.reshape(-1, rows.shape[1]).T
            each = answers.reshape(len(held), len(numbers), self.outputs)
            yield each[np.arange(len(held)), place]


def _diagonal(hessian: Doubles, weights: Floats) -> Any:
    """Return a function for `lbfgs.minimum` that always divides by the same diagonal."""
    divisor = hessian.reshape(weights.shape).astype(np.float32)
    return lambda iteration, now: lambda gradient, live: gradient / divisor[live]

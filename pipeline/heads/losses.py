"""What a head lowers: a loss of its logits, with its slope and curvature, by name in `LOSSES`.

- `softmax`, of classes: the cross-entropy of a row, whose label is a position (int64 [n]).
- `binary`, of several labels: the cross-entropy of each label by itself; labels are float64 [n, c]
  of 1, 0 and NaN (unknown).
- `squared`, of regression targets (float64 [n, c]): half the squared error.
- `huber`, of targets: the same up to an error of 1, and a straight line beyond (Huber, 1964).

Targets are learned in units of the training rows (`Units`), so that the weight decay, the learning
rate and Huber's threshold mean the same whatever they are measured in.

What training lowers is the sum over the outputs of an output's mean loss over its known rows, each
weighed by its class and by the row's own weight, beside `weight_decay / 2 * |weight|^2`. So another
label changes nothing for those that are there, and a label with many unknown cells is not drowned
by the penalty. The loss that is reported is the mean over all known cells, so that it does not grow
with the number of labels, and a label that is known of two validation rows says little.

`linear_loss` makes of it the objective of a linear head, and `descent_losses` what PyTorch lowers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..tasks import TASKS
from .head import Floats, Head

AT_ONCE = 2**24  # logits computed at once

Array = npt.NDArray[Any]
Floats64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Answers = Callable[[slice], Floats]


class Loss(Protocol):
    """A loss; p is 1 if the outputs of a row have one label together (`softmax`), else c.

    Labels are [n, p] below: what `labels` makes of them.
    """

    score: str  # what is reported beside the loss: the accuracy of known labels, or R²
    of_numbers: bool
    middle: float  # of least squares to labels: what is above it is rather there

    def labels(self, labels: Array) -> Array:
        """Labels [n, p] of labels as the task has them; what is unknown is 0."""

    def targets(self, labels: Array, outputs: int) -> Floats64:
        """What least squares fit, [n, c]: one-hot labels, labels or targets; labels are [n, p]."""

    def importance(
        self, labels: Array, class_weights: Floats, rows: Floats | None = None
    ) -> Floats:
        """How much each cell counts, [n, p]; 0 where its label is unknown.

        Args:
            labels: as the task has them.
            class_weights: [c], or [c, 2]: of an output's cells of 0 and of 1.
            rows: [n], weights of the rows; None weighs them alike.
        """

    def at(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """The loss of each cell [n, p], and its slope by each logit [n, c]."""

    def curves(self, slopes: Array, labels: Array) -> Array:
        """The second derivative by each logit, [n, c], where the slopes are these."""

    def without_features(self, labels: Array, importance: Floats) -> tuple[Floats64, Mask]:
        """About the best logits [p] of a head without features, and which outputs can learn more.

        Args:
            labels: [n, p].
            importance: [n, p].
        """

    def figures(
        self, answers: Answers, labels: Array, importance: Floats, chunks: list[slice]
    ) -> tuple[float, float]:
        """Mean loss and score (`figures` below); labels are as the task has them."""


class Softmax:
    """Cross-entropy of classes."""

    score, of_numbers, middle = "accuracy", False, 0.0

    def labels(self, labels: Array) -> Array:
        """Positions of classes, int64 [n, 1]."""
        return labels.astype(np.int64)[:, None]

    def targets(self, labels: Array, outputs: int) -> Floats64:
        """1 where the label is."""
        return np.asarray(labels == np.arange(outputs), dtype=np.float64)

    def importance(
        self, labels: Array, class_weights: Floats, rows: Floats | None = None
    ) -> Floats:
        """The importance of each row by its class, [n, 1]."""
        found = class_weights[labels.astype(np.int64)]
        return (found if rows is None else found * rows)[:, None]

    def without_features(self, labels: Array, importance: Floats) -> tuple[Floats64, Mask]:
        """Zero: all classes alike."""
        return np.zeros(1), np.ones(1, dtype=bool)

    def at(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """The slope is the given probability minus the wanted one."""
        rows, label = np.arange(len(labels)), labels[:, 0]
        predicted = logits - logits.max(axis=1, keepdims=True)
        of_label = predicted[rows, label]
        np.exp(predicted, out=predicted)
        total = predicted.sum(axis=1, keepdims=True)
        predicted /= total
        predicted[rows, label] -= 1
        return np.log(total) - of_label[:, None], predicted

    def curves(self, slopes: Array, labels: Array) -> Array:
        """The diagonal p (1 - p); `slopes` are overwritten."""
        slopes[np.arange(len(labels)), labels[:, 0]] += 1
        return np.asarray(slopes * (1 - slopes))

    def figures(
        self, answers: Answers, labels: Array, importance: Floats, chunks: list[slice]
    ) -> tuple[float, float]:
        """Mean loss, and the accuracy of the first class."""
        wanted, importance = self.labels(labels), importance[:, 0]
        losses, correct = np.empty(len(labels)), np.empty(len(labels), dtype=bool)
        for some in chunks:
            logits = answers(some)
            below = (logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
            losses[some] = self.at(below, wanted[some])[0][:, 0]
            correct[some] = logits.argmax(axis=1) == wanted[some, 0]
        return float(losses @ importance / importance.sum()), float(correct.mean())


class Cells:
    """What losses have in common that each output has by itself."""

    score, of_numbers, middle = "accuracy", False, 0.0

    def labels(self, labels: Array) -> Array:
        """The labels, and 0 where they are unknown, [n, c]."""
        return np.nan_to_num(labels)

    def targets(self, labels: Array, outputs: int) -> Floats64:
        """The labels themselves."""
        return labels.astype(np.float64)

    def importance(
        self, labels: Array, class_weights: Floats, rows: Floats | None = None
    ) -> Floats:
        """The importance of each cell by its label, [n, c]."""
        known = ~np.isnan(labels)
        if class_weights.ndim == 1:
            weights = np.broadcast_to(class_weights, labels.shape)
        else:
            weights = np.where(labels == 1, class_weights[:, 1], class_weights[:, 0])
        found = np.where(known, weights, 0).astype(np.float32)
        return found if rows is None else found * rows[:, None]

    def without_features(self, labels: Array, importance: Floats) -> tuple[Floats64, Mask]:
        """Zeros, and whether an output is known of any row."""
        return np.zeros(labels.shape[1]), np.asarray(importance.any(axis=0))


class Binary(Cells):
    """Cross-entropy of each label by itself."""

    middle = 0.5

    def at(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """log(1 + exp(x)) - y x, in a form that no x overflows."""
        powers = np.exp(-np.abs(logits))
        losses = np.maximum(logits, 0) - logits * labels + np.log1p(powers)
        predicted = np.where(logits >= 0, logits.dtype.type(1), powers) / (1 + powers)
        return losses, predicted - labels

    def curves(self, slopes: Array, labels: Array) -> Array:
        """p (1 - p)."""
        predicted = slopes + labels
        return np.asarray(predicted * (1 - predicted))

    def without_features(self, labels: Array, importance: Floats) -> tuple[Floats64, Mask]:
        """The log-odds, with half a row more of each value, and whether both values are there."""
        known = importance > 0
        there, absent = (((labels == value) & known).sum(axis=0) for value in (1, 0))
        return np.log((there + 0.5) / (absent + 0.5)), (there > 0) & (absent > 0)

    def figures(
        self, answers: Answers, labels: Array, importance: Floats, chunks: list[slice]
    ) -> tuple[float, float]:
        """Mean loss, and the fraction of known cells that are on the right side of 0."""
        total, right, known = 0.0, 0, ~np.isnan(labels)
        for some in chunks:
            logits, wanted, there = answers(some), labels[some], known[some]
            total += _lost(self, logits, wanted, importance[some])
            right += int((((logits > 0) == (wanted == 1)) & there).sum())
        return total / float(importance.sum(dtype=np.float64)), right / float(known.sum())


@dataclass(frozen=True)
class Numbers(Cells):
    """Half the squared error of targets, and a straight line beyond the `threshold`."""

    threshold: float
    score = "r2"
    of_numbers = True

    def at(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """The slope is the error, but for its size at most the threshold."""
        away = logits - labels
        slopes = np.clip(away, -self.threshold, self.threshold)
        return slopes * (away - slopes / 2), slopes

    def curves(self, slopes: Array, labels: Array) -> Array:
        """1 up to the threshold, 0 beyond."""
        return (np.abs(slopes) < self.threshold).astype(slopes.dtype)

    def figures(
        self, answers: Answers, labels: Array, importance: Floats, chunks: list[slice]
    ) -> tuple[float, float]:
        """Mean loss, and the plain mean of the outputs' R²; NaN if none varies."""
        total, squares = 0.0, np.zeros(labels.shape[1])
        for some in chunks:
            logits, wanted = answers(some), labels[some]
            total += _lost(self, logits, wanted, importance[some])
            squares += np.square(np.where(np.isnan(wanted), 0, logits - wanted)).sum(axis=0)
        spread = spreads(labels)
        varying = spread > 0
        mean = (squares[varying] / spread[varying]).mean() if varying.any() else np.nan
        return total / float(importance.sum(dtype=np.float64)), float(1 - mean)


LOSSES: dict[str, Loss] = {
    "softmax": Softmax(),
    "binary": Binary(),
    "squared": Numbers(np.inf),
    "huber": Numbers(1.0),
}


def loss_for(task: str, chosen: str) -> str:
    """The loss of a task; if it has several, the `chosen` one, which is `train.loss`."""
    losses = TASKS[task].losses
    return chosen if len(losses) > 1 else losses[0]


def cell_losses(loss: str, logits: npt.NDArray[np.floating], labels: Floats64) -> Floats64:
    """The loss of each cell [n, c], for any loss but softmax; NaN where the label is unknown."""
    return LOSSES[loss].at(logits.astype(np.float64), labels)[0]


def figures(
    loss: str,
    answers: Answers,
    labels: npt.NDArray[np.generic],
    class_weights: Floats,
    rows: Floats | None = None,
) -> tuple[float, float]:
    """Mean loss, and accuracy or R²; NaN if nothing is known.

    The loss is weighted by the class weights and the rows' own. Accuracy is that of rows whose
    first class is right, or of known cells that are on the right side of 0. R² is the plain mean of
    the outputs', as scikit-learn's; an output that does not vary in these rows has none.

    Args:
        loss: one of `LOSSES`.
        answers: from rows to their logits [m, c]; called for some rows at a time.
        labels: [n] or [n, c], as the loss takes them.
        class_weights: as `Loss.importance` and `fit.class_weights` have them.
        rows: [n], weights of the rows; None weighs them alike.
    """
    of, count = LOSSES[loss], len(labels)
    importance = of.importance(labels, class_weights, rows)
    if not importance.any():
        return np.nan, np.nan
    size = max(1, AT_ONCE // len(class_weights))
    chunks = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    return of.figures(answers, labels, importance, chunks)


def _lost(loss: Loss, logits: Array, labels: Array, importance: Floats) -> float:
    """The weighted losses of all cells, added up."""
    losses, _ = loss.at(logits.astype(np.float64), labels)
    return float((np.where(importance > 0, losses, 0) * importance).sum())


def spreads(labels: Floats64) -> Floats64:
    """Each output's summed square around its mean over the known rows, [c].

    It is 0 if no row is known, and if all are the same but for rounding.
    """
    known = ~np.isnan(labels)
    counts = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, labels, 0).sum(axis=0) / counts
    found = np.square(np.where(known, labels - mean, 0)).sum(axis=0)
    whole = np.square(np.where(known, labels, 0)).sum(axis=0)
    return np.where(found > 1e-12 * whole, found, 0.0)


@dataclass(frozen=True)
class Units:
    """Where the targets of each output lie, [c] each: a label is learned as (it - centre) / unit.

    For the squared loss they are mean and standard deviation of the known training rows; for
    Huber's, median and 1.4826 times the median absolute deviation, which is the standard deviation
    of normal values and which outliers do not move; the ordinary one if that is 0.
    """

    centre: Floats64
    unit: Floats64

    @classmethod
    def of(cls, loss: str, labels: Floats64) -> "Units":
        """Those of training rows [n, c]; an output that does not vary has the unit 1."""
        centres, units = np.zeros(labels.shape[1]), np.ones(labels.shape[1])
        for number, column in enumerate(labels.T):
            known = column[~np.isnan(column)]
            if not len(known):
                continue
            centre, unit = float(known.mean()), float(known.std())
            if loss == "huber":
                median = float(np.median(known))
                robust = 1.4826 * float(np.median(np.abs(known - median)))
                centre, unit = (median, robust) if robust > 0 else (median, unit)
            centres[number], units[number] = centre, unit if unit > 0 else 1.0
        return cls(centres, units)

    def learned(self, labels: npt.NDArray[np.floating]) -> Floats64:
        """Labels [n, c] in these units."""
        return (labels - self.centre) / self.unit

    def raw(self, answers: Floats) -> Floats:
        """Predictions [n, c] in these units, converted to the labels' own."""
        return (answers * self.unit + self.centre).astype(np.float32)

    def undone(self, head: Head) -> Head:
        """The head that answers in the labels' own units, made of one that learned in these."""
        with np.errstate(over="ignore", invalid="ignore"):
            weight = (head.weight * self.unit[:, None]).astype(np.float32)
            bias = (head.bias * self.unit + self.centre).astype(np.float32)
        return replace(head, weight=weight, bias=bias)

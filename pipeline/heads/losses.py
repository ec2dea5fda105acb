"""The losses of heads with their slopes and curvatures, by name in `LOSSES`.

- `softmax`, for classes: the cross-entropy of a row, whose label is a position (int64 [n]).
- `binary`, for multi-label tasks: the cross-entropy of each label; labels are float64 [n, c] with
  1, 0 and NaN (unknown).
- `squared`, for regression targets (float64 [n, c]): half the squared error.
- `huber`, for targets: half the squared error up to an error of 1, and linear beyond (Huber, 1964).

Targets are standardised with the training rows (`Units`). The weight decay, the learning rate and
Huber's threshold therefore do not depend on the unit of the targets.

Training minimises a sum over outputs plus `weight_decay / 2 * |weight|^2`. The term of an output is
its mean loss over its known rows, weighted by class and by row weight. Adding a label therefore
does not change the weights of the others, and the penalty does not dominate a label with many
unknown cells. The reported loss is the mean over all known cells: it does not grow with the number
of labels, and a label that is known for two validation rows has little influence.

`linear_loss` has the objective of a linear head, and `descent_losses` the losses in PyTorch.
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
    """A loss; p is 1 if the outputs of a row share one label (`softmax`), else c.

    Below, labels [n, p] are the result of the method `labels`.
    """

    score: str  # reported besides the loss: the accuracy of known labels, or R²
    of_numbers: bool
    middle: float  # the threshold of least squares to 0/1 labels

    def labels(self, labels: Array) -> Array:
        """Convert the task's labels to labels [n, p]; unknown ones become 0."""

    def targets(self, labels: Array, outputs: int) -> Floats64:
        """Convert labels [n, p] to targets of least squares [n, c]: one-hot, 0/1 or numbers."""

    def importance(
        self, labels: Array, class_weights: Floats, rows: Floats | None = None
    ) -> Floats:
        """Return the weight of each cell, [n, p]; 0 where its label is unknown.

        Args:
            labels: in the task's form.
            class_weights: [c], or [c, 2] for an output's cells of 0 and of 1.
            rows: [n], the row weights; None if they are equal.
        """

    def at(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Return the loss of each cell [n, p], and its derivative by each logit [n, c]."""

    def curves(self, slopes: Array, labels: Array) -> Array:
        """Return the second derivative by each logit, [n, c], from the first derivatives."""

    def without_features(self, labels: Array, importance: Floats) -> tuple[Floats64, Mask]:
        """Estimate the best constant logits [p], and return which outputs can learn from features.

        Args:
            labels: [n, p].
            importance: [n, p].
        """

    def figures(
        self, answers: Answers, labels: Array, importance: Floats, chunks: list[slice]
    ) -> tuple[float, float]:
        """Return mean loss and score, as `figures` below does; labels are in the task's form."""


class Softmax:
    """Cross-entropy of classes."""

    score, of_numbers, middle = "accuracy", False, 0.0

    def labels(self, labels: Array) -> Array:
        """Return the positions of the classes, int64 [n, 1]."""
        return labels.astype(np.int64)[:, None]

    def targets(self, labels: Array, outputs: int) -> Floats64:
        """Return the one-hot encoding of the labels."""
        return np.asarray(labels == np.arange(outputs), dtype=np.float64)

    def importance(
        self, labels: Array, class_weights: Floats, rows: Floats | None = None
    ) -> Floats:
        """Return the weight of each row, [n, 1], from its class and row weight."""
        found = class_weights[labels.astype(np.int64)]
        return (found if rows is None else found * rows)[:, None]

    def without_features(self, labels: Array, importance: Floats) -> tuple[Floats64, Mask]:
        """Return zero: all classes are equally probable."""
        return np.zeros(1), np.ones(1, dtype=bool)

    def at(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Return loss and slope; the slope is the predicted probability minus the true one.

        With labels [n, p], the logits are those of p heads, one head after the other.
        """
        each = logits.reshape(labels.size, -1)
        rows, label = np.arange(len(each)), labels.reshape(-1)
        predicted = each - each.max(axis=1, keepdims=True)
        of_label = predicted[rows, label]
        np.exp(predicted, out=predicted)
        total = predicted.sum(axis=1)
        predicted /= total[:, None]
        predicted[rows, label] -= 1
        losses = np.log(total) - of_label
        return losses.reshape(labels.shape), predicted.reshape(logits.shape)

    def curves(self, slopes: Array, labels: Array) -> Array:
        """Return the diagonal p (1 - p); overwrite `slopes`."""
        each = slopes.reshape(labels.size, -1)
        each[np.arange(len(each)), labels.reshape(-1)] += 1
        return np.asarray(slopes * (1 - slopes))

    def figures(
        self, answers: Answers, labels: Array, importance: Floats, chunks: list[slice]
    ) -> tuple[float, float]:
        """Return the mean loss, and the accuracy of the class with the largest logit."""
        wanted, importance = self.labels(labels), importance[:, 0]
        losses, correct = np.empty(len(labels)), np.empty(len(labels), dtype=bool)
        for some in chunks:
            logits = answers(some)
            below = (logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
            losses[some] = self.at(below, wanted[some])[0][:, 0]
            correct[some] = logits.argmax(axis=1) == wanted[some, 0]
        return float(losses @ importance / importance.sum()), float(correct.mean())


class Cells:
    """The common part of losses in which each output has its own label."""

    score, of_numbers, middle = "accuracy", False, 0.0

    def labels(self, labels: Array) -> Array:
        """Return the labels [n, c], with 0 where they are unknown."""
        return np.nan_to_num(labels)

    def targets(self, labels: Array, outputs: int) -> Floats64:
        """Return the labels themselves."""
        return labels.astype(np.float64)

    def importance(
        self, labels: Array, class_weights: Floats, rows: Floats | None = None
    ) -> Floats:
        """Return the weight of each cell, [n, c], from its label and row weight."""
        known = ~np.isnan(labels)
        if class_weights.ndim == 1:
            weights = np.broadcast_to(class_weights, labels.shape)
        else:
            weights = np.where(labels == 1, class_weights[:, 1], class_weights[:, 0])
        found = np.where(known, weights, 0).astype(np.float32)
        return found if rows is None else found * rows[:, None]

    def without_features(self, labels: Array, importance: Floats) -> tuple[Floats64, Mask]:
        """Return zeros, and whether each output is known for any row."""
        return np.zeros(labels.shape[1]), np.asarray(importance.any(axis=0))


class Binary(Cells):
    """Binary cross-entropy of each label."""

    middle = 0.5

    def at(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Return log(1 + exp(x)) - y x in a form that cannot overflow, and its slope."""
        powers = np.exp(-np.abs(logits))
        losses = np.maximum(logits, 0) - logits * labels + np.log1p(powers)
        predicted = np.where(logits >= 0, logits.dtype.type(1), powers) / (1 + powers)
        return losses, predicted - labels

    def curves(self, slopes: Array, labels: Array) -> Array:
        """Return p (1 - p)."""
        predicted = slopes + labels
        return np.asarray(predicted * (1 - predicted))

    def without_features(self, labels: Array, importance: Floats) -> tuple[Floats64, Mask]:
        """Return log-odds, with half a row added for each value, and whether both values occur."""
        known = importance > 0
        there, absent = (((labels == value) & known).sum(axis=0) for value in (1, 0))
        return np.log((there + 0.5) / (absent + 0.5)), (there > 0) & (absent > 0)

    def figures(
        self, answers: Answers, labels: Array, importance: Floats, chunks: list[slice]
    ) -> tuple[float, float]:
        """Return the mean loss, and the fraction of known cells whose logit has the right sign."""
        total, right, known = 0.0, 0, ~np.isnan(labels)
        for some in chunks:
            logits, wanted, there = answers(some), labels[some], known[some]
            total += _lost(self, logits, wanted, importance[some])
            right += int((((logits > 0) == (wanted == 1)) & there).sum())
        return total / float(importance.sum(dtype=np.float64)), right / float(known.sum())


@dataclass(frozen=True)
class Numbers(Cells):
    """Half the squared error of targets up to the `threshold`, and linear beyond."""

    threshold: float
    score = "r2"
    of_numbers = True

    def at(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Return loss and slope; the slope is the error, clipped to the threshold."""
        away = logits - labels
        slopes = np.clip(away, -self.threshold, self.threshold)
        return slopes * (away - slopes / 2), slopes

    def curves(self, slopes: Array, labels: Array) -> Array:
        """Return 1 up to the threshold, and 0 beyond."""
        return (np.abs(slopes) < self.threshold).astype(slopes.dtype)

    def figures(
        self, answers: Answers, labels: Array, importance: Floats, chunks: list[slice]
    ) -> tuple[float, float]:
        """Return the mean loss, and the mean of the outputs' R²; NaN if no output varies."""
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
    """Return the loss of a task; if it has several, the `chosen` one, which is `train.loss`."""
    losses = TASKS[task].losses
    return chosen if len(losses) > 1 else losses[0]


def cell_losses(loss: str, logits: npt.NDArray[np.floating], labels: Floats64) -> Floats64:
    """Return the loss of each cell [n, c], for all losses but softmax; NaN for unknown labels."""
    return LOSSES[loss].at(logits.astype(np.float64), labels)[0]


def figures(
    loss: str,
    answers: Answers,
    labels: npt.NDArray[np.generic],
    class_weights: Floats,
    rows: Floats | None = None,
) -> tuple[float, float]:
    """Return mean loss, and accuracy or R²; NaN if no label is known.

    The loss is weighted by class weights and row weights. Accuracy is the fraction of rows whose
    largest logit is that of the right class, or of known cells whose logit has the right sign. R²
    is the unweighted mean over the outputs, as in scikit-learn, without outputs that are constant
    in these rows.

    Args:
        loss: one of `LOSSES`.
        answers: function from rows to their logits [m, c]; called for some rows at a time.
        labels: [n] or [n, c], in the task's form.
        class_weights: as in `Loss.importance` and `fit.class_weights`.
        rows: [n], the row weights; None if they are equal.
    """
    of, count = LOSSES[loss], len(labels)
    importance = of.importance(labels, class_weights, rows)
    if not importance.any():
        return np.nan, np.nan
    size = max(1, AT_ONCE // len(class_weights))
    chunks = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    return of.figures(answers, labels, importance, chunks)


def _lost(loss: Loss, logits: Array, labels: Array, importance: Floats) -> float:
    """Return the weighted sum of the losses of all cells."""
    losses, _ = loss.at(logits.astype(np.float64), labels)
    return float((np.where(importance > 0, losses, 0) * importance).sum())


def spreads(labels: Floats64) -> Floats64:
    """Return each output's sum of squares around its mean over the known rows, [c].

    The sum is 0 if no row is known, or if all values are equal except for rounding.
    """
    known = ~np.isnan(labels)
    counts = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, labels, 0).sum(axis=0) / counts
    found = np.square(np.where(known, labels - mean, 0)).sum(axis=0)
    whole = np.square(np.where(known, labels, 0)).sum(axis=0)
    return np.where(found > 1e-12 * whole, found, 0.0)


@dataclass(frozen=True)
class Units:
    """The centre and unit [c] of each output's targets; heads learn (target - centre) / unit.

    For the squared loss they are mean and standard deviation of the known training rows. For the
    Huber loss they are the median and 1.4826 times the median absolute deviation. The latter equals
    the standard deviation for normal values, and is robust to outliers. If it is 0, the unit is the
    standard deviation.
    """

    centre: Floats64
    unit: Floats64

    @classmethod
    def of(cls, loss: str, labels: Floats64) -> "Units":
        """Compute the units of training rows [n, c]; a constant output has the unit 1."""
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
        """Convert labels [n, c] to these units."""
        return (labels - self.centre) / self.unit

    def raw(self, answers: Floats) -> Floats:
        """Convert predictions [n, c] in these units to the labels' own units."""
        return (answers * self.unit + self.centre).astype(np.float32)

    def undone(self, head: Head) -> Head:
        """Convert a head that was trained in these units to one for the labels' own units."""
        with np.errstate(over="ignore", invalid="ignore"):
            weight = (head.weight * self.unit[:, None]).astype(np.float32)
            bias = (head.bias * self.unit + self.centre).astype(np.float32)
        return replace(head, weight=weight, bias=bias)

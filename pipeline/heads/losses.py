"""What a head lowers, by the task, and the figures of logits against labels.

- `softmax`, of classes: the cross-entropy of a row, whose label is a position (int64 [n]).
- `binary`, of several labels: the cross-entropy of each label by itself; labels are float64 [n, c]
  of 1, 0 and NaN, where they are unknown.
- `squared`, of numbers (float64 [n, c]): half the squared error.
- `huber`, of numbers: the same up to an error of 1, and a straight line beyond (Huber, 1964).

Numbers are learned in units of the training rows (`Units`), so that the weight decay, the learning
rate and Huber's threshold mean the same whatever they are measured in.

What training lowers is the sum over the outputs of an output's mean loss over its known rows,
beside `weight_decay / 2 * |weight|^2`. So another label changes nothing for those that are there,
and a label with many unknown cells is not drowned by the penalty. The loss that is told is the mean
over all known cells, so that it does not grow with the number of labels, and a label that is known
of two validation rows says little.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..tasks import TASKS
from .head import Floats, Head, probabilities

LOSSES = ("softmax", "binary", "squared", "huber")
OF_NUMBERS = ("squared", "huber")
AT_ONCE = 2**24  # logits computed at once

Floats64 = npt.NDArray[np.float64]
Answers = Callable[[slice], Floats]


def loss_for(task: str, chosen: str) -> str:
    """The loss of a task; if it has several, the `chosen` one, which is `train.loss`."""
    losses = TASKS[task].losses
    return chosen if len(losses) > 1 else losses[0]


def score_name(loss: str) -> str:
    """What stands beside the loss: the share of known labels that are right, or R²."""
    return "r2" if loss in OF_NUMBERS else "accuracy"


def cell_weights(labels: Floats64, class_weights: Floats) -> Floats:
    """How much each cell counts, float32 [n, c]; 0 where its label is unknown.

    Args:
        labels: [n, c].
        class_weights: [c], or [c, 2]: of an output's cells of 0 and of 1.
    """
    known = ~np.isnan(labels)
    if class_weights.ndim == 1:
        return known * class_weights.astype(np.float32)
    weights = np.where(labels == 1, class_weights[:, 1], class_weights[:, 0])
    return np.where(known, weights, 0).astype(np.float32)


def cell_losses(loss: str, logits: npt.NDArray[np.floating], labels: Floats64) -> Floats64:
    """The loss of each cell [n, c], of any loss but softmax; NaN where the label is unknown."""
    given = logits.astype(np.float64)
    if loss == "binary":
        # log(1 + exp(x)) - y x, in a form that no x overflows.
        return np.maximum(given, 0) - given * labels + np.log1p(np.exp(-np.abs(given)))
    away = np.abs(given - labels)
    if loss == "squared":
        return away * away / 2
    return np.where(away <= 1, away * away / 2, away - 0.5)


def figures(
    loss: str, answers: Answers, labels: npt.NDArray[np.generic], class_weights: Floats
) -> tuple[float, float]:
    """Mean loss, and accuracy or R²; NaN where nothing is known.

    The loss is weighted by the class weights. Accuracy is the share of rows whose first class is
    right, or of known cells that are on the right side of 0. R² is the plain mean of the outputs',
    as scikit-learn's; an output that does not vary in these rows has none.

    Args:
        loss: one of `LOSSES`.
        answers: from rows to their logits [m, c]; asked for some rows at a time.
        labels: [n] or [n, c], as the loss takes them.
        class_weights: as `cell_weights` and `fit.class_weights` have them.
    """
    rows, classes = len(labels), len(class_weights)
    if not rows:
        return np.nan, np.nan
    size = max(1, AT_ONCE // classes)
    chunks = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    if loss == "softmax":
        return _of_classes(answers, labels.astype(np.int64), class_weights, chunks)
    return _of_cells(loss, answers, labels.astype(np.float64), class_weights, chunks)


def _of_classes(
    answers: Answers, labels: npt.NDArray[np.int64], class_weights: Floats, chunks: list[slice]
) -> tuple[float, float]:
    surprise, correct = np.empty(len(labels)), np.empty(len(labels), dtype=bool)
    for some in chunks:
        logits, wanted = answers(some), labels[some]
        given = probabilities(logits)[np.arange(len(wanted)), wanted]
        surprise[some] = -np.log(np.maximum(given, 1e-300))
        correct[some] = logits.argmax(axis=1) == wanted
    importance = class_weights[labels]
    return float(surprise @ importance / importance.sum()), float(correct.mean())


def _of_cells(
    loss: str, answers: Answers, labels: Floats64, class_weights: Floats, chunks: list[slice]
) -> tuple[float, float]:
    known = ~np.isnan(labels)
    if not known.any():
        return np.nan, np.nan
    total = weight = right = 0.0
    squares = np.zeros(labels.shape[1])
    for some in chunks:
        logits, wanted = answers(some), labels[some]
        cells, there = cell_weights(wanted, class_weights), known[some]
        total += float((np.where(there, cell_losses(loss, logits, wanted), 0) * cells).sum())
        weight += float(cells.sum(dtype=np.float64))
        if loss == "binary":
            right += float((((logits > 0) == (wanted == 1)) & there).sum())
        else:
            squares += np.square(np.where(there, logits - wanted, 0)).sum(axis=0)
    if loss == "binary":
        return total / weight, right / float(known.sum())
    spread = spreads(labels)
    varying = spread > 0
    if not varying.any():
        return total / weight, np.nan
    return total / weight, float(1 - (squares[varying] / spread[varying]).mean())


def spreads(labels: Floats64) -> Floats64:
    """Each output's summed square around its mean over the known rows, [c].

    It is 0 where no row is known, and where all are the same but for rounding.
    """
    known = ~np.isnan(labels)
    counts = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, labels, 0).sum(axis=0) / counts
    found = np.square(np.where(known, labels - mean, 0)).sum(axis=0)
    whole = np.square(np.where(known, labels, 0)).sum(axis=0)
    return np.where(found > 1e-12 * whole, found, 0.0)


@dataclass(frozen=True)
class Units:
    """Where the numbers of each output lie, [c] each: a label is learned as (it - centre) / unit.

    Of the squared loss, mean and standard deviation of the known training rows. Of Huber's, median
    and 1.4826 times the median absolute deviation, which is the standard deviation of normal
    numbers and which outliers do not move; the ordinary one where that is 0.
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
        """Numbers [n, c] in these units as the labels have them."""
        return (answers * self.unit + self.centre).astype(np.float32)

    def undone(self, head: Head) -> Head:
        """The head that answers in the labels' own units, of one that learned in these."""
        with np.errstate(over="ignore", invalid="ignore"):
            weight = (head.weight * self.unit[:, None]).astype(np.float32)
            bias = (head.bias * self.unit + self.centre).astype(np.float32)
        return replace(head, weight=weight, bias=bias)

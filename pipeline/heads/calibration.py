"""Fit temperature, priors and thresholds to predictions for held-out examples.

A label is predicted if its probability reaches its threshold. If classes were weighted in training,
the probability of a class is divided by its threshold (`head.against_thresholds`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ..tasks import TASKS
from .description import Calibration
from .head import MANY_LOGITS, Floats, fit_temperature, probabilities, sigmoid

Floats64 = npt.NDArray[np.float64]

DEFAULT = 0.5  # threshold, if the examples cannot show a better one
NEAREST = 1e-6  # distance of a threshold from 0 and from 1
LEAST, MOST = np.array([1e-3, 0.0]), np.array([1e3, 2.0])  # bounds of (1 / temperature, strength)
STEPS, NEAR = 100, 1e-9  # most steps and tolerance of Newton's method


def calibrated(
    logits: Floats, labels: npt.NDArray[Any], task: str, class_weights: Floats
) -> Calibration:
    """Fit the temperature, and thresholds for labels and for weighted classes.

    A head that was trained with class weights assumes class priors that differ from the data's. The
    difference in its logits is the log ratio of the priors (`log_priors`), times a strength: with
    many features and few examples, the weights have little effect. The strength is fitted together
    with the temperature; for two classes this is Platt scaling (1999). `prior_shift` [c] is added
    to the logits (`head.with_priors`). With `thresholds` the head still predicts the same class as
    without the shift.

    Args:
        logits: [n, c] of held-out examples.
        labels: the labels of these examples, in the task's form.
        class_weights: those that the head was trained with, as `fit.class_weights` returns them.
    """
    if not TASKS[task].probabilities:
        return Calibration()
    priors = log_priors(class_weights)
    added: npt.NDArray[Any] = np.empty(0)
    if priors is None:
        temperature = fit_temperature(logits, labels)
    else:
        temperature, strength = fit_priors(logits, labels, priors)
        added = np.array([float(f"{one:.6g}") for one in temperature * strength * priors])
        logits = (logits + added).astype(np.float32)
    thresholds: list[float] = []
    if TASKS[task].thresholds:
        thresholds = fit_thresholds(sigmoid(logits, temperature), labels)
    elif priors is not None:
        expected = np.minimum(probabilities(added, temperature), 1 - 1e-9)
        thresholds = [float(f"{one:.9g}") for one in expected]
    return Calibration(temperature, thresholds, added.tolist(), len(labels))


def log_priors(class_weights: Floats) -> Floats64 | None:
    """Return the log ratio of each class's prior to its weighted prior, [c].

    The ratio is 1 / weight, and the logarithms are centred to mean zero. For labels, whose weights
    are [c, 2], it is the difference in their log-odds. The result is None if all values are 0.
    """
    logs = np.log(class_weights.astype(np.float64))
    found: Floats64 = logs[:, 0] - logs[:, 1] if logs.ndim == 2 else logs.mean() - logs
    return found if np.abs(found).max(initial=0) > NEAREST else None


def fit_priors(logits: Floats, labels: npt.NDArray[Any], priors: Floats64) -> tuple[float, float]:
    """Fit the temperature, and the strength of the priors that are added to the divided logits.

    Newton's method minimises the negative log-likelihood, which is convex, between `LEAST` and
    `MOST`. Labels are smoothed as in `fit_temperature`.

    Args:
        logits: [n, c] of held-out examples.
        labels: [n], or [n, c] of labels that are 1, 0 or unknown (NaN).
        priors: [c], as `log_priors` returns it.

    Returns:
        temperature and strength, to six significant digits; 1 and 1 if there are no examples.
    """
    if not len(labels) or (labels.ndim == 2 and np.isnan(labels).all()):
        return 1.0, 1.0
    of = _bends_of_labels if labels.ndim == 2 else _bends_of_classes

    def at(place: Floats64) -> tuple[float, Floats64, Floats64]:
        return of(logits, labels, priors, place)

    place = np.clip([1 / fit_temperature(logits, labels), 1.0], LEAST, MOST)
    value, slope, bend = at(place)
    for _ in range(STEPS):
        free = ~((place <= LEAST) & (slope > 0) | (place >= MOST) & (slope < 0))
        step = np.zeros(2)
        inside = bend[np.ix_(free, free)] + 1e-12 * np.eye(free.sum())
        step[free] = -np.linalg.solve(inside, slope[free])
        for _ in range(STEPS):
            there = np.clip(place + step, LEAST, MOST)
            found = at(there)
            if found[0] <= value:
                break
            step /= 2
        moved = float(np.abs(there - place).max())
        place, (value, slope, bend) = there, found
        if moved < NEAR:
            break
    return float(f"{1 / place[0]:.6g}"), float(f"{place[1]:.6g}")


def _bends_of_classes(
    logits: Floats, labels: npt.NDArray[Any], priors: Floats64, place: Floats64
) -> tuple[float, Floats64, Floats64]:
    """Return mean loss, gradient [2] and Hessian [2, 2] at (1 / temperature, strength)."""
    examples, classes = logits.shape
    value, slope, bend = 0.0, np.zeros(2), np.zeros((2, 2))
    size = max(1, MANY_LOGITS // classes)
    for start in range(0, examples, size):
        scores = logits[start : start + size].astype(np.float64)
        wanted = labels[start : start + size].astype(np.int64)
        rows = np.arange(len(scores))
        both = place[0] * scores + place[1] * priors
        largest = both.max(axis=1, keepdims=True)
        powers = np.exp(both - largest)
        sums = powers.sum(axis=1, keepdims=True)
        answers = powers / sums
        softened = np.full(scores.shape, 1 / (classes * (examples + 1)))
        softened[rows, wanted] += examples / (examples + 1)
        value += float((np.log(sums) + largest).sum() - (softened * both).sum())
        apart = answers - softened
        slope += (apart * scores).sum(), (apart @ priors).sum()
        means = np.stack([(answers * scores).sum(axis=1), answers @ priors])
        mixed = (answers * scores) @ priors
        squares = (answers * scores**2).sum(), (answers @ priors**2).sum()
        bend += [[squares[0], mixed.sum()], [mixed.sum(), squares[1]]] - means @ means.T
    return value / examples, slope / examples, bend / examples


def _bends_of_labels(
    logits: Floats, labels: npt.NDArray[Any], priors: Floats64, place: Floats64
) -> tuple[float, Floats64, Floats64]:
    """Do the same as `_bends_of_classes` for labels; unknown labels do not count."""
    known = ~np.isnan(labels)
    counts = np.broadcast_to(known.sum(axis=0), labels.shape)[known]
    softened = (labels[known] * counts + 0.5) / (counts + 1)
    inputs = np.stack(
        [logits[known].astype(np.float64), np.broadcast_to(priors, labels.shape)[known]]
    )
    both = place @ inputs
    answers = sigmoid(both)
    value = float((np.logaddexp(0, both) - softened * both).mean())
    slope = inputs @ (answers - softened) / len(both)
    bend = (inputs * (answers * (1 - answers))) @ inputs.T / len(both)
    return value, slope, bend


def fit_thresholds(answers: Floats64, labels: Floats64) -> list[float]:
    """Choose a threshold for each label by its F1 on held-out examples.

    With few examples, many thresholds are about equally good, and chance decides which is best.
    From the thresholds within half a standard error of the best F1, this function chooses the one
    nearest to half of the best F1. That is the optimum for calibrated probabilities (Lipton, Elkan
    and Naryanaswamy, 2014). With scikit-learn's digits as labels, this increased F1 on new examples
    by 0.005 to 0.02.

    Args:
        answers: [n, c], the probability of each label.
        labels: [n, c]: 1, 0, or NaN if the label is unknown.

    Returns:
        c thresholds between 0 and 1, each halfway between two probabilities, or between the lowest
        one and 0; 0.5 if a label has no known positive or no known negative example.
    """
    return [
        _best(column[known], wanted[known] == 1)
        for column, wanted, known in zip(answers.T, labels.T, ~np.isnan(labels).T, strict=True)
    ]


def _best(answers: Floats64, there: npt.NDArray[np.bool_]) -> float:
    if not there.any() or there.all():
        return DEFAULT
    order = np.argsort(-answers, kind="stable")
    ranked = answers[order]
    taken, right = np.arange(1, len(ranked) + 1), np.cumsum(there[order])
    quality = 2 * right / (taken + there.sum())
    # Examples with equal probabilities are all above a threshold, or all below.
    ends = np.flatnonzero(np.append(ranked[:-1] > ranked[1:], True))
    middles = (ranked[ends] + np.append(ranked[1:], 0.0)[ends]) / 2
    best = float(quality[ends].max())
    error = np.sqrt(best * (1 - best) / there.sum())
    good = np.flatnonzero(quality[ends] >= best - error / 2)
    chosen = middles[good[np.argmin(np.abs(middles[good] - best / 2))]]
    return float(f"{np.clip(chosen, NEAREST, 1 - NEAREST):.6g}")

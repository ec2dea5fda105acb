"""Heads that are solved for instead of descended to, in the form that every head is saved in.

All take features of mean zero and of one scale, and measure weight decay alike: an L2 penalty of
`weight_decay / 2 * |weight|^2` beside the mean loss of a row; biases are free. The logits of ridge
and nearest mean are right in order only: `fair_scale` makes probabilities of them.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from ..tables.features import Split
from . import many_classes
from .head import Floats, Head, fit_temperature

MOST_ITERATIONS = 1000
AT_ONCE = 2**26  # numbers of a table of rows and classes

Floats64 = npt.NDArray[np.float64]


def lbfgs(
    train: Split, class_weights: Floats, decays: Sequence[float], start: Head | None = None
) -> list[Head]:
    """Multinomial logistic regression by L-BFGS (scikit-learn), one head for each decay.

    Of more than `many_classes.MANY` classes it is solved for by `many_classes`, from `start` on.

    Args:
        train: n rows.
        class_weights: [c], weighing each row by its label.
        decays: L2 penalties.
    """
    classes, importance = len(class_weights), class_weights[train.labels]
    if classes > many_classes.MANY:
        return _of_many(train, importance, classes, decays, start)
    model = LogisticRegression(max_iter=MOST_ITERATIONS, tol=1e-4, warm_start=True)
    heads: dict[float, Head] = {}
    # From the strongest penalty to the weakest, each from where the one before ended: a third of
    # the iterations (Friedman, Hastie and Tibshirani, 2010).
    for decay in sorted(set(decays), reverse=True):
        # scikit-learn sums the losses and scales them by C. With two classes it learns one column
        # of weights, twice the softmax's: the same penalty is then half as strong.
        strength = (2 if classes == 2 else 1) / (importance.sum() * decay) if decay else np.inf
        model.set_params(C=strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train.features, train.labels, sample_weight=importance)
        if model.n_iter_.max() >= MOST_ITERATIONS:
            _warn(decay, MOST_ITERATIONS)
        weight, bias = model.coef_, model.intercept_
        if classes == 2:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        heads[decay] = Head(weight.astype(np.float32), bias.astype(np.float32))
    return [heads[decay] for decay in decays]


def _of_many(
    train: Split, importance: Floats, classes: int, decays: Sequence[float], start: Head | None
) -> list[Head]:
    heads: dict[float, Head] = {}
    for decay in sorted(set(decays), reverse=True):
        heads[decay], converged = many_classes.minimum(train, importance, classes, decay, start)
        if not converged:
            _warn(decay, many_classes.MOST_ITERATIONS)
        start = heads[decay]
    return [heads[decay] for decay in decays]


def _warn(decay: float, iterations: int) -> None:
    print(
        f"train: warning: lbfgs with weight_decay {decay:g} had not converged after "
        f"{iterations} iterations; more weight decay makes it easier"
    )


def ridge(train: Split, class_weights: Floats, decays: Sequence[float]) -> list[Head]:
    """Least squares to one-hot labels, one head for each decay.

    One eigendecomposition of the features' covariance [d, d] serves all decays.
    """
    importance = class_weights[train.labels].astype(np.float64)
    importance /= importance.sum()
    features_mean = importance @ train.features
    shares = np.bincount(train.labels, importance, minlength=len(class_weights))
    wanted_mean = np.asarray(shares, np.float64)
    weighted = train.features * np.sqrt(importance, dtype=np.float32)[:, None]
    covariance = (weighted.T @ weighted).astype(np.float64) - np.outer(features_mean, features_mean)
    cross = np.empty((train.features.shape[1], len(class_weights)))
    important = (train.features * importance[:, None]).T
    size = max(1, AT_ONCE // len(importance))
    for start in range(0, len(class_weights), size):
        some = np.arange(start, min(start + size, len(class_weights)))
        wanted = (train.labels[:, None] == some).astype(np.float64)
        cross[:, some] = important @ (wanted - wanted_mean[some])
    solved = least_squares(features_mean, wanted_mean, covariance, cross, decays)
    return [Head(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in solved]


def least_squares(
    features_mean: Floats64,
    wanted_mean: Floats64,
    covariance: Floats64,
    cross: Floats64,
    decays: Sequence[float],
) -> list[tuple[Floats64, Floats64]]:
    """Weight [c, d] and bias [c] of least squares for each decay, from means and covariances.

    Args:
        features_mean: [d].
        wanted_mean: [c], of the one-hot labels.
        covariance: [d, d], of the features.
        cross: [d, c], covariance of features and labels.
        decays: L2 penalties.
    """
    values, vectors = np.linalg.eigh(covariance)
    rotated = vectors.T @ cross
    found = []
    for decay in decays:
        damped = values + decay
        # Without a penalty, directions in which the features do not vary keep weight zero.
        inverse = np.where(damped > 1e-7 * values[-1], 1 / np.maximum(damped, 1e-300), 0)
        weight = (vectors @ (inverse[:, None] * rotated)).T
        found.append((weight, wanted_mean - weight @ features_mean))
    return found


def nearest_mean(train: Split, class_weights: Floats, decays: Sequence[float]) -> list[Head]:
    """The class whose mean is nearest; it has no knob.

    The negative squared distance to a mean m, less what all classes share, is `2 m·x - |m|²`: a
    linear head.
    """
    classes = len(class_weights)
    means = np.stack([train.features[train.labels == c].mean(axis=0) for c in range(classes)])
    head = Head((2 * means).astype(np.float32), -np.square(means).sum(axis=1).astype(np.float32))
    return [head for _ in decays]


def fair_scale(logits: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
    """By what to multiply logits, so that their softmax (of labels: sigmoid) is fair.

    `head.fit_temperature` on the rows; of those that the head was solved for it makes a head that
    is surer of itself than it should be.
    """
    zero = logits.mean(axis=1, keepdims=True) if labels.ndim == 1 else 0
    unit = np.abs(logits - zero).mean() or 1.0
    told: npt.NDArray[Any] = logits / unit
    return 1 / float(unit * fit_temperature(told, labels))


Solver = Callable[[Split, Floats, Sequence[float]], list[Head]]
SOLVERS: dict[str, Solver] = {"lbfgs": lbfgs, "ridge": ridge, "nearest_mean": nearest_mean}
OF_NO_SCALE = ("ridge", "nearest_mean")

"""Heads that are solved for instead of descended to, in the form that every head is saved in.

All take features of mean zero and of one scale, and measure weight decay alike: an L2 penalty of
`weight_decay / 2 * |weight|^2` beside the mean loss of a row; biases are free.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from pipeline.features import Split
from pipeline.heads import Floats, Head, probabilities

MOST_ITERATIONS = 1000


def lbfgs(train: Split, val: Split, class_weights: Floats, decays: Sequence[float]) -> list[Head]:
    """Multinomial logistic regression by L-BFGS (scikit-learn), one head for each decay.

    Args:
        train: n rows.
        val: not looked at.
        class_weights: [c], weighing each row by its label.
        decays: L2 penalties.
    """
    classes, importance = len(class_weights), class_weights[train.labels]
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
            print(
                f"train: warning: lbfgs with weight_decay {decay:g} had not converged after "
                f"{MOST_ITERATIONS} iterations; more weight decay makes it easier"
            )
        weight, bias = model.coef_, model.intercept_
        if classes == 2:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        heads[decay] = Head(weight.astype(np.float32), bias.astype(np.float32))
    return [heads[decay] for decay in decays]


def ridge(train: Split, val: Split, class_weights: Floats, decays: Sequence[float]) -> list[Head]:
    """Least squares to one-hot labels, one head for each decay, scaled as `_scaled` says.

    One eigendecomposition of the features' covariance [d, d] serves all decays.
    """
    importance = class_weights[train.labels].astype(np.float64)
    importance /= importance.sum()
    wanted = np.eye(len(class_weights))[train.labels]
    features_mean, wanted_mean = importance @ train.features, importance @ wanted
    weighted = train.features * np.sqrt(importance, dtype=np.float32)[:, None]
    covariance = (weighted.T @ weighted).astype(np.float64) - np.outer(features_mean, features_mean)
    cross = (train.features * importance[:, None]).T @ (wanted - wanted_mean)
    values, vectors = np.linalg.eigh(covariance)
    rotated = vectors.T @ cross
    heads = []
    for decay in decays:
        damped = values + decay
        # Without a penalty, directions in which the features do not vary keep weight zero.
        inverse = np.where(damped > 1e-7 * values[-1], 1 / np.maximum(damped, 1e-300), 0)
        weight = (vectors @ (inverse[:, None] * rotated)).T
        bias = wanted_mean - weight @ features_mean
        heads.append(_scaled(weight, bias, train, val))
    return heads


def nearest_mean(
    train: Split, val: Split, class_weights: Floats, decays: Sequence[float]
) -> list[Head]:
    """The class whose mean is nearest; it has no knob.

    The negative squared distance to a mean m, less what all classes share, is `2 m·x - |m|²`: a
    linear head, scaled as `_scaled` says.
    """
    classes = len(class_weights)
    means = np.stack([train.features[train.labels == c].mean(axis=0) for c in range(classes)])
    head = _scaled(2 * means, -np.square(means).sum(axis=1), train, val)
    return [head for _ in decays]


def _scaled(
    weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], train: Split, val: Split
) -> Head:
    """Scale logits that are right in order only, so that their softmax is a fair probability.

    Temperature scaling (Guo et al., arXiv:1706.04599): the scale with the lowest cross-entropy on
    the validation rows, or on the training rows where there are none; the latter leaves a head
    surer of itself than it should be. As in Platt's scaling (1999), labels are believed a little
    less than wholly, here as if one row more had been seen that could be any class: a few rows that
    are all right must not mean certainty.
    """
    rows = val if len(val.labels) else train
    logits = rows.features @ weight.T + bias
    count, classes = logits.shape
    wanted = (np.eye(classes)[rows.labels] * count + 1 / classes) / (count + 1)
    unit = np.abs(logits - logits.mean(axis=1, keepdims=True)).mean()

    def loss(power: float) -> float:
        shares = probabilities(np.exp(power) / unit * logits)
        return float(-(wanted * np.log(np.maximum(shares, 1e-300))).sum())

    scale = np.exp(minimize_scalar(loss, bounds=(-7, 7), method="bounded").x) / unit
    return Head((scale * weight).astype(np.float32), (scale * bias).astype(np.float32))


Solver = Callable[[Split, Split, Floats, Sequence[float]], list[Head]]
SOLVERS: dict[str, Solver] = {"lbfgs": lbfgs, "ridge": ridge, "nearest_mean": nearest_mean}

"""Multinomial logistic regression for up to `many_classes.MANY` classes, by SciPy's L-BFGS-B.

Start, steps and tolerance are those of scikit-learn's `LogisticRegression`. Older versions of
Headstart called it, so a head differs from theirs only by rounding. It is not called any more,
because scikit-learn takes a second to import.
"""

import numpy as np
import numpy.typing as npt
from scipy import optimize

from ..tables.large import mapped
from . import lbfgs
from .head import Floats, Head
from .linear_loss import LinearLoss, with_ones
from .losses import LOSSES

TOLERANCE = 1e-4  # of the largest derivative
HALVINGS = 50  # evaluations along a direction


def minimum(
    features: Floats,
    labels: npt.NDArray[np.int64],
    importance: Floats,
    classes: int,
    decay: float,
    start: Head | None,
) -> tuple[Head, bool]:
    """Return the head with the lowest loss, and whether the optimisation converged.

    The arguments are those of `many_classes.minimum`. With two classes, only the difference of
    their logits is learned; its weights are twice as large, so their penalty is halved.
    """
    rows = mapped(features, with_ones)
    row_weights = (importance / importance.sum(dtype=np.float64)).astype(np.float32)[:, None]
    single = classes == 2
    loss = LOSSES["binary" if single else "softmax"]
    given = loss.labels(labels[:, None].astype(np.float32) if single else labels)
    objective = LinearLoss(loss, rows, given, row_weights, decay / 2 if single else decay)
    weights = np.zeros((classes, rows.shape[1]))
    if start is not None:
        weights[:, 0], weights[:, 1:] = start.bias, start.weight
    if single:
        weights = weights[1:] - weights[:1]
    problem = np.zeros(1, dtype=np.intp)

    def at(flat: lbfgs.Floats64) -> tuple[float, lbfgs.Floats64]:
        heights, gradients = objective(flat[None], problem)
        return float(heights[0]), gradients[0]

    found = optimize.minimize(
        at, weights.ravel(), method="L-BFGS-B", jac=True,
        options={
            "maxiter": lbfgs.MOST_ITERATIONS, "maxls": HALVINGS, "gtol": TOLERANCE,
            "ftol": 64 * np.finfo(np.float64).eps,
        },
    )  # fmt: skip
    weights = found.x.reshape(weights.shape)
    if single:
        weights = np.concatenate([-weights, weights]) / 2
    solved: Floats = weights.astype(np.float32)
    return Head(solved[:, 1:].copy(), solved[:, 0].copy()), found.nit < lbfgs.MOST_ITERATIONS

"""How well a backbone's features suit labels, told without training a head: LogME."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from ..heads.head import Floats, one_thread

# Noise over signal that is searched, as a share of the features' largest variance.
LEAST, MOST = 1e-9, 1e9


def logme(features: Floats, labels: npt.NDArray[Any], classes: int) -> float:
    """LogME (You et al., ICML 2021, arXiv:2102.11005): the higher, the better the features.

    For each class it is the log evidence, by example, of a Bayesian linear model from the features
    to 1 for the class and 0 for the others; weights ~ N(0, 1/α), noise ~ N(0, 1/β), both at the
    values of highest evidence. The mean over classes. The paper finds α and β by an iteration,
    which divides by zero where features fit the labels exactly; here the best β is written down
    for each α/β, and that one number is searched.

    Of several labels it is the mean over the labels, each of the examples of which it is known. Of
    numbers, which the paper defines it for, it is the mean over the numbers; it depends on their
    unit, so `heads.losses.Units` should be theirs.

    Args:
        features: [n, d].
        labels: [n], from 0 to `classes` - 1; or [n, classes] of labels that are 1, 0 or NaN, or of
            numbers.
        classes: at least 2; of labels and numbers at least 1.
    """
    wanted = labels.astype(np.float64) if labels.ndim == 2 else np.eye(classes)[labels]
    known = ~np.isnan(wanted)
    patterns, which = np.unique(known, axis=1, return_inverse=True)
    found = np.zeros(classes)
    with one_thread():
        for number, pattern in enumerate(patterns.T):
            columns = np.flatnonzero(which.ravel() == number)
            targets = wanted[np.ix_(pattern, columns)]
            of_known = features[pattern].astype(np.float64)
            left, singular, _ = np.linalg.svd(of_known, full_matrices=False)
            for column, w in zip(columns, targets.T, strict=True):
                found[column] = _evidence(left.T @ w, w @ w, singular**2, len(w))
    return float(np.mean(found))


def _evidence(
    along: npt.NDArray[np.float64], total: float, squares: npt.NDArray[np.float64], count: int
) -> float:
    """Highest log evidence by example.

    Args:
        along: [k], the targets along each left singular vector of the features.
        total: sum of the squared targets.
        squares: [k], the squared singular values.
        count: of examples.
    """
    outside = max(total - along @ along, 0.0)  # what no weights can reach

    def negative(power: float) -> float:
        ratio = np.exp(power)
        # Targets ~ N(0, (I + F Fᵀ / ratio) / β), and the likeliest β is count / misfit.
        misfit = max(np.sum(along**2 * ratio / (squares + ratio)) + outside, 1e-300)
        spread = np.sum(np.log1p(squares / ratio))
        return float((count * np.log(2 * np.pi * misfit / count) + spread + count) / 2)

    ends = np.log(LEAST * squares[0]), np.log(MOST * squares[0])
    grid = np.linspace(*ends, 100)
    middle = int(np.argmin([negative(power) for power in grid]))
    bounds = grid[max(0, middle - 1)], grid[min(len(grid) - 1, middle + 1)]
    best = minimize_scalar(negative, bounds=bounds, method="bounded")
    return -float(best.fun) / count

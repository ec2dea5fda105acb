"""How well a backbone's features suit labels, told without training a head: LogME."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from ..heads.head import Floats, one_thread

# Noise over signal that is searched, as a share of the features' largest variance.
LEAST, MOST = 1e-9, 1e9


def logme(features: Floats, labels: npt.NDArray[np.int64], classes: int) -> float:
    """LogME (You et al., ICML 2021, arXiv:2102.11005): the higher, the better the features.

    For each class it is the log evidence, by example, of a Bayesian linear model from the features
    to 1 for the class and 0 for the others; weights ~ N(0, 1/α), noise ~ N(0, 1/β), both at the
    values of highest evidence. The mean over classes. The paper finds α and β by an iteration,
    which divides by zero where features fit the labels exactly; here the best β is written down
    for each α/β, and that one number is searched.

    Args:
        features: [n, d].
        labels: [n], from 0 to `classes` - 1.
        classes: at least 2.
    """
    wanted = np.eye(classes)[labels]
    with one_thread():
        left, singular, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
        return float(np.mean([_evidence(left.T @ w, w @ w, singular**2, len(w)) for w in wanted.T]))


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

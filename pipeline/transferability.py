"""How well a backbone's features suit labels, told without training a head: LogME."""

import numpy as np
import numpy.typing as npt

from pipeline.heads import Floats

ITERATIONS = 100
TOLERANCE = 1e-5  # relative, of weight precision over noise precision


def logme(features: Floats, labels: npt.NDArray[np.int64], classes: int) -> float:
    """LogME (You et al., ICML 2021, arXiv:2102.11005): the higher, the better the features.

    For each class it is the log evidence, by picture, of a Bayesian linear model from the features
    to 1 for the class and 0 for the others; weights ~ N(0, 1/α), noise ~ N(0, 1/β), both at the
    values of highest evidence, found by MacKay's fixed-point iteration. The mean over classes.

    Args:
        features: [n, d].
        labels: [n], from 0 to `classes` - 1.
        classes: at least 2.
    """
    wide = features.astype(np.float64)
    left, singular, _ = np.linalg.svd(wide, full_matrices=False)
    wanted = np.eye(classes)[labels]
    evidences = [_evidence(left, singular, wanted[:, c], wide.shape[1]) for c in range(classes)]
    return float(np.mean(evidences))


def _evidence(
    left: npt.NDArray[np.float64],
    singular: npt.NDArray[np.float64],
    wanted: npt.NDArray[np.float64],
    dimension: int,
) -> float:
    """Highest log evidence by picture, of features with this decomposition for targets [n]."""
    count = len(wanted)
    along = left.T @ wanted
    outside = max(float(wanted @ wanted - along @ along), 0.0)  # what no weights can reach
    squares = singular**2
    alpha = beta = 1.0
    for _ in range(ITERATIONS):
        ratio = alpha / beta
        share = squares / (squares + ratio)  # how far the data decide each direction
        weights = float(np.sum(squares * along**2 / (squares + ratio) ** 2))
        misfit = float(np.sum(((1 - share) * along) ** 2)) + outside
        free = float(share.sum())
        alpha = free / max(weights, 1e-300)
        beta = (count - free) / max(misfit, 1e-300)
        if abs(alpha / beta - ratio) <= TOLERANCE * ratio:
            break
    spread = np.sum(np.log(alpha + beta * squares)) + (dimension - len(squares)) * np.log(alpha)
    total = count * np.log(beta) + dimension * np.log(alpha) - count * np.log(2 * np.pi)
    ratio = alpha / beta
    weights = float(np.sum(squares * along**2 / (squares + ratio) ** 2))
    misfit = float(np.sum((ratio / (squares + ratio) * along) ** 2)) + outside
    return float((total - spread - beta * misfit - alpha * weights) / (2 * count))

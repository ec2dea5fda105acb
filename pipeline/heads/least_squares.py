"""Least squares with an L2 penalty from sums, in one place for all who need it."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

Array = npt.NDArray[Any]


def ridge(gram: Array, penalty: float | Array, cross: Array) -> Array:
    """The x [d, c] of `(gram + diag(penalty)) x = cross`; a tiny penalty stands in for none.

    Args:
        gram: [d, d], of which the lower triangle is read.
        penalty: a number, or [d].
        cross: [d, c].
    """
    system = np.array(gram, order="F")
    least = max(1e-9 * float(np.trace(gram)), 1e-300)
    system[np.diag_indices(len(system))] += np.maximum(penalty, least).astype(system.dtype)
    factor = cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
    solution: Array = cho_solve(factor, cross, check_finite=False)
    return solution

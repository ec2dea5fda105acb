"""Ridge regression from sums of products, shared by all modules that need it."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

Array = npt.NDArray[Any]


def ridge(gram: Array, penalty: float | Array, cross: Array, overwrite: bool = False) -> Array:
    """Solve `(gram + diag(penalty)) x = cross` for x [d, c]; a zero penalty becomes a tiny one.

    Args:
        gram: [d, d]; only the lower triangle is read.
        penalty: a number, or [d].
        cross: [d, c].
        overwrite: whether `gram` may be overwritten; it should then be in Fortran's order.
    """
    system = np.array(gram, order="F", copy=None if overwrite else True)
    least = max(1e-9 * float(np.trace(gram)), 1e-300)
    system[np.diag_indices(len(system))] += np.maximum(penalty, least).astype(system.dtype)
    factor = cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
    solution: Array = cho_solve(factor, cross, check_finite=False)
    return solution

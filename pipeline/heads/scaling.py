"""The scales that the centred features are divided by, by their names in `SCALINGS`.

A head is trained on scaled features, and its weights then include the scale (`fit.fit_heads`).

- `global`: one number for all features of a layer, so that those that vary most keep their
  influence.
- `per_feature`: the standard deviation of each feature, as in scikit-learn's `StandardScaler`. The
  penalty then does not depend on the features' units.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import DataError
from ..tables.large import chunks
from ..tables.layers import Layers, by_layer

Floats = npt.NDArray[np.float32]
Scale = Floats | np.float32

GLOBAL, PER_FEATURE = "global", "per_feature"
SQUARES = (1e-30, 1e30)  # the range of a mean square in float32
CONSTANT = 1e-6  # of the largest value: a feature that varies less varies by rounding


def centre_and_scale(
    features: Floats, scaling: str = GLOBAL, layers: Layers = ()
) -> tuple[Floats, Scale]:
    """Return the mean [d] of the rows, and the scale of the centred features: a number or [d].

    If the features come from several layers, each layer has its own global scale.

    Raises:
        DataError: the features are too large to compute their scale.
    """
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    if layers and scaling == GLOBAL:
        parts = zip(by_layer(features, layers), by_layer(mean[None], layers), strict=True)
        scales = [_of_all(part, of_part[0]) for part, of_part in parts]
        return mean, np.repeat(np.array(scales, np.float32), [layer.width for layer in layers])
    return mean, SCALINGS[scaling](features, mean)


def _of_all(features: Floats, mean: Floats) -> np.float32:
    """Return the root mean square of the centred features."""
    with np.errstate(over="ignore", under="ignore"):
        square = _lengths(features, mean, features.dtype).mean(dtype=np.float64) / len(mean)
        if not SQUARES[0] < square < SQUARES[1]:  # float32 overflows, underflows or loses digits
            square = _lengths(features, mean, np.float64).mean() / len(mean)
    if not np.isfinite(square):
        raise DataError(
            f"features go up to {np.abs(features).max():.3g}, which is too large for a head: divide"
            " the vectors by a number, or lower train.power"
        )
    return np.float32(np.sqrt(square)) if square > 0 else np.float32(1)


def _lengths(features: Floats, mean: Floats, of: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the squared length [n] of each centred row, computed in this type."""
    found = [np.empty(0, of)]
    for some in chunks(*features.shape):
        centred = (features[some] - mean).astype(of, copy=False)
        found.append(np.einsum("nd,nd->n", centred, centred))
    return np.concatenate(found)


def _of_each(features: Floats, mean: Floats) -> Floats:
    """Return the root mean square of each centred feature; constant ones have the common scale."""
    common = _of_all(features, mean)
    square = np.zeros(len(mean))
    largest = np.zeros(len(mean), np.float32)
    size = max(1, 2**20 // len(mean))
    for start in range(0, len(features), size):  # in float64, a few rows at a time
        rows = features[start : start + size]
        square += np.square(rows - mean, dtype=np.float64).sum(axis=0)
        largest = np.maximum(largest, np.abs(rows).max(axis=0))
    found = np.sqrt(square / len(features)).astype(np.float32)
    return np.where(found > CONSTANT * largest, found, common)


SCALINGS: dict[str, Callable[[Floats, Floats], Any]] = {GLOBAL: _of_all, PER_FEATURE: _of_each}

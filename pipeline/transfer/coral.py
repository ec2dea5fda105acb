"""CORAL: align the mean and covariance of source features with those of the target.

Source features are whitened with the source covariance and re-coloured with the target covariance
(Sun, Feng and Saenko, "Return of frustratingly easy domain adaptation", AAAI 2016, algorithm 1).
Their mean is moved to the target mean. A head that is trained on the aligned source needs no
transformation of target features.

There are often fewer examples than features, so both covariances are shrunk. The source covariance
is shrunk towards a multiple of the identity (Ledoit and Wolf, "A well-conditioned estimator for
large-dimensional covariance matrices", 2004), the target covariance towards the source covariance.
The shrinkage minimises the expected squared error. If there are few target examples, the features
are therefore mostly moved and hardly rotated or scaled.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Alignment:
    """The map from source features [n, d] to features with the target's mean and covariance.

    `source_mean` and `target_mean` are [d]. The examples vary only in the span of `basis` [d, r],
    whose columns are orthonormal. `turn` [r, r] is the map of coordinates in this basis.
    """

    source_mean: Doubles
    target_mean: Doubles
    basis: Doubles
    turn: Doubles

    def aligned(self, features: Floats) -> Floats:
        """Return the aligned features, float32 [n, d]; parts outside the basis are only moved."""
        centred = features - self.source_mean
        inside = centred @ self.basis
        moved = centred + (inside @ self.turn - inside) @ self.basis.T + self.target_mean
        return np.asarray(moved, dtype=np.float32)


def fitted(source: Floats, target: Floats, weights: Doubles | None = None) -> Alignment:
    """Fit the alignment of a source [n, d] with a target [m, d].

    Args:
        source: features of labelled examples.
        target: features of examples of another domain.
        weights: [n], weights of the source rows if the class priors differ; None for equal weights.
    """
    if weights is None:
        weights = np.ones(len(source))
    dimension = source.shape[1]
    source_mean, target_mean = mean_of(source, weights), mean_of(target, np.ones(len(target)))
    basis = _basis(source - source_mean, target - target_mean)
    ours, spread = covariance((source - source_mean) @ basis, weights)
    ours = shrunk_to_identity(ours, spread, dimension)
    theirs, spread = covariance((target - target_mean) @ basis, np.ones(len(target)))
    theirs = shrunk(theirs, spread, ours)
    return Alignment(source_mean, target_mean, basis, power(ours, -0.5) @ power(theirs, 0.5))


def mean_of(features: Floats, weights: Doubles) -> Doubles:
    """Return the weighted mean [d] of rows."""
    mean: Doubles = (weights / weights.sum()) @ features.astype(np.float64)
    return mean


def _basis(source: Doubles, target: Doubles) -> Doubles:
    """Return orthonormal columns [d, r] that span all rows; the identity with d or more rows."""
    rows = np.concatenate([source, target])
    if len(rows) >= rows.shape[1]:
        return np.eye(rows.shape[1])
    basis: Doubles = np.linalg.qr(rows.T)[0]
    return basis


def covariance(centred: Doubles, weights: Doubles) -> tuple[Doubles, float]:
    """Return the covariance [d, d] of centred rows, and the expected sum of its squared errors."""
    weight = weights / weights.sum()
    found: Doubles = (centred * weight[:, None]).T @ centred
    squares = np.square(np.square(centred).sum(axis=1))
    spread = np.square(weight) @ squares - np.square(weight).sum() * np.square(found).sum()
    return found, max(float(spread), 0.0)


def shrunk_to_identity(found: Doubles, spread: float, dimension: int) -> Doubles:
    """Shrink a covariance as in Ledoit and Wolf, for features that vary only in a subspace.

    Args:
        found: [r, r], the covariance in the subspace.
        spread: expected squared error of `found`, as `covariance` returns it.
        dimension: the number of features.
    """
    mean = float(np.trace(found)) / dimension
    away = float(np.square(found).sum()) - dimension * mean**2
    shrinkage = min(1.0, spread / away) if away > 0 else 1.0
    return (1 - shrinkage) * found + shrinkage * mean * np.eye(len(found))


def shrunk(found: Doubles, spread: float, towards: Doubles) -> Doubles:
    """Shrink a covariance [r, r] towards a second one, so that its expected error is lowest."""
    away = float(np.square(found - towards).sum())
    shrinkage = min(1.0, spread / away) if away > 0 else 1.0
    return (1 - shrinkage) * found + shrinkage * towards


def power(symmetric: Doubles, exponent: float) -> Doubles:
    """Return a power of a positive semi-definite matrix [r, r]; zero eigenvalues stay zero."""
    values, vectors = np.linalg.eigh(symmetric)
    kept = values > 1e-10 * max(values[-1], 0)
    raised = np.where(kept, np.where(kept, values, 1) ** exponent, 0)
    powers: Doubles = (vectors * raised) @ vectors.T
    return powers

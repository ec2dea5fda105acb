"""CORAL: source features moved and turned until mean and covariance are those of the target.

Whitened by the source's covariance and coloured by the target's (Sun, Feng and Saenko, "Return of
frustratingly easy domain adaptation", AAAI 2016, algorithm 1), and moved from mean to mean. A head
that is trained on the aligned source takes features of the target as they are.

There are often fewer examples than features, so covariances are shrunk: that of the source towards
a multiple of the identity (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional
covariance matrices", 2004), that of the target towards the source's, by the
fraction that minimises the expected squared error. Few target examples therefore move the features
and turn them little.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Alignment:
    """The map from features of the source, [n, d], to such as the target has.

    `source_mean` and `target_mean` are [d]. Examples vary in no more than `basis` [d, r], whose
    columns are orthonormal, and are turned there by `turn` [r, r].
    """

    source_mean: Doubles
    target_mean: Doubles
    basis: Doubles
    turn: Doubles

    def aligned(self, features: Floats) -> Floats:
        """The features, float32 [n, d]; what lies outside of the basis stays as it is."""
        centred = features - self.source_mean
        inside = centred @ self.basis
        moved = centred + (inside @ self.turn - inside) @ self.basis.T + self.target_mean
        return np.asarray(moved, dtype=np.float32)


def fitted(source: Floats, target: Floats, weights: Doubles | None = None) -> Alignment:
    """The alignment of a source [n, d] with a target [m, d].

    Args:
        source: features of labelled examples.
        target: features of examples from elsewhere.
        weights: of the source's rows, [n], if the class priors differ; None: all alike.
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
    """Mean [d] of rows, of which each has a weight."""
    mean: Doubles = (weights / weights.sum()) @ features.astype(np.float64)
    return mean


def _basis(source: Doubles, target: Doubles) -> Doubles:
    """Orthonormal columns [d, r] that span the rows of both; the identity where these are many."""
    rows = np.concatenate([source, target])
    if len(rows) >= rows.shape[1]:
        return np.eye(rows.shape[1])
    basis: Doubles = np.linalg.qr(rows.T)[0]
    return basis


def covariance(centred: Doubles, weights: Doubles) -> tuple[Doubles, float]:
    """Covariance [d, d] of rows of mean zero, and the expected sum of its squared errors."""
    weight = weights / weights.sum()
    found: Doubles = (centred * weight[:, None]).T @ centred
    squares = np.square(np.square(centred).sum(axis=1))
    spread = np.square(weight) @ squares - np.square(weight).sum() * np.square(found).sum()
    return found, max(float(spread), 0.0)


def shrunk_to_identity(found: Doubles, spread: float, dimension: int) -> Doubles:
    """A covariance after Ledoit and Wolf, of features that vary in no more than its directions.

    Args:
        found: [r, r], the covariance in these directions.
        spread: its expected squared error, as `covariance` returns it.
        dimension: how many features there are.
    """
    mean = float(np.trace(found)) / dimension
    away = float(np.square(found).sum()) - dimension * mean**2
    shrinkage = min(1.0, spread / away) if away > 0 else 1.0
    return (1 - shrinkage) * found + shrinkage * mean * np.eye(len(found))


def shrunk(found: Doubles, spread: float, towards: Doubles) -> Doubles:
    """A covariance [r, r] moved towards another one, as far as lowers its expected error most."""
    away = float(np.square(found - towards).sum())
    shrinkage = min(1.0, spread / away) if away > 0 else 1.0
    return (1 - shrinkage) * found + shrinkage * towards


def power(symmetric: Doubles, exponent: float) -> Doubles:
    """A symmetric matrix [r, r] without negative values to a power; what is zero stays zero."""
    values, vectors = np.linalg.eigh(symmetric)
    kept = values > 1e-10 * max(values[-1], 0)
    raised = np.where(kept, np.where(kept, values, 1) ** exponent, 0)
    powers: Doubles = (vectors * raised) @ vectors.T
    return powers

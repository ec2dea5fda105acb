"""Differential privacy with OpenDP: sums get noise, so that they hardly depend on any one example.

Each feature vector is clipped to a length of at most `clip`, then every entry of the sums gets
Gaussian noise (Dwork and Roth, 2014, section 3.5.3). OpenDP draws the noise from the operating
system's secure random source, and exactly on a grid, so that the digits reveal nothing (Canonne,
Kamath and Steinke, "The discrete Gaussian for differential privacy", NeurIPS 2020). It computes
(ε, δ) with zero-concentrated differential privacy (Bun and Steinke, 2016), where the ρ of several
submissions add up. Two data sets are neighbours if one has one more example than the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_ndtr, ndtr

from ..heads.head import Floats
from .sums import Floats64, Sums, packed, symmetric

if TYPE_CHECKING:
    from opendp.mod import Measurement

BLOCKS = 3  # sums of products, sums of features, counts of rows


@dataclass(frozen=True)
class Noise:
    """The requested (ε, δ) of one submission, and the largest length of a feature vector."""

    epsilon: float
    delta: float
    clip: float


def clipped(features: Floats, clip: float) -> Floats64:
    """Clip rows [n, d] to a length of at most `clip`."""
    exact = features.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    # Slightly below `clip`, since rounding could make some longer.
    return np.asarray(exact * np.minimum(1, clip * (1 - 1e-12) / np.maximum(lengths, 1e-300)))


def noisy(sums: Sums, noise: Noise, rows_of_one: int) -> tuple[Sums, float]:
    """Return sums of clipped rows with noise on every entry, and the ρ of this release.

    Args:
        sums: the sums of rows from `clipped`.
        rows_of_one: the largest number of rows of one example.
    """
    # In these units one example changes each block by an L2 norm of at most `rows_of_one`.
    units = (noise.clip**2, noise.clip, 1.0)
    blocks = [packed(sums.gram), sums.class_sums.ravel(), sums.rows]
    flat = np.concatenate([block / unit for block, unit in zip(blocks, units, strict=True)])
    most = math.sqrt(BLOCKS) * rows_of_one
    scale = scale_for(noise, most)
    measurement = _gaussian(scale)
    drawn = np.array(measurement(flat.tolist()))
    ends = np.cumsum([len(block) for block in blocks])[:-1]
    gram, class_sums, rows = (
        part * unit for part, unit in zip(np.split(drawn, ends), units, strict=True)
    )
    found = Sums(
        sums.classes,
        symmetric(gram),
        class_sums.reshape(sums.class_sums.shape),
        rows,
        scale * noise.clip**2,
    )
    return found, float(measurement.map(most))


def scale_for(noise: Noise, most: float) -> float:
    """Return the standard deviation of the noise for sums of L2 sensitivity `most`."""
    dp = _opendp()

    def asked(scale: float) -> Any:
        return dp.c.make_fix_delta(dp.c.make_zCDP_to_approxDP(_gaussian(scale)), noise.delta)

    found: float = dp.binary_search_param(
        asked, d_in=most, d_out=(noise.epsilon, noise.delta), T=float
    )
    return found


def least_scale(noise: Noise) -> float:
    """Return the least standard deviation, in the units of `noisy`, with which (ε, δ) can hold.

    The noise is Gaussian, and the L2 sensitivity of the sums is √3, as for an example with a
    single row. The value is exact (Balle and Wang, "Improving the Gaussian mechanism for
    differential privacy", ICML 2018, theorem 8); `scale_for` returns a larger one.
    """

    def delta(scale: float) -> float:
        ratio = math.sqrt(BLOCKS) / scale
        near, far = ratio / 2 - noise.epsilon / ratio, -ratio / 2 - noise.epsilon / ratio
        return float(ndtr(near) - np.exp(min(noise.epsilon + log_ndtr(far), 0.0)))

    low, high = math.log(1e-160), math.log(1e160)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if delta(math.exp(middle)) > noise.delta else (low, middle)
    return math.exp(low)


def epsilon(rhos: Sequence[float], delta: float) -> float:
    """Return the joint ε, at `delta`, of submissions with these ρ."""
    dp = _opendp()
    measurement = _gaussian(1 / math.sqrt(2 * sum(rhos)))
    epsilon_of_all: float = dp.c.make_zCDP_to_approxDP(measurement).map(1.0).epsilon(delta)
    return epsilon_of_all


def _gaussian(scale: float) -> "Measurement":
    dp = _opendp()
    domain = dp.vector_domain(dp.atom_domain(T=float, nan=False))
    made: Measurement = dp.m.make_gaussian(domain, dp.l2_distance(T=float), scale=scale)
    return made


def _opendp() -> Any:
    import opendp.prelude as dp  # imported only here, since its library has 264 MB

    dp.enable_features("contrib")
    return dp

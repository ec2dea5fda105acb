"""Linear discriminant analysis with a shrunken covariance: the optimizer `lda`.

Classes share one covariance, that of the features within classes, which is shrunk towards a
multiple of the identity. The amount is estimated as in Ledoit and Wolf (A well-conditioned
estimator for large-dimensional covariance matrices, 2004), so there is no hyperparameter to choose.

A head needs only sums over its rows. `Sums` adds them up once, for all training and validation
examples. For a head of some of these rows, the sums of the other rows are subtracted, so that each
head of the cross-fit, and the refit, costs only a decomposition.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dsyrk, ssyrk

from ..tables.features import Split
from ..tables.large import taken
from .head import Floats, Head
from .least_squares import ridge
from .losses import LOSSES
from .scaling import GLOBAL, Scale, centre_and_scale

if TYPE_CHECKING:
    from .trained import Schedule

Floats64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

AT_ONCE = 4096  # rows whose products are added up in float32
LEAST = 1e-3  # shrinkage, so that the covariance can be inverted


@dataclass(frozen=True)
class Sums:
    """Sums over n rows, sorted by class. `order` [n] are their positions in the split.

    `features` [n, d] are centred and scaled (`mean`, `scale`), and `squares` [n] are their squared
    lengths. `totals` [c, d] are the weighted sums of each class, and `products` [d, d] those of the
    features' products (the lower triangle). `products` is None if there are fewer rows than
    features, because the products of rows with each other are then the smaller matrix.
    """

    order: Integers
    labels: Integers
    weights: Floats64
    examples: Integers
    features: Floats
    squares: Floats64
    mean: Floats
    scale: Scale
    totals: Floats64
    products: Floats64 | None

    @classmethod
    def of(cls, split: Split, schedule: "Schedule", scaling: str = GLOBAL) -> "Sums":
        """Add up the rows of a split, weighted as in the schedule.

        The scale, one of `scaling.SCALINGS`, is computed from all rows.
        """
        loss, outputs = LOSSES[schedule.loss], len(schedule.class_weights)
        rows = schedule.weigh(split.digests)
        weights = loss.importance(split.labels, schedule.class_weights, rows)[:, 0]
        examples = np.unique(split.digests, return_inverse=True)[1]
        order = np.argsort(split.labels, kind="stable")
        mean, scale = centre_and_scale(split.features, scaling, schedule.layers)
        features = taken(split.features, order)
        features -= mean
        features /= scale
        labels, ordered = split.labels[order], weights[order].astype(np.float64)
        squares = np.einsum("nd,nd->n", features, features).astype(np.float64)
        sums = _added(features, labels, ordered, outputs, len(features) >= features.shape[1])
        return cls(order, labels, ordered, examples[order], features, squares, mean, scale, *sums)

    def head(self, chosen: npt.NDArray[np.bool_]) -> Head:
        """Return the head of the rows in the mask `chosen` [n], which is in the order of the split.

        Its logits are the logarithms of the classes' densities times priors, except for a term that
        all classes share. The views of an example are alike, so the shrinkage counts them as one
        observation. The priors are the weights of the classes' rows.
        """
        inside = chosen[self.order]
        totals, products = self.totals, self.products
        if len(left := np.flatnonzero(~inside)):
            of_left = self.labels[left], self.weights[left], len(totals), products is not None
            fewer, less = _added(taken(self.features, left), *of_left)
            totals = totals - fewer
            if products is not None and less is not None:
                products = np.subtract(products, less, out=less)
        weights = np.where(inside, self.weights, 0)
        weights /= weights.sum()
        whole = self.weights[inside].sum()
        priors = np.bincount(self.labels, weights, len(totals))
        means = totals / whole / priors[:, None]
        if products is None:
            kept = np.flatnonzero(inside)
            within = self.features[kept] - means[self.labels[kept]].astype(np.float32)
            within *= np.sqrt(weights[kept]).astype(np.float32)[:, None]
            products = _products(within, of_rows=True)
        else:
            within = None
            between = np.sqrt(priors)[:, None] * means
            own = None if products is self.products else products
            products = np.divide(products, whole, out=own)
            products = dsyrk(-1.0, between.T, beta=1.0, c=products, overwrite_c=True, lower=1)
        weight = self._solved(means, products, within, self._fourth(weights, means))
        bias = np.log(priors) - 0.5 * (weight * means).sum(axis=1)
        with np.errstate(over="ignore", invalid="ignore"):  # `fit` checks the weights
            unscaled = (weight / self.scale).astype(np.float32)
            return Head(unscaled, (bias - unscaled @ self.mean).astype(np.float32))

    def _fourth(self, weights: Floats64, means: Floats64) -> tuple[float, float]:
        """Return two sums over observations: fourth powers of distances, and squared weights."""
        distances = self.squares + np.square(means).sum(axis=1)[self.labels]
        starts = np.searchsorted(self.labels, np.arange(len(means) + 1))
        for mean, (start, end) in zip(means.astype(np.float32), pairwise(starts), strict=True):
            distances[start:end] -= 2 * (self.features[start:end] @ mean)
        of_examples = np.bincount(self.examples, weights)
        fourth = (weights * of_examples[self.examples]) @ np.square(distances)
        return float(fourth), float(np.square(of_examples).sum())

    def _solved(
        self,
        means: Floats64,
        products: Floats64,
        within: Floats | None,
        fourth: tuple[float, float],
    ) -> Floats64:
        """Return the means [c, d] times the inverse of the shrunken covariance.

        Args:
            means: [c, d].
            products: the covariance [d, d]; with `within`, the products [m, m] of its rows.
            within: rows [m, d] whose products [d, d] are the covariance; None if `products` is it.
            fourth: as returned by `_fourth`.
        """
        dimension = means.shape[1]
        level = float(np.trace(products)) / dimension
        squares = 2 * float(np.vdot(products.T, products.T))  # transposed, so as not to copy
        squares -= float(np.square(np.diag(products)).sum())
        far = squares - dimension * level**2
        if level <= 0 or far <= 0:  # no row differs from its class's mean
            return means
        noise = fourth[0] - fourth[1] * squares
        shrinkage = min(max(noise / far, LEAST), 1.0)
        penalty = shrinkage * level
        products *= 1 - shrinkage
        if within is None:
            return ridge(products, penalty, means.T, overwrite=True).T
        inner = ridge(products, penalty, within @ means.T, overwrite=True)  # Woodbury's identity
        weight: Floats64 = (means - (1 - shrinkage) * inner.T @ within) / penalty
        return weight


def _added(
    features: Floats, labels: Integers, weights: Floats64, classes: int, squared: bool
) -> tuple[Floats64, Floats64 | None]:
    """Return the weighted sums [c, d] of rows that are sorted by class, and of their products.

    Products are summed in float32 for a fixed number of rows, and these sums in float64.
    """
    dimension = features.shape[1]
    totals = np.zeros((classes, dimension))
    products = None
    for start in range(0, len(labels), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        of = np.arange(labels[some][0], labels[some][-1] + 1)
        of_classes = (labels[some] == of[:, None]) * weights[some].astype(np.float32)
        totals[of] += of_classes @ features[some]
        if squared:
            roots = np.sqrt(weights[some]).astype(np.float32)
            part = _products(features[some] * roots[:, None])
            products = part if products is None else np.add(products, part, out=products)
    return totals, products


def _products(features: Floats, of_rows: bool = False) -> Floats64:
    """Return the products of the columns with each other, or of the rows: the lower triangle."""
    found: Floats64 = ssyrk(1.0, features.T, trans=of_rows, lower=1).astype(np.float64)
    return found

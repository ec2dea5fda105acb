"""Linear discriminant analysis with a shrunken covariance: the optimizer `lda`.

Classes share one covariance, that of the features within classes, which is shrunk towards a
multiple of the identity. The amount is the estimate of Ledoit and Wolf (A well-conditioned
estimator for large-dimensional covariance matrices, 2004), so there is no hyperparameter to choose.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dsyrk

from .head import Head
from .least_squares import ridge

if TYPE_CHECKING:
    from .closed_forms import Rows

Floats64 = npt.NDArray[np.float64]

AT_ONCE = 2**22  # numbers converted to float64 at a time
LEAST = 1e-3  # shrinkage, so that the covariance can be inverted


def discriminants(rows: "Rows") -> Head:
    """Return the head whose logits are the logarithms of the classes' densities times priors.

    The views of an example resemble each other, so the estimate of the shrinkage counts them as one
    observation. The priors are the weights of the classes' rows.
    """
    labels, classes = rows.labels[:, 0], rows.outputs
    count, dimension = rows.features.shape
    weights = rows.importance[:, 0].astype(np.float64)
    weights /= weights.sum()
    examples = np.arange(count) if rows.examples is None else rows.examples
    of_examples = np.bincount(examples, weights)
    priors = np.bincount(labels, weights, classes)

    means, spread = np.zeros((classes, dimension)), 0.0
    for some, features in _chunks(rows):
        of_classes = (labels[some] == np.arange(classes)[:, None]) * weights[some]
        means += of_classes @ features
    means /= priors[:, None]
    dual = count < dimension  # then the products of rows are the smaller matrix
    within = np.zeros((count if dual else 0, dimension))
    products = np.zeros((dimension, dimension), order="F")
    for some, features in _chunks(rows):
        centred = features - means[labels[some]]
        lengths = np.square(np.square(centred).sum(axis=1))
        spread += float((weights * of_examples[examples])[some] @ lengths)
        centred *= np.sqrt(weights[some])[:, None]
        if dual:
            within[some] = centred
        else:
            products = dsyrk(1.0, centred.T, beta=1.0, c=products, overwrite_c=True, lower=1)
    if dual:
        products = within @ within.T

    level = float(np.trace(products)) / dimension
    squares = 2 * float(np.square(np.tril(products, -1)).sum())
    squares += float(np.square(np.diag(products)).sum())
    far = squares - dimension * level**2
    if level <= 0 or far <= 0:  # no row differs from its class's mean
        weight = means
    else:
        noise = spread - float(np.square(of_examples).sum()) * squares
        shrinkage = min(max(noise / far, LEAST), 1.0)
        penalty = shrinkage * level
        kept = (1 - shrinkage) * products
        if dual:  # Woodbury's identity
            inner = ridge(kept, penalty, within @ means.T)
            weight = (means - (1 - shrinkage) * inner.T @ within) / penalty
        else:
            weight = ridge(kept, penalty, means.T).T
    bias = np.log(priors) - 0.5 * (weight * means).sum(axis=1)
    return Head(weight.astype(np.float32), bias.astype(np.float32))


def _chunks(rows: "Rows") -> Iterator[tuple[slice, Floats64]]:
    count, dimension = rows.features.shape
    size = max(1, AT_ONCE // dimension)
    for start in range(0, count, size):
        some = slice(start, min(start + size, count))
        yield some, rows.features[some].astype(np.float64)

"""TF-IDF: counts of terms, weighed by how rare a term is, as vectors of length 1.

Spärck Jones (1972); the smoothed form of scikit-learn's `TfidfTransformer`, to whose result tests
compare it. The weights are learned from training rows, so they belong to the head.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def fitted(counts: Floats) -> Floats:
    """The weight of each term, [d]: log((1 + rows) / (1 + rows that have it)) + 1.

    Args:
        counts: [n, d] of the training rows, or powers of them.
    """
    rows = len(counts)
    have = np.count_nonzero(counts, axis=0)
    weights: Floats = (np.log((1 + rows) / (1 + have)) + 1).astype(np.float32)
    return weights


def weighed(counts: Floats, idf: Floats) -> Floats:
    """The counts [n, d] times the weights, each row of length 1; one without a term stays 0."""
    products = counts * idf
    lengths = np.sqrt(np.einsum("nd,nd->n", products, products))[:, None]
    rows: Floats = products / np.maximum(lengths, np.finfo(np.float32).tiny)
    return rows

"""TF-IDF: term counts, weighted by how rare each term is and scaled to length 1.

Spärck Jones (1972), in the smoothed form of scikit-learn's `TfidfTransformer`; tests compare the
results. The weights are learned from training rows, so they belong to the head.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def fitted(counts: Floats) -> Floats:
    """Return the weight of each term, [d]: log((1 + rows) / (1 + rows with the term)) + 1.

    Args:
        counts: the term counts of the training rows, [n, d], or powers of them.
    """
    rows = len(counts)
    have = np.count_nonzero(counts, axis=0)
    weights: Floats = (np.log((1 + rows) / (1 + have)) + 1).astype(np.float32)
    return weights


def weighed(counts: Floats, idf: Floats) -> Floats:
    """Multiply counts [n, d] by the weights and scale rows to length 1; empty rows stay 0."""
    products = counts * idf
    lengths = np.sqrt(np.einsum("nd,nd->n", products, products))[:, None]
    rows: Floats = products / np.maximum(lengths, np.finfo(np.float32).tiny)
    return rows

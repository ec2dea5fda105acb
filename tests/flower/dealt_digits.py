"""Examples of sites, of scikit-learn's handwritten digits."""

import numpy as np
from sklearn.datasets import load_digits

from federated.examples import Examples

MADE_BY = {
    "backbone": "toy", "fingerprint": "abc", "precision": "float32", "power": "0.5",
    "dimension": "64",
}  # fmt: skip


def digits() -> Examples:
    """400 for training, 200 for validation."""
    found = load_digits()
    seen, labels = found.data[:600].astype(np.float32), found.target[:600].astype(np.int64)
    names = [str(digit) for digit in range(10)]
    return Examples(seen[:400], labels[:400], seen[400:], labels[400:], names, MADE_BY)

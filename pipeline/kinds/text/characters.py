"""Character n-grams of the words of a text, each counted in the column that its hash gives.

With the hashing trick (Weinberger et al., ICML 2009), nothing is fitted, so the features of a text
depend on no other text. The sign of an n-gram comes from its hash too, so that n-grams that share a
column cancel on average. The n-grams are those of scikit-learn's analyzer `char_wb`.
"""

import numpy as np
from numpy.typing import NDArray

LENGTHS = (2, 3, 4, 5)  # characters of an n-gram
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd, so that different characters stay different
MIX = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)  # of MurmurHash3
HALF, TOP = np.uint64(32), np.uint64(63)


def hashed(text: str, width: int) -> NDArray[np.float32]:
    """Return the signed square root of the count in each column, scaled to length 1, [width]."""
    words = [f" {word} " for word in text.lower().split()]
    joined = "".join(words).encode("utf-32-le", "surrogatepass")
    points = np.frombuffer(joined, np.uint32).astype(np.uint64)
    word = np.repeat(np.arange(len(words)), [len(one) for one in words])
    total = np.zeros(width)
    for length in LENGTHS:
        starts = np.flatnonzero(word[: 1 - length] == word[length - 1 :])  # inside a word
        hashes = np.full(len(starts), length, np.uint64)
        for place in range(length):
            hashes = _mixed(hashes ^ points[starts + place] * SPREAD)
        columns = (hashes % np.uint64(width)).astype(np.int64)
        total += np.bincount(columns, 1.0 - 2.0 * (hashes >> TOP), width)
    roots = np.sign(total) * np.sqrt(np.abs(total))
    scaled: NDArray[np.float32] = (roots / max(np.linalg.norm(roots), 1e-9)).astype(np.float32)
    return scaled


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for factor in MIX:
        hashes = (hashes ^ (hashes >> HALF)) * factor
    return hashes ^ (hashes >> HALF)

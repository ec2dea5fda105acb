"""Texts to counts of their terms: words, each in the column that its hash names.

The hashing trick (Weinberger et al., ICML 2009): no vocabulary has to be learned or kept, so a
text's counts are its own. Two words in one column are one term. Pairs of words beside the words
were worse on validation titles of `benchmarks/text.py`, from 50 to 1,400 of them.
"""

import re
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

TERM = re.compile(r"\b\w\w+\b")  # as scikit-learn's TfidfVectorizer takes words


def counts(text: str, width: int) -> NDArray[np.float32]:
    """How often the terms of each column stand in the text, [width]."""
    columns = [_column(term, width) for term in TERM.findall(text.lower())]
    return np.bincount(columns, minlength=width).astype(np.float32)


@lru_cache(maxsize=2**17)
def _column(term: str, width: int) -> int:
    """The same in every process, which Python's own hash is not."""
    return int.from_bytes(blake2b(term.encode(), digest_size=8).digest(), "big") % width

"""Term counts of texts: each word counts in the column given by its hash.

With the hashing trick (Weinberger et al., ICML 2009), no vocabulary has to be learned or stored, so
the counts of a text depend on no other text. Two words with the same column count as one term.
Adding bigrams was worse on the validation titles of `benchmarks/text.py`, with 50 to 1,400 titles.
"""

import re
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from .. import Characters, Terms
from .characters import hashed

TERM = re.compile(r"\b\w\w+\b")  # as in scikit-learn's TfidfVectorizer


def of(text: str, wanted: Terms) -> NDArray[np.float32]:
    """Count the text's terms, or the n-grams of its characters, [width]."""
    if isinstance(wanted, Characters):
        return hashed(text, wanted.width)
    return counts(text, wanted.width)


def counts(text: str, width: int) -> NDArray[np.float32]:
    """Count the terms of each column in the text, [width]."""
    columns = [_column(term, width) for term in TERM.findall(text.lower())]
    return np.bincount(columns, minlength=width).astype(np.float32)


@lru_cache(maxsize=2**17)
def _column(term: str, width: int) -> int:
    """Hash a term to a column, which is the same in every process, unlike Python's `hash`."""
    return int.from_bytes(blake2b(term.encode(), digest_size=8).digest(), "big") % width

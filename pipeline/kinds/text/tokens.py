"""Convert texts to token ids."""

from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...core import packages
from .. import Tokens

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


def encoded(text: str, tokens: Tokens) -> "Encoding":
    """Tokenize a text, and truncate it to the maximum length of the encoder."""
    return _tokenizer(tokens.tokenizer, tokens.longest).encode(text)


def was_cut(encoding: "Encoding") -> bool:
    """Return whether the text was truncated."""
    return bool(encoding.overflowing)


def numbers(encoding: "Encoding") -> NDArray[np.int64]:
    """Return the token ids, [length].

    There is no padding, so the bits of a text's features do not depend on other texts in the batch.
    Texts of the same length are batched.
    """
    return np.array(encoding.ids, dtype=np.int64)


def seen(text: str, tokens: Tokens) -> int:
    """Return how many characters of the text are left after truncation."""
    encoding = encoded(text, tokens)
    return max((end for _, end in encoding.offsets), default=0)


@lru_cache(maxsize=4)
def _tokenizer(described: str, longest: int) -> "Tokenizer":
    """Load a thread-safe tokenizer, but ignore its file's settings for truncation and padding."""
    if find_spec("tokenizers") is None:
        packages.need("text", "a backbone that reads texts in tokens")
    from tokenizers import Tokenizer

    tokenizer: Tokenizer = Tokenizer.from_str(described)
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    return tokenizer

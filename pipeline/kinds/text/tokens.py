"""Texts to the numbers of an encoder's tokens."""

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
    """The text in tokens, cut off after the most that the encoder takes."""
    return _tokenizer(tokens.tokenizer, tokens.longest).encode(text)


def was_cut(encoding: "Encoding") -> bool:
    """Whether the text had more tokens than the encoder takes."""
    return bool(encoding.overflowing)


def numbers(encoding: "Encoding") -> NDArray[np.int64]:
    """The tokens' numbers, [length].

    The length is the text's own, never that of others beside it, and so are the bits of its
    features. Texts of one length are run together.
    """
    return np.array(encoding.ids, dtype=np.int64)


def seen(text: str, tokens: Tokens) -> int:
    """How many characters of the text the encoder sees; it cuts off the rest."""
    encoding = encoded(text, tokens)
    return max((end for _, end in encoding.offsets), default=0)


@lru_cache(maxsize=4)
def _tokenizer(described: str, longest: int) -> "Tokenizer":
    """Any number of threads may use it. What the file says of cutting and filling is left out."""
    if find_spec("tokenizers") is None:
        packages.need("text", "a backbone that reads texts in tokens")
    from tokenizers import Tokenizer

    tokenizer: Tokenizer = Tokenizer.from_str(described)
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    return tokenizer

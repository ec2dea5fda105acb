"""Texts to the numbers of an encoder's tokens."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...core.errors import MissingSetError
from .. import Tokens

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


def encoded(text: str, tokens: Tokens) -> "Encoding":
    """The text in tokens, cut off after the most that the encoder takes."""
    return _tokenizer(tokens.tokenizer, tokens.longest).encode(text)


def was_cut(encoding: "Encoding") -> bool:
    """Whether the text had more tokens than the encoder takes."""
    return bool(encoding.overflowing)


def padded(encoding: "Encoding", pad: int) -> NDArray[np.int64]:
    """The tokens, filled up to the length of their bucket.

    The bucket depends on the text's own length alone, and so do the bits of its features.
    """
    ids = encoding.ids
    filled = np.full(bucket(len(ids)), pad, dtype=np.int64)
    filled[: len(ids)] = ids
    return filled


def bucket(length: int) -> int:
    """The length rounded up to four binary digits: 1 to 16, 18, … 32, 36, … 64, 72, … 256.

    Texts of one bucket are run together, and at most an eighth of it is padding.
    """
    step = 1 << max(0, (length - 1).bit_length() - 4)
    return -(-length // step) * step


def seen(text: str, tokens: Tokens) -> int:
    """How many characters of the text the encoder sees; it cuts off the rest."""
    encoding = encoded(text, tokens)
    return max((end for _, end in encoding.offsets), default=0)


@lru_cache(maxsize=4)
def _tokenizer(described: str, longest: int) -> "Tokenizer":
    """Any number of threads may use it. What the file says of cutting and filling is left out."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingSetError(
            "a backbone that reads tokens needs the package tokenizers, which is not installed:"
            " run `make setup EXTRAS=text`, or pip install tokenizers"
        ) from None
    tokenizer: Tokenizer = Tokenizer.from_str(described)
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    return tokenizer

"""Texts to what a backbone takes."""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import Asked, Input, Inputs, Terms
from . import terms, tokens
from .reading import text_of


def read(data: bytes, wanted: Input) -> NDArray[Any]:
    """Tokens, int64 [length], or counts of terms, float32 [width]."""
    text = text_of(data)
    if isinstance(wanted, Terms):
        return terms.counts(text, wanted.width)
    return tokens.numbers(tokens.encoded(text, wanted))


class Maker:
    """Makes inputs of texts, and counts those that the encoder does not see whole."""

    made_by = ""

    def __init__(self, wanted: Input) -> None:
        """Make what `wanted` describes."""
        self._wanted = wanted
        self._turn = threading.Lock()
        self._made = self._cut = 0

    def __call__(self, asked: Asked) -> Inputs:
        """The inputs: counts [n, width], or a list of tokens [length], each of its own length."""
        texts = [text_of(data) for data, views in asked for _ in views]
        if isinstance(self._wanted, Terms):
            return np.stack([terms.counts(text, self._wanted.width) for text in texts])
        encodings = [tokens.encoded(text, self._wanted) for text in texts]
        with self._turn:
            self._made += len(texts)
            self._cut += sum(map(tokens.was_cut, encodings))
        return [tokens.numbers(encoding) for encoding in encodings]

    def notice(self) -> str:
        """How many texts were cut off; empty if none was."""
        if not self._cut:
            return ""
        most = self._wanted.longest
        return (
            f"{self._cut:,} of {self._made:,} texts have more than {most} tokens, the most that the"
            " backbone takes; what is beyond is cut off"
        )

"""Convert texts to the input of a backbone."""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import Asked, Input, Inputs, Terms
from . import terms, tokens
from .reading import text_of


def read(data: bytes, wanted: Input) -> NDArray[Any]:
    """Read a text as tokens, int64 [length], or term counts, float32 [width]."""
    text = text_of(data)
    if isinstance(wanted, Terms):
        return terms.of(text, wanted)
    return tokens.numbers(tokens.encoded(text, wanted))


class Maker:
    """Makes inputs from texts, and counts truncated texts."""

    made_by = ""

    def __init__(self, wanted: Input) -> None:
        """Make inputs of the type `wanted`."""
        self._wanted = wanted
        self._turn = threading.Lock()
        self._made = self._cut = 0

    def __call__(self, asked: Asked) -> Inputs:
        """Return counts [n, width], or a list of tokens [length] of different lengths."""
        texts = [text_of(data) for data, views in asked for _ in views]
        if isinstance(self._wanted, Terms):
            return np.stack([terms.of(text, self._wanted) for text in texts])
        encodings = [tokens.encoded(text, self._wanted) for text in texts]
        with self._turn:
            self._made += len(texts)
            self._cut += sum(map(tokens.was_cut, encodings))
        return [tokens.numbers(encoding) for encoding in encodings]

    def notice(self) -> str:
        """Return how many texts were truncated; empty if none were."""
        if not self._cut:
            return ""
        most = self._wanted.longest
        return (
            f"{self._cut:,} of {self._made:,} computed texts were truncated to {most} tokens, the"
            " maximum of the backbone"
        )

"""Copies: whether two texts say the same, but for spelling, spaces and a little that differs."""

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path

from ...examples.files import read
from .. import Example
from .reading import text_of

# Least fraction of the shorter text's runs of words that the longer one has too: a quotation, an
# article with a paragraph more. Broder (1997) calls the fraction containment.
LEAST_SHARED = 0.8
RUN = 3  # words of such a run
LEAST_RUNS = 8  # of the shorter text; with fewer, other texts may share most
# Shorter texts are compared word for word: least likeness of two words by the characters in their
# longest common blocks, as of a plural or a slip of the pen, and of the texts in whole. "Won" is no
# spelling of "lost".
LEAST_OF_WORDS = 0.7
LEAST_ALIKE = 0.9
LEAST_CHARACTERS = 15
HELD = 4096  # texts that are held
NUMBER = re.compile(r"\d+")


def copies(pairs: Sequence[tuple[Example, Example]]) -> list[bool]:
    """Read the texts; whether those of each pair say the same."""

    @lru_cache(HELD)
    def opened(example: Example) -> list[str]:
        return words(text_of(read(Path(example[0]), example[1])))

    return [same(opened(one), opened(other)) for one, other in pairs]


def words(text: str) -> list[str]:
    """Its words without case, punctuation and forms of a letter that look alike."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(c if c.isalnum() or unicodedata.combining(c) else " " for c in plain)
    return kept.split()


def same(one: list[str], other: list[str]) -> bool:
    """Whether two texts, as `words` gives them, say the same."""
    if one == other:
        return bool(one)  # of texts without a word nothing is known
    short, long = sorted((one, other), key=lambda its: (len(its), its))
    runs = _runs(short)
    if len(runs) >= LEAST_RUNS:
        return len(runs & _runs(long)) >= LEAST_SHARED * len(runs)
    if len(one) != len(other) or len(" ".join(one)) < LEAST_CHARACTERS:
        return False
    differ = [(word, its) for word, its in zip(one, other, strict=True) if word != its]
    if any(NUMBER.search(word + its) for word, its in differ):  # the next result, the next year
        return False
    return _alike(" ".join(one), " ".join(other)) >= LEAST_ALIKE and all(
        _alike(word, its) >= LEAST_OF_WORDS for word, its in differ
    )


def _alike(one: str, other: str) -> float:
    # The order matters to difflib, and must not to a pair.
    first, second = sorted((one, other))
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def _runs(of: list[str]) -> set[tuple[str, ...]]:
    return set(zip(*(of[start:] for start in range(RUN)), strict=False))

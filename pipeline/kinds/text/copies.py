"""Copies: whether two texts are the same up to spelling, spaces and small edits."""

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path

from ...examples.files import read
from .. import Example
from .reading import text_of

# Minimum fraction of the shorter text's word n-grams that are also in the longer text, which may
# quote it or add a paragraph. Broder (1997) calls the fraction containment.
LEAST_SHARED = 0.8
RUN = 3  # words per n-gram
LEAST_RUNS = 8  # n-grams of the shorter text; with fewer, unrelated texts may share most
# Shorter texts are compared word by word. The minimum similarity (`difflib` ratio) of two words
# allows plurals and typos; the second minimum is for the whole texts. "Won" is not a spelling of
# "lost".
LEAST_OF_WORDS = 0.7
LEAST_ALIKE = 0.9
LEAST_CHARACTERS = 15
HELD = 4096  # texts in the cache
NUMBER = re.compile(r"\d+")


def copies(pairs: Sequence[tuple[Example, Example]]) -> list[bool]:
    """Read the texts, and return for each pair whether its texts are copies."""

    @lru_cache(HELD)
    def opened(example: Example) -> list[str]:
        return words(text_of(read(Path(example[0]), example[1])))

    return [same(opened(one), opened(other)) for one, other in pairs]


def words(text: str) -> list[str]:
    """Split a text into words, without case, punctuation and compatibility characters (NFKC)."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(c if c.isalnum() or unicodedata.combining(c) else " " for c in plain)
    return kept.split()


def same(one: list[str], other: list[str]) -> bool:
    """Return whether two texts, as returned by `words`, are copies."""
    if one == other:
        return bool(one)  # texts without words are not copies
    short, long = sorted((one, other), key=lambda its: (len(its), its))
    runs = _runs(short)
    if len(runs) >= LEAST_RUNS:
        return len(runs & _runs(long)) >= LEAST_SHARED * len(runs)
    if len(one) != len(other) or len(" ".join(one)) < LEAST_CHARACTERS:
        return False
    differ = [(word, its) for word, its in zip(one, other, strict=True) if word != its]
    if any(NUMBER.search(word + its) for word, its in differ):  # another score, another year
        return False
    return _alike(" ".join(one), " ".join(other)) >= LEAST_ALIKE and all(
        _alike(word, its) >= LEAST_OF_WORDS for word, its in differ
    )


def _alike(one: str, other: str) -> float:
    # The result of difflib depends on the order; the verdict on a pair must not.
    first, second = sorted((one, other))
    return SequenceMatcher(None, first, second, autojunk=False).ratio()


def _runs(of: list[str]) -> set[tuple[str, ...]]:
    return set(zip(*(of[start:] for start in range(RUN)), strict=False))

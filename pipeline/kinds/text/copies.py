"""Copies: whether two texts say the same, but for spelling, spaces and a little that differs."""

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path

from ...core.files import read
from .. import Example
from .reading import text_of

# Least share of the shorter text's runs of words that the longer one has too: a quotation, an
# article with a paragraph more. Broder (1997) calls the share containment.
LEAST_SHARED = 0.8
RUN = 3  # words of such a run
LEAST_RUNS = 8  # of the shorter text; of fewer, other texts may share most
# Least likeness of texts that are shorter, by the characters in their longest common blocks: a
# slip of the pen, a word in the plural. Titles of other news were seen at 0.9.
LEAST_ALIKE = 0.92
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
    short, long = sorted((one, other), key=len)
    runs = _runs(short)
    if len(runs) >= LEAST_RUNS:
        return len(runs & _runs(long)) >= LEAST_SHARED * len(runs)
    first, second = " ".join(short), " ".join(long)
    if min(len(first), len(second)) < LEAST_CHARACTERS:
        return False
    if NUMBER.findall(first) != NUMBER.findall(second):  # the next result, the next year
        return False
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    return matcher.quick_ratio() >= LEAST_ALIKE and matcher.ratio() >= LEAST_ALIKE


def _runs(of: list[str]) -> set[tuple[str, ...]]:
    return set(zip(*(of[start:] for start in range(RUN)), strict=False))

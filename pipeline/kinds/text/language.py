"""The language of texts, and whether a backbone reads it."""

from collections import Counter
from collections.abc import Sequence

from .reading import text_of

LOOKED_AT = 200  # texts
MOST_CHARACTERS = 1000  # of a text
# What py3langid takes some short English texts for: Nigerian Pidgin, Scots, and no language at all.
LIKE = {"en": {"pcm", "sco", "zxx"}}


def language(data: bytes) -> str:
    """Return the code (ISO 639) of the language that a text seems to be in."""
    from py3langid import classify  # reads its model at the first call, which takes half a second

    code, _ = classify(text_of(data)[:MOST_CHARACTERS])
    return str(code)


def unread(votes: Counter[str], reads: Sequence[str]) -> str:
    """Return a message if the backbone does not read the languages of most texts, else "".

    Args:
        votes: how many texts seem to be in each language.
        reads: codes of the languages that the backbone was trained on.
    """
    known = {*reads}.union(*(LIKE.get(code, set()) for code in reads))
    others = Counter({code: count for code, count in votes.items() if code not in known})
    if 2 * others.total() <= votes.total():
        return ""
    ((most, _),) = others.most_common(1)
    return (
        f"{others.total()} of {votes.total()} texts seem to be in a language that the backbone was"
        f" not trained on, most often {most!r}; it was trained on {', '.join(reads)}, so use"
        " an encoder for that language (docs/text.md#languages)"
    )

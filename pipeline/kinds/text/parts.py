"""Which words of a text speak for a class: what is lost if some are left out."""

from html import escape

import numpy as np
from numpy.typing import NDArray

from .. import Input, Shown, Tokens
from . import terms, tokens
from .reading import WORD, text_of

MOST_PARTS = 64  # of a longer text, so many words stand in a part that it has no more
MOST_SHOWN = 400  # characters that a page shows of a text, and `show` of any
MARKED = "242 169 0"  # the colour behind a word that speaks for the class
LEAST_MARKED = 0.05  # of the most that a part counts


def hidden(data: bytes, wanted: Input) -> list[NDArray[np.int64]] | list[NDArray[np.float32]]:
    """Inputs of the text without one part after another, of what the encoder sees of it."""
    text = text_of(data)
    places = _parts(text, wanted)
    rest = [text[:start] + text[end:] for start, end in places]
    if isinstance(wanted, Tokens):
        return [tokens.numbers(tokens.encoded(one, wanted)) for one in rest]
    return [terms.counts(one, wanted.width) for one in rest]


def marked(data: bytes, wanted: Input, weights: NDArray[np.float32], side: int | None) -> Shown:
    """The text as a piece of HTML whose words are the more coloured the more they count.

    With a `side` it is cut to a sensible length. Every character of the text is escaped.
    """
    text = text_of(data)
    shown = text if side is None else shortened(text)
    pieces, at = [], 0
    for (start, end), weight in zip(_parts(text, wanted), weights.tolist(), strict=True):
        if start >= len(shown.rstrip("…")):
            break
        end = min(end, len(shown))
        words = escape(shown[start:end])
        if weight >= LEAST_MARKED:
            colour = f"rgb({MARKED} / {weight:.2f})"
            words = f'<mark style="background: {colour}; color: inherit">{words}</mark>'
        pieces += [escape(shown[at:start]), words]
        at = end
    pieces.append(escape(shown[at:]))
    return Shown("text/html", f"<p>{''.join(pieces)}</p>".encode())


def shortened(text: str) -> str:
    """At most `MOST_SHOWN` characters, cut between two words."""
    text = text.rstrip()
    if len(text) <= MOST_SHOWN:
        return text
    kept = text[: MOST_SHOWN - 1]
    ends = [found.start() for found in WORD.finditer(kept)]
    return (kept[: ends[-1]].rstrip() if len(ends) > 1 else kept) + "…"


def _parts(text: str, wanted: Input) -> list[tuple[int, int]]:
    """Where parts of the text begin and end: words, or runs of them in a long text."""
    upto = tokens.seen(text, wanted) if isinstance(wanted, Tokens) else len(text)
    words = [found.span() for found in WORD.finditer(text) if found.start() < upto]
    size = -(-len(words) // MOST_PARTS)
    starts = range(0, len(words), max(size, 1))
    return [(words[at][0], words[min(at + size, len(words)) - 1][1]) for at in starts]

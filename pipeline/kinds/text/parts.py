"""Words of a text that are evidence for a class, found by leaving words out."""

from html import escape

import numpy as np
from numpy.typing import NDArray

from .. import Input, Shown, Tokens
from . import terms, tokens
from .reading import WORD, text_of

MOST_PARTS = 64  # in longer texts, a part has several words
MOST_SHOWN = 400  # characters of a text that a page and `show` display
MARKED = "242 169 0"  # the background of words that are evidence for the class
LEAST_MARKED = 0.05  # minimum weight of a marked word; the maximum is 1
DARK_TEXT = 0.6  # weight from which dark letters are easier to read on any page than light ones


def hidden(data: bytes, wanted: Input) -> list[NDArray[np.int64]] | list[NDArray[np.float32]]:
    """Return inputs made from the text, each without one of the parts that the encoder sees."""
    text = text_of(data)
    places = _parts(text, wanted)
    rest = [text[:start] + text[end:] for start, end in places]
    if isinstance(wanted, Tokens):
        return [tokens.numbers(tokens.encoded(one, wanted)) for one in rest]
    return [terms.of(one, wanted) for one in rest]


def marked(data: bytes, wanted: Input, weights: NDArray[np.float32], side: int | None) -> Shown:
    """Show the text as HTML; a stronger colour of a word means more evidence.

    With a `side`, the text is truncated for a page. All characters of the text are escaped.
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
            letters = "inherit" if weight < DARK_TEXT else "#111"
            words = f'<mark style="background: {colour}; color: {letters}">{words}</mark>'
        pieces += [escape(shown[at:start]), words]
        at = end
    pieces.append(escape(shown[at:]))
    return Shown("text/html", f"<p>{''.join(pieces)}</p>".encode())


def shortened(text: str) -> str:
    """Truncate a text to `MOST_SHOWN` characters between two words."""
    text = text.rstrip()
    if len(text) <= MOST_SHOWN:
        return text
    kept = text[: MOST_SHOWN - 1]
    ends = [found.start() for found in WORD.finditer(kept)]
    return (kept[: ends[-1]].rstrip() if len(ends) > 1 else kept) + "…"


def _parts(text: str, wanted: Input) -> list[tuple[int, int]]:
    """Return where parts of the text begin and end: words, or runs of words in long texts."""
    upto = tokens.seen(text, wanted) if isinstance(wanted, Tokens) else len(text)
    words = [found.span() for found in WORD.finditer(text) if found.start() < upto]
    size = -(-len(words) // MOST_PARTS)
    starts = range(0, len(words), max(size, 1))
    return [(words[at][0], words[min(at + size, len(words)) - 1][1]) for at in starts]

"""Names from data, made safe to print on a terminal.

The name of a file, of a class or of a site may contain control characters: `\\x1b]0;…\\x07` sets
the title of a terminal, and `\\r` or a change of text direction hides the text before it.
"""

import re
from typing import IO, Any

# Control characters (Unicode's Cc), marks that change the direction of text (UAX 9), and bytes of
# a file name that are not valid text, which no terminal can show.
_OFFENDING = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
OF_NAMES = re.compile(rf"[\t\n{_OFFENDING}]")
OF_LINES = re.compile(rf"[{_OFFENDING}]")


def printable(text: str) -> str:
    """Return the text with control characters escaped, as in `\\x1b` or `\\u202e`."""
    return OF_NAMES.sub(_spelt, text)


def printable_lines(text: str) -> str:
    """Return the text with control characters escaped, except line ends and tabs."""
    return OF_LINES.sub(_spelt, text)


def _spelt(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class Printable:
    """A text stream that escapes control characters in all that is written."""

    def __init__(self, stream: IO[str]) -> None:
        """Wrap `stream`, which handles everything else unchanged."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text` as any text stream does."""
        self._stream.write(printable_lines(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

"""Names from data, as a terminal may have them.

The name of a file, of a class or of a site may hold control characters: a terminal that is handed
`\\x1b]0;…\\x07` takes another title, and `\\r` or a change of direction hides what stands before.
"""

import re
from typing import IO, Any

# Control characters (Unicode's Cc), marks that turn the direction of writing (UAX 9), and bytes of
# a file name that are no text, which no terminal can show.
_OFFENDING = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
OF_NAMES = re.compile(rf"[\t\n{_OFFENDING}]")
OF_LINES = re.compile(rf"[{_OFFENDING}]")


def printable(text: str) -> str:
    """The text with such characters spelt out, as in `\\x1b` or `\\u202e`; else as it is."""
    return OF_NAMES.sub(_spelt, text)


def printable_lines(text: str) -> str:
    """The same of a text of several lines, whose ends and tabs stay."""
    return OF_LINES.sub(_spelt, text)


def _spelt(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class Printable:
    """A text stream whose lines are printable, whatever names they hold."""

    def __init__(self, stream: IO[str]) -> None:
        """Write to `stream`, which does everything else as before."""
        self._stream = stream

    def write(self, text: str) -> int:
        """As of any text stream."""
        self._stream.write(printable_lines(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

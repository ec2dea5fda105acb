"""Bytes to a text, or the reason why they are none."""

import re
import unicodedata

from ...core.errors import RefusedError

MARK = "\ufeff"  # some editors begin a file in UTF-8 with it; it is not part of the text
OTHER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
WORD = re.compile(r"\S+")
UNSEEN = ("Z", "Cc", "Cf")  # categories of Unicode: separators, control and format characters


def text_of(data: bytes) -> str:
    """The text in Unicode's form NFC, in which an é is one character however it was typed.

    A byte order mark at the beginning is left out.

    Raises:
        RefusedError: it is not UTF-8, holds a zero byte or nothing that can be seen.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        other = OTHER_MARKS.get(data[:2])
        what = f"it begins as {other} does" if other else f"byte {error.start} is {_wrong(error)}"
        raise RefusedError(f"not UTF-8: {what}; save it as UTF-8") from None
    if (at := data.find(b"\0")) >= 0:
        raise RefusedError(f"no text: byte {at} is zero")
    text = unicodedata.normalize("NFC", text.removeprefix(MARK))
    if all(unicodedata.category(character).startswith(UNSEEN) for character in text):
        raise RefusedError("empty, or nothing but spaces" if text else "empty")
    return text


def inspect(data: bytes) -> tuple[int, int]:
    """How many characters and words the text has; words are what stands between spaces."""
    text = text_of(data)
    return len(text), sum(1 for _ in WORD.finditer(text))


def _wrong(error: UnicodeDecodeError) -> str:
    return f"0x{error.object[error.start]:02X}, which cannot stand there"

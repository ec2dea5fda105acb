"""Decode texts, or refuse them with a reason."""

import re
import unicodedata

from ...core.errors import RefusedError

MARK = "\ufeff"  # the byte order mark, with which some editors begin UTF-8 files
OTHER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
WORD = re.compile(r"\S+")
UNSEEN = ("Z", "Cc", "Cf")  # categories of Unicode: separators, control and format characters


def text_of(data: bytes) -> str:
    """Decode a text and normalise it to NFC, in which an é is always one character.

    A byte order mark at the beginning is removed.

    Raises:
        RefusedError: the text is not UTF-8, has a zero byte or no visible character.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        other = OTHER_MARKS.get(data[:2])
        what = f"it begins like {other}" if other else f"byte {error.start} is {_wrong(error)}"
        raise RefusedError(f"not UTF-8: {what}; save it as UTF-8") from None
    if (at := data.find(b"\0")) >= 0:
        raise RefusedError(f"no text: byte {at} is zero")
    text = unicodedata.normalize("NFC", text.removeprefix(MARK))
    if all(unicodedata.category(character).startswith(UNSEEN) for character in text):
        raise RefusedError("empty, or nothing but spaces" if text else "empty")
    return text


def inspect(data: bytes) -> tuple[int, int, int]:
    """Count the characters, the words and the different characters of a text.

    Whitespace separates words, and is not counted among the different characters. Upper and lower
    case count as the same character.
    """
    text = text_of(data)
    distinct = sum(not character.isspace() for character in set(text.casefold()))
    return len(text), sum(1 for _ in WORD.finditer(text)), distinct


def _wrong(error: UnicodeDecodeError) -> str:
    return f"0x{error.object[error.start]:02X}, which is not valid there"

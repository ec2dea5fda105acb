"""The results of a source: files with label and split, or the reason why one is refused.

Every refused file is reported.
"""

import os
import stat
import unicodedata
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..tables.manifest import SPLITS, UNLABELLED

SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "__macosx", "@eadir"}  # Windows, macOS, Synology


class Found(NamedTuple):
    """A file that may be an example; `split` and `group` are empty if the source has none.

    `slices` has its value in each of the listing's `columns`, `cells` the texts in the columns of
    `ingest.targets`, and `targets` the numbers parsed from them. `identity` is 16 bytes that
    identify an object of a bucket and its version; for a file it is empty.
    """

    path: Path
    label: str
    split: str = ""
    group: str = ""
    slices: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    targets: tuple[float, ...] = ()
    identity: bytes = b""


class Refused(NamedTuple):
    """A file that is refused, and why."""

    path: Path
    reason: str


class Listing(NamedTuple):
    """All results of a source; `columns` are those by which examples are sliced."""

    found: list[Found]
    refused: list[Refused]
    columns: tuple[str, ...] = ()


def walk(root: Path) -> tuple[list[Path], list[Path], list[Refused]]:
    """Return sorted files and links below `root`, visible folders, and unreadable folders."""
    paths: list[Path] = []
    visible: list[Path] = []
    closed: list[Refused] = []

    def refuse(error: OSError) -> None:
        closed.append(Refused(Path(error.filename), f"folder cannot be listed ({error.strerror})"))

    for directory, folders, files in os.walk(root, onerror=refuse):
        here = Path(directory)
        paths += [here / name for name in files]
        paths += [here / name for name in folders if (here / name).is_symlink()]
        visible += [here / name for name in folders if not is_hidden(name)]
    return sorted(paths, key=lambda path: path.parts), visible, closed  # same as paths, but faster


def why_not(path: Path, root: Path) -> str:
    """Return why a file below `root` cannot be an example; empty if it may be one."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "name is not valid UTF-8"
    if any(is_hidden(part) for part in path.parts[len(root.parts) :]):
        return "hidden or system file"
    try:
        mode = path.stat().st_mode
    except ValueError:
        return "name contains a zero byte"
    except OSError as error:
        # `Path.is_symlink` raises if a name is too long.
        if os.path.islink(path):  # noqa: PTH114
            return "link that leads nowhere"
        return f"cannot be read ({error.strerror})"
    if stat.S_ISDIR(mode):
        return "link to a folder" if path.is_symlink() else "a folder"
    return "" if stat.S_ISREG(mode) else "not a regular file"


def is_hidden(name: str) -> bool:
    """Return whether a file is hidden, or one that an operating system made for itself."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


@cache
def tidy(text: str) -> str:
    """Normalise a text to Unicode's composed form (NFC), with single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def why_no_split(split: str) -> str:
    """Return why a text is not a valid split for a source; empty if it is valid or no text."""
    if not split or split in (*SPLITS, UNLABELLED):
        return ""
    return f"split is {split!r}; it should be {', '.join(SPLITS)} or {UNLABELLED}"


@cache
def why_no_label(label: str) -> str:
    """Return why a text is not a valid label; empty if it is valid."""
    if not label:
        return "no label"
    if any(unicodedata.category(character) == "Cc" for character in label):
        return "label contains a control character"
    return ""

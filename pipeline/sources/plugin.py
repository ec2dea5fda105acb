"""Source `python:module.function`: the examples that the user's own function finds.

The function gets `ingest.path`, and returns or yields rows. A row is the path of a file and its
label, and optionally its split and its group, each None or empty if there is none. A file is in
`ingest.path`, which DVC tracks, or in `data/pictures`, where the function may create files.
"""

import os
from pathlib import Path
from typing import Any

from ..core import plugins
from ..core.errors import ParamsError
from ..core.paths import PICTURES
from ..examples.files import leads_out
from ..tables.manifest import UNLABELLED
from .found import Found, Listing, Refused, tidy, why_no_label, why_no_split, why_not


def plugin(name: str, root: Path) -> Listing:
    """Return the examples that the function `name` finds in `root`; each is accepted or refused.

    Raises:
        MissingSetError: the function needs packages that are not installed.
        ParamsError: there is no such function, it raises, or it does not return rows.
    """
    asked_by = f"ingest.source {name}"
    function = plugins.load(name, asked_by)
    with plugins.blamed(asked_by):
        rows = list(function(root))
    found: list[Found] = []
    refused: list[Refused] = []
    for number, row in enumerate(rows, 1):
        path, label, split, group = _parted(row, f"{asked_by}: row {number}")
        reason = _why_not(path, root) or why_no_split(split)
        if split != UNLABELLED:
            reason = reason or why_no_label(label)
        if reason:
            refused.append(Refused(path, reason))
        else:
            found.append(Found(path, label, split, group))
    return Listing(sorted(found), sorted(refused))


def _parted(row: Any, place: str) -> tuple[Path, str, str, str]:
    """Return path, label, split and group of a row."""
    if not isinstance(row, tuple | list) or not 2 <= len(row) <= 4:
        raise ParamsError(
            f"{place} is {row!r:.80}; it should be (path, label), (path, label, split) or"
            " (path, label, split, group)"
        )
    path, *texts = row
    if not isinstance(path, str | os.PathLike):
        raise ParamsError(f"{place} has the path {path!r:.80}; it should be a path")
    for name, text in zip(("label", "split", "group"), texts, strict=False):
        if not isinstance(text, str) and (text is not None or name == "label"):
            raise ParamsError(f"{place} has the {name} {text!r:.80}; it should be a string")
    label, split, group = (tidy(text or "") for text in (*texts, "", "")[:3])
    return Path(os.fspath(path)), label, split, group


def _why_not(path: Path, root: Path) -> str:
    """Return why the file of a row cannot be opened; empty if it can."""
    homes = [home for home in (root, PICTURES) if home in path.parents]
    if leads_out(path) or not homes:
        return f"path is not in {root} or {PICTURES}, as seen from the project's root"
    if reason := why_not(path, homes[0]):
        return reason
    if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(homes[0])):
        return f"path leaves the folder {homes[0]} through a link"
    return ""

"""Corrections of examples: the CSV files in `corrections/`, one for each person.

A row changes one field of one example, which its digest names:

| field | what the row does |
| --- | --- |
| `label` | the label `old` becomes `new`; if both are the same, the label is confirmed as right |
| `target:NAME` | the cell `old` of the column NAME, one of `ingest.targets`, becomes `new` |
| `group` | the group `old` becomes `new`; empty for no group |
| `exclude` | the example is left out; `new` is `yes` |

`who` and `why` are for people. Git tracks the files, so their rows are sorted and each person has
one: two people's files can be merged without a conflict.
"""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..core.errors import DataError
from . import cells
from .manifest import TARGET

COLUMNS = ("digest", "field", "old", "new", "who", "why")
LABEL, GROUP, EXCLUDE, YES = "label", "group", "exclude", "yes"
DIGEST = re.compile("[0-9a-f]{64}")
README = "README.md"


class Correction(NamedTuple):
    """A row of a file, and the place of the row."""

    digest: str
    field: str
    old: str
    new: str
    who: str = ""
    why: str = ""
    file: Path = Path()
    line: int = 0


def files_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files of corrections in a folder, and what else is there; both sorted.

    README.md and hidden files are neither.
    """
    if not folder.is_dir():
        return [], []
    visible = sorted(one for one in folder.iterdir() if not one.name.startswith("."))
    tables = [one for one in visible if one.suffix == ".csv" and one.is_file()]
    return tables, [one for one in visible if one not in tables and one.name != README]


def read_all(files: Iterable[Path]) -> list[Correction]:
    """Return the rows of all files.

    Raises:
        DataError: some files are not tables of corrections; the message names each of them.
    """
    found: list[Correction] = []
    wrong: list[str] = []
    for file in files:
        try:
            found += read(file)
        except DataError as error:
            wrong.append(str(error))
    if wrong:
        raise DataError("; ".join(wrong))
    return found


def read(file: Path) -> list[Correction]:
    """Return the rows of a file.

    Raises:
        DataError: it is not a table of corrections; the message says what is wrong, and where.
    """
    try:
        lines = io.StringIO(file.read_bytes().decode("utf-8-sig"), newline="")
        rows = csv.reader(lines, strict=True)
        header = next(rows, [])
        if sorted(header) != sorted(COLUMNS):
            has = f"it has {', '.join(header)[:80]}" if header else "it is empty"
            raise DataError(
                f"{file} is not a table of corrections: its columns should be"
                f" {', '.join(COLUMNS)}, but {has}; correct it, or move it elsewhere"
            )
        found = []
        for row in rows:
            if len(row) not in (0, len(header)):
                raise DataError(
                    f"{file}, line {rows.line_num} has {len(row)} cells instead of {len(header)}:"
                    " correct or delete it"
                )
            if row:
                found.append(_read_row(dict(zip(header, row, strict=True)), file, rows.line_num))
        return found
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not in UTF-8 (byte {error.start}): save it as such") from None
    except csv.Error as error:
        raise DataError(f"{file}, line {rows.line_num}: {error}: correct or delete it") from None


def _read_row(row: dict[str, str], file: Path, line: int) -> Correction:
    values = {name: cells.as_named(row[name]).strip() for name in COLUMNS}
    one = Correction(**values, file=file, line=line)
    if reason := why_not(one):
        raise DataError(f"{file}, line {line}: {reason}: correct or delete it")
    return one


def why_not(one: Correction) -> str:
    """Return why a correction is not valid; empty if it is."""
    if not DIGEST.fullmatch(one.digest):
        return f"{one.digest!r:.40} is not a digest of 64 hexadecimal digits"
    if one.field not in (LABEL, GROUP, EXCLUDE) and not one.field.startswith(TARGET):
        return f"the field is {one.field!r:.40}; it should be label, exclude, group or target:NAME"
    if one.field == EXCLUDE and one.new != YES:
        return f"to exclude an example, new should be {YES}, but it is {one.new!r:.40}"
    if one.field == LABEL and not one.new:
        return "there is no new label"
    return ""


def write(file: Path, rows: Iterable[Correction]) -> None:
    """Write a file, sorted by digest and field; on an error the old file stays."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(
        sorted([cells.as_text(getattr(one, name)) for name in COLUMNS] for one in rows)
    )
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(text.getvalue(), encoding="utf-8", newline="")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)

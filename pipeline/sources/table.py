"""Source `csv`: a folder with a table that names its files and their labels."""

import csv
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from ..core.errors import DataError
from ..tables.manifest import SPLITS
from .found import Found, Listing, Refused, tidy, walk, why_no_label, why_not

TABLE = "labels.csv"
OWN = ("path", "label", "split", "group")
# Columns of the predictions.
RESERVED = re.compile(
    r"predicted|probability|correct|label_probability|(class|probability)_\d+|p\(.*\)"
)
LEFT_OUT = "_"  # a column of such a first letter is not looked at
MOST_VALUES = 100  # of a column by which examples are sliced


def table(root: Path) -> Listing:
    """A folder that holds `labels.csv`: columns path, label, and perhaps split and group.

    Any further column slices the examples (`camera`, `site`), and is carried to the predictions.

    Paths are relative to the folder and may not leave it; but a file in it may be a link, as DVC
    makes them. The table's own path is no `root`: DVC watches what `ingest.path` names, and would
    not see that an example changed.

    Raises:
        DataError: the table is not there, is not CSV in UTF-8, lacks a column, or has one by which
            examples cannot be sliced.
    """
    if root.is_file():
        renamed = "" if root.name == TABLE else f" and rename the table to {TABLE}"
        raise DataError(
            f"ingest.path {root} is a file; source: csv needs its folder, so that DVC sees changes"
            f" to the examples too: write ingest.path: {root.parent}{renamed}"
        )
    file = root / TABLE
    if not file.is_file():
        raise DataError(f"source: csv needs the file {file} with the columns path and label")
    found: list[Found] = []
    refused: list[Refused] = []
    rows = rows_of(file)
    columns = slicing(file, rows)
    for row in rows:
        path = root / (row["path"] or "")
        label, split, group = (tidy(row.get(name) or "") for name in ("label", "split", "group"))
        reason = _why_not_in_table(row, path, root) or why_no_label(label)
        if not reason and split and split not in SPLITS:
            reason = f"split {split!r} is none of {', '.join(SPLITS)}"
        if reason:
            refused.append(Refused(path, reason))
        else:
            slices = tuple(tidy(row[name]) for name in columns)
            found.append(Found(path, label, split, group, slices))
    named = {file} | {row.path for row in found} | {row.path for row in refused}
    others = len(set(walk(root)[0]) - named)
    if others:
        print(f"ingest: {others} other files in {root} are not named in {TABLE}")
    return Listing(sorted(found), sorted(refused), columns)


def slicing(file: Path, rows: list[dict[str | None, Any]]) -> tuple[str, ...]:
    """The columns by which examples are sliced, sorted: all but the table's own.

    A column without a name (an index that pandas wrote) is left out, and one whose name begins
    with `_`.

    Raises:
        DataError: one has more values than slices can have, or a name that predictions have.
    """
    names = sorted({name for row in rows[:1] for name in row if name} - {*OWN})
    columns = tuple(name for name in names if not name.startswith(LEFT_OUT))
    what_to_do = f"remove it, or rename it to {LEFT_OUT}{{name}} to have it left out"
    for name in columns:
        values = {tidy(row[name] or "") for row in rows}
        if len(values) > MOST_VALUES:
            raise DataError(
                f"{file}: the column {name} has {len(values):,} values, too many to slice by"
                f" (at most {MOST_VALUES}); {what_to_do.format(name=name)}"
            )
        if RESERVED.fullmatch(name):
            raise DataError(
                f"{file}: the column {name} has a name that reports/predictions.csv uses for"
                f" something else; {what_to_do.format(name=name)}"
            )
    return columns


def rows_of(file: Path) -> list[dict[str | None, Any]]:
    """The table's rows; under the key None what a row has beyond the columns."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            where = f"{file}, near line {reader.line_num + 1},"
            raise DataError(f"{where} cannot be read as CSV in UTF-8: {error}") from None
    absent = [column for column in ("path", "label") if column not in columns]
    if absent:
        hint = "; separate the columns by commas" if len(columns) == 1 else ""
        raise DataError(
            f"{file} has no column {' or '.join(absent)}; it has {', '.join(columns)}{hint}"
        )
    if len(set(columns)) < len(columns):
        raise DataError(f"{file} has two columns of one name: {', '.join(columns)}")
    return rows


def _why_not_in_table(row: dict[str | None, Any], path: Path, root: Path) -> str:
    """Why a row of the table names no file to open; empty where it does."""
    if None in row or None in row.values():
        return "its row has another number of fields than the header"
    given = PurePosixPath(row["path"])
    if not row["path"].strip():
        return "no path"
    if given.is_absolute() or ".." in given.parts:
        return f"path leaves the folder {root}"
    if reason := why_not(path, root):
        return reason
    if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(root)):
        return f"path leaves the folder {root} through a link"
    return ""

"""Sources `csv` and `parquet`: a table of files and labels, or of the examples themselves."""

import csv
import json
import os
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..core.errors import DataError
from ..core.params import IngestParams
from ..core.paths import PICTURES
from ..examples import rows as examples
from ..examples.rows import KEY, MATRIX, PLAIN, TEXT, Dialect, Row
from ..kinds import Kind
from ..tables.manifest import UNLABELLED
from .found import Found, Listing, Refused, tidy, walk, why_no_label, why_no_split, why_not

TABLE = "labels"  # the file name, whose extension is the source
OWN = ("path", "label", "split", "group")
# Names of columns in the predictions.
RESERVED = re.compile(
    r"predicted|probability|correct|label_probability|(class|probability)_\d+"
    r"|(p|predicted|target|low|high)\(.*\)"
)
LEFT_OUT = "_"  # columns whose names begin with it are ignored
MOST_VALUES = 100  # in a column by which examples are sliced


class Wanted(NamedTuple):
    """The format of a table, and what is learned: its column `label`, or `targets` instead."""

    targets: tuple[str, ...] = ()
    label: str = "label"
    dialect: Dialect = PLAIN

    @classmethod
    def by(cls, settings: IngestParams) -> "Wanted":
        """Return what the section `ingest` says."""
        dialect = Dialect(settings.encoding, settings.separator)
        return cls(tuple(settings.targets or ()), settings.label, dialect)


LABEL = Wanted()


def table(root: Path, source: str, kind: Kind, wanted: Wanted = LABEL) -> Listing:
    """Return the examples of `labels.csv` or `labels.parquet`: labels, maybe splits and groups.

    A table names files in its column `path`, relative to its folder. Paths may not leave the
    folder, but a file in it may be a link, because DVC makes links. For a kind whose examples are
    rows, the table contains the examples themselves (`examples/rows.py`). Any further column slices
    the examples (`camera`, `site`), and is copied to the predictions.

    Args:
        root: the folder of the table, or a table that contains the examples. A table that names
            files cannot be `root`: DVC tracks only `ingest.path`, and would not notice changes of
            the files.
        source: `csv` or `parquet`.
        wanted: how the table is written, and the columns that are learned.

    Raises:
        DataError: the table does not exist or cannot be read, lacks a column, or has a column by
            which examples cannot be sliced.
    """
    file, whole = opened(root, source, kind.rows, wanted)
    targets = spelt(wanted.targets, whole.columns)
    holds = bool(kind.rows) and whole.column == kind.rows
    folder = file.parent
    own = {*OWN, *targets, KEY, kind.rows} if holds else {*OWN, *targets}
    columns = slicing(file, whole.rows, own)
    place = _rewritten(file, whole) if holds and wanted.dialect != PLAIN else file
    found: list[Found] = []
    refused: list[Refused] = []
    known: set[str] = set()
    for key, row in zip(whole.keys(), whole.rows, strict=True):
        if holds:
            path = examples.address(place, key)
            reason = _why_not_an_example(row, key, known)
            known.add(key)
        else:
            path = folder / (row["path"] or "")
            reason = _why_not_in_table(row, path, folder)
        taken = of_row(row, path, reason, columns, targets)
        if isinstance(taken, Refused):
            refused.append(taken)
        else:
            found.append(taken)
    if targets and "label" in {*whole.columns} - {*targets}:
        print("ingest: the column label is ignored, because ingest.targets names others")
    if root.is_dir():
        _count_others(root, file, {row.path for row in found} | {row.path for row in refused})
    return Listing(sorted(found), sorted(refused), columns)


def of_row(
    row: Row, path: Path, reason: str, columns: tuple[str, ...], targets: tuple[str, ...]
) -> Found | Refused:
    """Return the example at `path` with the values of its row; refuse it if there is a `reason`."""
    label, split, group = (tidy(row.get(name) or "") for name in ("label", "split", "group"))
    reason = reason or why_no_split(split)
    if not targets and split != UNLABELLED:
        reason = reason or why_no_label(label)
    if reason:
        return Refused(path, reason)
    slices = tuple(tidy(row[name]) for name in columns)
    cells = tuple(str(row[name]) for name in targets)
    return Found(path, label, split, group, slices, cells)


def opened(root: Path, source: str, of_kind: str, wanted: Wanted) -> tuple[Path, examples.Table]:
    """Return a table's path and the table, which has labels or targets, and examples or paths.

    The label's column is called `label`, whatever its name in the file.

    `of_kind` is the column of the kind's examples; empty if a table can only name files.

    Raises:
        DataError: the table does not exist, cannot be read, or lacks a column.
    """
    targets = wanted.targets
    named = f"{TABLE}.{source}"
    file = root if root.is_file() else root / named
    if not file.is_file() or (of_kind and file.suffix != f".{source}"):
        columns = " and ".join([of_kind or "path", *(targets or [wanted.label])])
        raise DataError(f"source: {source} needs the file {file} with the columns {columns}")
    renamed = f" and rename the table to {named}" * (file.name != named)
    needs_folder = DataError(
        f"ingest.path {root} is a file; source: {source} needs its folder, so that DVC sees"
        f" changes to the examples too: write ingest.path: {root.parent}{renamed}"
    )
    if root.is_file() and not of_kind:
        raise needs_folder
    whole = examples.read(file, bool(of_kind), wanted.dialect)
    holds = bool(of_kind) and whole.column == of_kind
    other = {"path", "split", "group", of_kind} & {*(targets or [wanted.label])}
    if other:
        raise DataError(
            f"ingest.{'targets' if targets else 'label'} names the column {min(other)} of {file},"
            f" but {min(other)} is a reserved name; choose a column with labels or numbers"
        )
    learned = spelt(targets or (wanted.label,), whole.columns)
    absent = [name for name in ("path", *learned) if name not in whole.columns]
    if holds:
        absent = [name for name in absent if name != "path"]
    apart = not holds or (of_kind == examples.VECTOR and file.suffix == ".csv")  # in other files
    if root.is_file() and apart and not absent:
        raise needs_folder
    if not targets and (form := whole.nested.get(learned[0])):
        raise DataError(
            f"{file}: the column {learned[0]} is {form}; it should be text, with | between the"
            " labels of an example that has several"
        )
    if not absent:
        return file, whole if targets else _with_label(whole, learned[0])
    if "path" in absent and of_kind:
        beside = f", {MATRIX} beside it" * (of_kind == examples.VECTOR)
        absent[0] = f"{of_kind} (nor path{beside})"
    has = ", ".join(whole.columns)
    raise DataError(
        f"{file} has no column {' or '.join(absent)}; it has {has}"
        f"{_what_to_name(file, whole.columns, wanted, absent)}"
    )


def _what_to_name(file: Path, columns: list[str], wanted: Wanted, absent: list[str]) -> str:
    """Return which parameter could help if the columns `absent` are missing from `columns`."""
    if len(columns) == 1 and file.suffix == ".csv":
        separator = examples.guessed(file).separator
        if separator != wanted.dialect.separator and separator in columns[0]:
            return (
                f"; the columns seem to be separated by {separator!r}: set ingest.separator to"
                f" {json.dumps(separator)}"
            )
    others = set(columns) - {*OWN, KEY, TEXT}
    if absent == [wanted.label] and others and not wanted.targets:
        return "; set ingest.label to the column of the labels"
    return ""


def _with_label(whole: examples.Table, column: str) -> examples.Table:
    """Return the table with its `column` of labels called `label`."""
    if column == "label":
        return whole
    if "label" in whole.columns:
        print(f"ingest: the column label is ignored, because ingest.label names {column}")
    rows = [
        {name: cell for name, cell in row.items() if name not in (column, "label")}
        | {"label": row[column]}
        for row in whole.rows
    ]
    others = [name for name in whole.columns if name not in (column, "label")]
    return whole._replace(columns=[*others, "label"], rows=rows)


def _rewritten(file: Path, whole: examples.Table) -> Path:
    """Write the examples of a CSV table in UTF-8 with commas; return the file.

    Later stages know only an example's path, so the file must be in the dialect that they assume.
    """
    copy = PICTURES / file.name
    with copy.open("w", encoding="utf-8", newline="") as lines:
        # Before 3.11.9 and 3.12.3, Python does not quote cells because of a carriage return.
        writer = csv.writer(lines, lineterminator="\n", quoting=csv.QUOTE_ALL)
        texts = whole.cells if whole.column == TEXT else None
        writer.writerow([KEY, TEXT] if texts else [KEY])
        for number, key in enumerate(whole.keys()):
            writer.writerow([key, texts[number] or ""] if texts else [key])
    if whole.column != TEXT:
        shutil.copyfile(file.with_name(MATRIX), copy.with_name(MATRIX))
    return copy


def spelt(targets: tuple[str, ...], columns: list[str]) -> tuple[str, ...]:
    """Return the targets' names as in the table, which may encode an é differently."""
    spelt = {tidy(name): name for name in columns}
    return tuple(spelt.get(name, name) for name in targets)


def _count_others(root: Path, file: Path, named: set[Path]) -> None:
    """Print how many files in the folder the table does not name."""
    others = len(set(walk(root)[0]) - named - {file, file.with_name(MATRIX)})
    if others:
        files = "1 other file in {} is" if others == 1 else f"{others} other files in {{}} are"
        print(f"ingest: {files.format(root)} not listed in {file.name}")


def slicing(file: Path, rows: list[Row], own: set[str]) -> tuple[str, ...]:
    """Return the columns by which examples are sliced, sorted: all but the table's `own`.

    A column without a name (an index that pandas wrote) is ignored, and so is a column whose name
    begins with `_`.

    Raises:
        DataError: a column has too many values for slices, or the name of a column of predictions.
    """
    names = sorted({name for row in rows[:1] for name in row if name} - own)
    columns = tuple(name for name in names if not name.startswith(LEFT_OUT))
    what_to_do = f"remove it, or rename it to {LEFT_OUT}{{name}} to have it left out"
    for name in columns:
        values = {tidy(row[name] or "") for row in rows}
        if len(values) > MOST_VALUES:
            raise DataError(
                f"{file}: the column {name} has {len(values):,} different values, too many to slice"
                f" by (at most {MOST_VALUES}); {what_to_do.format(name=name)}"
            )
        if RESERVED.fullmatch(name):
            raise DataError(
                f"{file}: the column {name} has a name that reports/predictions.csv uses for"
                f" something else; {what_to_do.format(name=name)}"
            )
    return columns


def _why_not_an_example(row: Row, key: str, known: set[str]) -> str:
    """Return why a row has no valid example; empty if it has one."""
    if None in row or None in row.values():
        return "its row and the header have different numbers of fields"
    if not key:
        return "no key"
    return f"the key {key} occurs twice" if key in known else ""


def _why_not_in_table(row: Row, path: Path, root: Path) -> str:
    """Return why the file of a row cannot be opened; empty if it can."""
    if None in row or None in row.values():
        return "its row and the header have different numbers of fields"
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

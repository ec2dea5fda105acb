"""The tables that `headstart label` writes beside the examples, a row at a time.

`labels.csv` is a table that `ingest` reads. Examples of no class are in `none-of-these.csv`, which
it does not read. Rows are appended, and each is on the disk before the next example is shown.
"""

import contextlib
import csv
import errno
import fcntl
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.core.errors import BusyError, DataError
from pipeline.examples import rows
from pipeline.examples.files import MOST_BYTES, digest, load
from pipeline.sources.found import tidy, why_no_label
from pipeline.tables.manifest import SPLITS

LABELS, NONE = "labels.csv", "none-of-these.csv"
WHY = "_why"  # `ingest` ignores columns whose names begin with _
LONGEST = 100  # characters of a class's name
AGAIN = "correct it, or move it elsewhere"


class Labelled(NamedTuple):
    """A row: an example, its label (empty for none of the classes), and its split."""

    path: Path | None  # None if the table has the example itself
    digest: str  # empty if it has a path
    label: str
    split: str


def class_name(text: object) -> str:
    """Return the name of a class with single spaces.

    Raises:
        DataError: the text cannot be the name of a class.
    """
    name = tidy(text) if isinstance(text, str) and len(text) <= LONGEST else ""
    if reason := why_no_label(name):
        said = f": {reason}" if name else ""
        raise DataError(
            f"{text!r:.60} cannot be the name of a class{said}; give 1 to {LONGEST} characters"
        )
    return name


@contextlib.contextmanager
def alone(pool: Path) -> Iterator[None]:
    """Keep other sessions away from a pool's tables: two would write rows of the same examples.

    Raises:
        BusyError: a session is open.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # there is no such pool, or no locks in its file system
            held = os.open(pool if pool.is_dir() else pool.parent, os.O_RDONLY)
            stack.callback(os.close, held)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(
                    f"another `headstart label` is open for {pool}: use its page, or end it"
                ) from None
        yield


class Tables:
    """Both tables of a pool."""

    def __init__(self, pool: Path) -> None:
        """Name the tables of a pool, a folder of files or a table of texts."""
        self.folder = pool if pool.is_dir() else pool.parent
        self.labels, self.none = self.folder / LABELS, self.folder / NONE
        self.column = "path" if pool.is_dir() else rows.TEXT
        self._columns = {self.labels: [self.column, "label", "split", WHY]}
        self._columns[self.none] = [self.column]
        self._before: list[tuple[Path, int, int]] = []  # table, its size before and after a row
        self._there: set[Path] = set()  # tables that were read or written

    def read(self) -> list[Labelled]:
        """Return the rows of both tables.

        Raises:
            DataError: a table is damaged, or is not one that this class writes.
        """
        return [*self._read(self.labels), *self._read(self.none)]

    def known(self, digests: Mapping[Path, str]) -> dict[str, str]:
        """Return the label of each example in the tables, by digest; empty for none of the classes.

        `digests` are those of the paths in the pool. The errors are those of `read`.
        """
        rows = self.read()
        return {digests.get(row.path, "") if row.path else row.digest: row.label for row in rows}

    def _read(self, file: Path) -> list[Labelled]:
        if not file.exists():
            return []
        table = rows.read(file, self.column != "path")
        self._there.add(file)
        wanted = self._columns[file][: 3 if file == self.labels else 1]
        if lacks := [name for name in wanted if name not in table.columns]:
            has = ", ".join(table.columns)[:80] or "none"
            raise DataError(f"{file} has no column {' or '.join(lacks)}, but {has}; {AGAIN}")
        self._columns[file], found = table.columns, []
        for number, row in enumerate(table.rows, 1):
            if None in row or None in row.values():
                raise DataError(f"{file}, row {number} has too many or too few cells; {AGAIN}")
            label, split = tidy(row.get("label", "")), row.get("split", "")
            if file == self.labels and (why_no_label(label) or split not in SPLITS):
                raise DataError(f"{file}, row {number} has no label or no split; {AGAIN}")
            cell, in_table = row[self.column], self.column != "path"
            path = None if in_table else self.folder / cell
            name = digest(cell.encode("utf-8", "surrogatepass")) if in_table else ""
            found.append(Labelled(path, name, label if file == self.labels else "", split))
        return found

    def add(self, path: Path, label: str, split: str, why: str) -> None:
        """Append the row of an example; without a label, to the table of no class.

        Raises:
            DataError: the table was deleted since it was read or written.
        """
        file = self.labels if label else self.none
        cell = path.relative_to(self.folder).as_posix()
        if self.column != "path":
            cell = load(path, MOST_BYTES).decode("utf-8", "surrogatepass")
        row = {self.column: cell, "label": label, "split": split, WHY: why}
        if not file.exists():
            if file in self._there:
                raise DataError(
                    f"{file} was deleted, with the rows that it had: restore it and answer again,"
                    " or end this session and start another"
                )
            _append(file, self._columns[file])
        self._there.add(file)
        start, end = _append(file, [row.get(name, "") for name in self._columns[file]])
        self._before.append((file, start, end))

    def undo(self) -> None:
        """Remove the row that was appended last.

        Raises:
            DataError: another program has changed the table since.
        """
        file, start, end = self._before[-1]
        if not file.exists() or file.stat().st_size != end:
            raise DataError(f"{file} has changed since: remove the row yourself")
        os.truncate(file, start)
        self._before.pop()


def _append(file: Path, cells: list[str]) -> tuple[int, int]:
    """Append a row, and return the sizes of the file before and after.

    If the row cannot be written, the file stays as it was.
    """
    line = io.StringIO()
    # With a carriage return in a cell, Python writes no quotes, but `ingest` needs them.
    if any("\r" in cell for cell in cells):
        csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(cells)
    else:
        csv.writer(line, lineterminator="\n").writerow(cells)
    with file.open("ab+", buffering=0) as data:
        start = data.tell()
        data.seek(max(start - 1, 0))
        ends = data.read() in (b"", b"\n")  # else a person has edited the table
        row = (b"" if ends else b"\n") + line.getvalue().encode()
        try:
            if data.write(row) < len(row):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
            os.fsync(data.fileno())
        except OSError:
            os.ftruncate(data.fileno(), start)
            raise
        return start, data.tell()

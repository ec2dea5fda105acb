"""Examples that are rows of a table: texts or vectors, many in one file.

The path of such an example is the path of the table, `#` and the row's key, as in
`data/raw/news.csv#12`. The key is the cell in the column `key`, or the row's number from 1 if there
is no such column. A CSV file has texts in its column `text`, or vectors as the rows of the matrix
`vectors.npy` beside it, in the same order. A Parquet file has them in its column `text` or
`vector`.
"""

import codecs
import contextlib
import csv
import io
import os
import re
import threading
import tokenize
import weakref
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple, TypeAlias
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError, MissingSetError, RefusedError

ENDINGS = (".csv", ".parquet")
MATRIX = "vectors.npy"
KEY, TEXT, VECTOR = "key", "text", "vector"
LONGEST = 2**27  # characters in a cell
# Errors of NumPy for an invalid header: NumPy parses it as Python code, and if it is nested too
# deeply, the parser runs out of its own memory.
NO_HEADER = (
    *(ValueError, TypeError, SyntaxError, EOFError),
    *(tokenize.TokenError, RecursionError, MemoryError),
)

SEPARATORS = (",", ";", "\t", "|")


class Dialect(NamedTuple):
    """The dialect of a CSV file: its encoding, as Python names it, and what separates its cells."""

    encoding: str = "utf-8"
    separator: str = ","


PLAIN = Dialect()

_one_opens = threading.Lock()

Row: TypeAlias = dict[str | None, Any]


class Table(NamedTuple):
    """A table in memory.

    `rows` are the cells except vectors, as texts by column name; the key None has the surplus
    fields of a CSV row. `column` is TEXT or VECTOR, or empty if no cell is an example. `cells` are
    the examples, one text or vector per row. `nested` are the types of the Parquet columns whose
    cells are lists or the like, by name.
    """

    columns: list[str]
    rows: list[Row]
    column: str
    cells: Any  # a sequence
    nested: Mapping[str, str] = MappingProxyType({})

    def keys(self) -> list[str]:
        """Return each row's key."""
        if KEY not in self.columns:
            return [str(number) for number in range(1, len(self.rows) + 1)]
        return [str(row[KEY] or "") for row in self.rows]


def address(file: Path, key: str) -> Path:
    """Return the path of the example with this key in a table."""
    spelt = re.sub(r"[%/\x00-\x1f\x7f]", lambda found: f"%{ord(found[0]):02X}", key)
    return file.with_name(f"{file.name}#{spelt}")


def parted(path: Path) -> tuple[Path, str] | None:
    """Return the table and the key that `path` names; None if it is the path of a file."""
    if "#" not in path.name:
        return None
    found = re.fullmatch(r"(.+?\.(?:csv|parquet))#(.+)", path.name, flags=re.DOTALL)
    if found is None or os.path.exists(path):  # noqa: PTH110 (Path.exists raises on a long name)
        return None
    return path.with_name(found[1]), unquote(found[2])


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files that hold the example: one, or a CSV file and the matrix beside it."""
    table = parted(path)
    return _beside(table[0]) if table else (path,)


def load(file: Path, key: str) -> bytes:
    """Return the bytes of an example in a table: a text as UTF-8, a vector as a float32 NPY file.

    Raises:
        RefusedError: there is no such row or table, or the table cannot be read.
    """
    try:
        opened = _table(file)
        if isinstance(opened, str):
            raise RefusedError(opened)
        table, places = opened
        if key not in places or not table.column:
            raise RefusedError(f"{file} has no example {key}")
        return _bytes(table.cells[places[key]])
    except OSError as error:
        raise RefusedError(f"cannot be read ({error.strerror or error})") from None


def examples(file: Path, wanted: str = "") -> list[Path]:
    """Return the paths of all examples in a table; empty if its cells are not examples.

    Args:
        file: CSV or Parquet.
        wanted: the column that the examples should be in.

    Raises:
        DataError: the table cannot be read, or has no examples although they are `wanted`.
    """
    opened = _table(file)
    if isinstance(opened, str):
        raise DataError(opened)
    table, places = opened
    if wanted == VECTOR and file.suffix == ".csv" and not table.column:
        raise DataError(f"{file} has no {MATRIX} beside it, the matrix of its vectors")
    if wanted and not table.column:
        has = ", ".join(table.columns)[:80] or "none"
        raise DataError(f"{file} has no column {wanted}; it has {has}: rename yours")
    if wanted and not table.rows:
        raise DataError(f"{file} has no rows")
    return [address(file, key) for key in places if key] if table.column else []


def read(file: Path, holds: bool = True, dialect: Dialect = PLAIN) -> Table:
    """Read a whole table.

    Args:
        file: CSV or Parquet.
        holds: whether cells may be examples; if not, no column is read as examples.
        dialect: the dialect, if the file is CSV.

    Raises:
        DataError: the file is not CSV in this dialect or not Parquet, or its columns or the matrix
            cannot be used; without examples, `Table.column` is empty.
        MissingSetError: a required library is not installed.
    """
    try:
        return _parquet(file, holds) if file.suffix == ".parquet" else _csv(file, holds, dialect)
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise DataError(f"{file} cannot be read ({reason})") from None


def _bytes(cell: Any) -> bytes:
    if isinstance(cell, str):
        return cell.encode("utf-8", "surrogatepass")
    if cell is None:
        return b""
    buffer = io.BytesIO()
    with np.errstate(over="ignore"):  # too large numbers become infinite, and are refused
        vector = np.asarray(cell).astype("<f4")
    np.lib.format.write_array(buffer, vector, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _table(file: Path) -> tuple[Table, dict[str, int]] | str:
    """Return what `_opened` returns; if several threads ask at once, one reads the table."""
    stamp = _stamp(file)
    with _one_opens:
        return _opened(file, stamp)


@lru_cache(maxsize=4)
def _opened(file: Path, stamp: tuple[Any, ...]) -> tuple[Table, dict[str, int]] | str:
    """Return a table and the position of each key; for a key that occurs twice, the first one.

    A CSV table is read in the dialect that `ingest` writes, or, if this finds no examples, in the
    dialect that `guessed` returns. If the table cannot be read, return the reason, which is cached
    for all of its rows.
    """
    table, reason = None, ""
    try:
        table = read(file)
    except DataError as error:
        reason = str(error)
    if table is None or not table.column:
        table = _in_another_dialect(file) or table
    if table is None:
        return reason
    places: dict[str, int] = {}
    for place, key in enumerate(table.keys()):
        places.setdefault(key, place)
    return table, places


def _in_another_dialect(file: Path) -> Table | None:
    """Return the table as `guessed` reads it, if it then has examples."""
    with contextlib.suppress(DataError, OSError):
        if file.suffix == ".csv" and (dialect := guessed(file)) != PLAIN:
            table = read(file, dialect=dialect)
            return table if table.column else None
    return None


def _beside(file: Path) -> tuple[Path, ...]:
    return (file, file.with_name(MATRIX)) if file.suffix == ".csv" else (file,)


def _stamp(file: Path) -> tuple[Any, ...]:
    """Return a value that changes with the content of a table, and of a matrix beside it."""
    table, *matrix = _beside(file)
    found: list[Any] = [table.stat()]
    for one in matrix:
        try:
            found.append(one.stat())
        except FileNotFoundError:
            found.append(None)
    return tuple(one and (one.st_ino, one.st_mtime_ns, one.st_size) for one in found)


def guessed(file: Path) -> Dialect:
    """Guess a CSV file's dialect: the encoding from the whole file, the separator from the header.

    A byte order mark or zero bytes show UTF-16. Otherwise, a text that is valid UTF-8 counts as
    UTF-8, because texts in other encodings hardly ever are. Among encodings with one byte per
    character, Windows-1252 is returned if its own bytes occur, and otherwise Latin-1; only a person
    who reads the text can see which is right.
    """
    data = file.read_bytes()
    encoding = "utf-8"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        encoding = "cp1252" if re.search(rb"[\x80-\x9f]", data) else "latin-1"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in data[:100]:
        encoding = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    header = data[:100_000].decode(encoding, "replace").partition("\n")[0]
    return Dialect(encoding, max(SEPARATORS, key=header.count))


def _not_in(encoding: str, file: Path, error: UnicodeDecodeError) -> str:
    """Return what is wrong with a table's encoding, and what the encoding seems to be."""
    seems = guessed(file).encoding
    if seems == encoding:  # the guess is no help
        return f"cannot be read as CSV in {encoding}: {error}"
    text = file.read_bytes().decode(seems, "replace")
    word = next((word for word in re.findall(r"\w+", text) if not word.isascii()), "")
    such = f" (with words such as {word})" * bool(word)
    return (
        f"is not in {encoding.upper()}: it seems to be in {seems}{such}. Set ingest.encoding to"
        f" {seems}, or save the table in UTF-8"
    )


def _csv(file: Path, holds: bool, dialect: Dialect = PLAIN) -> Table:
    csv.field_size_limit(LONGEST if holds else 2**17)
    utf_8 = codecs.lookup(dialect.encoding).name == "utf-8"
    encoding = "utf-8-sig" if utf_8 else dialect.encoding
    try:
        with file.open(encoding=encoding, newline="") as lines:
            # Only in a file of an old Mac does a carriage return end a line. Elsewhere it would
            # make two rows of one.
            ends = "" if lines.readline().endswith("\r") else "\n"
    except UnicodeError:
        ends = "\n"
    with file.open(encoding=encoding, newline=ends) as lines:
        reader = csv.DictReader(lines, strict=True, delimiter=dialect.separator)
        try:
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows: list[Row] = list(reader)
        except UnicodeDecodeError as error:
            raise DataError(f"{file} {_not_in(dialect.encoding, file, error)}") from None
        except (csv.Error, UnicodeError) as error:
            where = f"{file}, near line {reader.line_num + 1},"
            if "new-line character seen" in str(error):
                raise DataError(
                    f"{where} has a carriage return in a cell without quotes, which would make two"
                    " rows of one: quote the cell, or replace the carriage return with a space"
                ) from None
            as_csv = f"cannot be read as CSV in {dialect.encoding.upper()}"
            raise DataError(f"{where} {as_csv}: {error}") from None
    if len(set(columns)) < len(columns):
        raise DataError(f"{file} has two columns with the same name: {', '.join(columns)}")
    matrix = file.with_name(MATRIX)
    if not holds or not (TEXT in columns or matrix.exists()):
        return Table(columns, rows, "", ())
    if TEXT in columns and matrix.exists():
        raise DataError(f"{file} has a column {TEXT}, and {MATRIX} is next to it; remove one")
    if TEXT in columns:
        return Table(columns, rows, TEXT, [row[TEXT] for row in rows])
    vectors = _Matrix(matrix)
    if len(vectors) != len(rows):
        raise DataError(
            f"{matrix} has {len(vectors):,} rows and {file} has {len(rows):,}; they have to be the"
            " same examples in the same order"
        )
    return Table(columns, rows, VECTOR, vectors)


class _Matrix:
    """The rows of an NPY matrix, each read from the open file when it is requested.

    The file is not memory-mapped: if another program truncated it, reading would end this process
    by a signal. A matrix in Fortran order is kept in memory, like vectors of Parquet, because in
    that order a row is scattered over the whole file.
    """

    def __init__(self, file: Path) -> None:
        """Open the file and read its header.

        Raises:
            DataError: the file is not a matrix of numbers, or is shorter than its header says.
        """
        self._file = file
        self._open = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._open)
        with open(self._open, "rb", closefd=False) as stream:
            shape, fortran, self._form = _header(file, stream)
            self._start = stream.tell()
        if len(shape) != 2 or self._form.kind not in "fiu":
            raise DataError(
                f"{file} is {self._form} {list(shape)}; it should be a matrix of numbers, one row"
                " per example"
            )
        self._rows, self._columns = shape
        self._width = self._columns * self._form.itemsize
        wanted, has = self._start + self._rows * self._width, os.fstat(self._open).st_size
        if min(shape) < 0 or has < wanted:
            raise DataError(
                f"{file} cannot be read as an NPY matrix: it has {has:,} bytes, but"
                f" {list(shape)} {self._form} needs {wanted:,}"
            )
        self._held: NDArray[Any] | None = None
        if fortran:
            count = self._rows * self._columns
            whole = np.fromfile(file, self._form, count, offset=self._start)
            if len(whole) < count:
                raise DataError(f"{file} was truncated while it was read")
            self._held = whole.reshape(self._columns, self._rows).T

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> NDArray[Any]:
        """Return a row [columns].

        Raises:
            RefusedError: the row does not exist any more.
        """
        if self._held is not None:
            return np.asarray(self._held[row])
        data = os.pread(self._open, self._width, self._start + row * self._width)
        if len(data) < self._width:
            raise RefusedError(f"{self._file} was truncated while it was read")
        return np.frombuffer(data, self._form)


def _header(file: Path, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return an NPY file's shape, Fortran order and type, and leave `stream` at its numbers."""
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        return np.lib.format.read_array_header_2_0(stream)
    except NO_HEADER as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{file} cannot be read as an NPY matrix: {reason}") from None


def _parquet(file: Path, holds: bool) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingSetError(f"{file} needs pyarrow, which is not installed") from None
    try:
        table = pq.read_table(file)
        table.validate(full=True)  # for example, that texts are UTF-8
        columns = table.column_names
    except (pa.ArrowException, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file} cannot be read as Parquet: {reason}; write it again") from None
    if len(set(columns)) < len(columns):
        raise DataError(f"{file} has two columns with the same name: {', '.join(columns)}")
    both = [name for name in (TEXT, VECTOR) if name in columns and holds]
    if len(both) == 2:
        raise DataError(f"{file} has a column {TEXT} and a column {VECTOR}; remove one")
    nested = {one.name: str(one.type) for one in table.schema if pa.types.is_nested(one.type)}
    others = table.drop_columns([VECTOR]) if VECTOR in both else table
    rows: list[Row] = [
        {name: "" if value is None else str(value) for name, value in row.items()}
        for row in others.to_pylist()
    ]
    if not both:
        return Table(columns, rows, "", (), nested)
    (column,) = both
    form = table.schema.field(column).type
    if column == TEXT:
        if not (pa.types.is_string(form) or pa.types.is_large_string(form)):
            raise DataError(f"{file}: the column {TEXT} is {form}; it should be text")
        return Table(columns, rows, TEXT, table[TEXT].to_pylist(), nested)
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    numbers = (pa.types.is_floating, pa.types.is_integer)
    if not any(is_list(form) for is_list in lists) or not any(
        is_number(form.value_type) for is_number in numbers
    ):
        raise DataError(f"{file}: the column {VECTOR} is {form}; it should be a list of numbers")
    chunks = table[VECTOR].chunks
    vectors = [
        None if one.as_py() is None else one.values.to_numpy(zero_copy_only=False)
        for chunk in chunks
        for one in chunk
    ]
    return Table(columns, rows, VECTOR, vectors, nested)

"""Source `s3`: objects in a bucket, as named by the listing in a folder of this machine.

The labels are the folders below the listed address, as in source `folder`, or are in a table beside
the listing, as in the sources `csv` and `parquet`. This module sends no request to the server.
"""

from pathlib import Path

from ..core.errors import DataError
from ..examples import objects, rows
from ..examples.objects import LISTING, Objects
from ..examples.rows import Row
from .folder import labelled, split_folders
from .found import Found, Listing, Refused, is_hidden
from .table import OWN, TABLE, Wanted, of_row, opened, slicing, spelt

WRITES_IT = "run `headstart list s3://BUCKET/PREFIX`"


def bucket(root: Path, wanted: Wanted) -> Listing:
    """Return the objects of the listing in the folder `root`.

    Args:
        root: the folder, which may also have `labels.csv` or `labels.parquet`. The column `path` of
            that table has keys below the listed address.
        wanted: how that table is written, and its columns that are learned.

    Raises:
        DataError: there is no listing, or the listing, the table or the folders cannot be used.
    """
    file = root / LISTING
    if not file.is_file():
        raise no_listing(root)
    listed = objects.opened(file)
    tables = [end for end in ("csv", "parquet") if (root / f"{TABLE}.{end}").is_file()]
    if len(tables) == 2:
        raise DataError(f"{root} has {TABLE}.csv and {TABLE}.parquet; remove one")
    if tables:
        return _by_table(root, tables[0], file, listed, wanted)
    if wanted.targets:
        raise DataError(f"ingest.targets are columns of a table: {root} needs {TABLE}.csv")
    return _by_prefix(file, listed)


def no_listing(root: Path) -> DataError:
    """Return the error for a folder `root` without a listing, with what to do."""
    if root.is_file():
        return DataError(f"ingest.path {root} is a file; source: s3 needs the folder of {LISTING}")
    return DataError(f"ingest.path {root} has no {LISTING}; {WRITES_IT}")


def _by_prefix(file: Path, listed: Objects) -> Listing:
    every = list(listed)
    folders = {folder for one in every for folder in _folders(one.key)}
    top = {folder for folder in folders if "/" not in folder and not is_hidden(folder)}
    depth = split_folders(top, listed.address)
    found: list[Found] = []
    refused: list[Refused] = []
    for one in every:
        if not one.size and one.key in folders:  # a placeholder object of a folder in a web console
            continue
        parts = one.key.split("/")
        reason = "hidden or system file" if any(map(is_hidden, parts)) else ""
        label, of_place = labelled(parts, depth)
        reason = reason or of_place
        path = rows.address(file, one.key)
        if reason:
            refused.append(Refused(path, reason))
        else:
            split = parts[0] if depth else ""
            found.append(Found(path, label, split, identity=listed.identity(one)))
    return Listing(sorted(found), sorted(refused))


def _folders(key: str) -> list[str]:
    """Return `a` and `a/b` for the key `a/b/c.png`."""
    parts = key.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]


def _by_table(root: Path, ending: str, file: Path, listed: Objects, wanted: Wanted) -> Listing:
    table, whole = opened(root, ending, "", wanted)
    targets = spelt(wanted.targets, whole.columns)
    columns = slicing(table, whole.rows, {*OWN, *targets})
    found: list[Found] = []
    refused: list[Refused] = []
    named: set[str] = set()
    for row in whole.rows:
        key = row.get("path") or ""
        one = listed.named(key)
        reason = _why_no_row(row, key) or ("" if one else f"not listed in {file}")
        taken = of_row(row, rows.address(file, key), reason, columns, targets)
        if isinstance(taken, Refused):
            refused.append(taken)
        elif one:
            found.append(taken._replace(identity=listed.identity(one)))
        named.add(key)
    if others := sum(one.key not in named for one in listed):
        print(
            f"ingest: {others:,} other objects of {listed.address} are not listed in {table.name}"
        )
    return Listing(sorted(found), sorted(refused), columns)


def _why_no_row(row: Row, key: str) -> str:
    if None in row or None in row.values():
        return "its row and the header have different numbers of fields"
    return "" if key.strip() else "no path"

"""Labels that people confirmed as right: `data/confirmed.csv`, from `corrections/`.

They are not in the manifest, so that confirming a label reruns only the stages that use them.
"""

import csv
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ..core.errors import DataError
from . import cells

COLUMNS = ("digest", "label")

Confirmed = set[tuple[str, str]]  # digest, and label as in the manifest


def write(file: Path, confirmed: Iterable[tuple[str, str]]) -> None:
    """Write digests and labels, sorted."""
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((digest, cells.as_text(label)) for digest, label in sorted(confirmed))


def read(file: Path) -> Confirmed:
    """Return digests and labels.

    Raises:
        DataError: the file does not exist, or is damaged.
    """
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            header, *rows = csv.reader(lines, strict=True)
            found = {(digest, cells.as_named(label)) for digest, label in rows}
            whole = tuple(header) == COLUMNS
    except FileNotFoundError:
        raise DataError(f"{file} does not exist; run the ingest stage first") from None
    except (ValueError, csv.Error):
        whole = False
    if not whole:
        raise DataError(f"{file} is damaged; run the ingest stage again")
    return found


def paths(manifest: pd.DataFrame, confirmed: Confirmed) -> set[str]:
    """Return the paths of the examples whose present label is confirmed."""
    rows = zip(manifest["digest"], manifest["label"], manifest["path"], strict=True)
    return {path for digest, label, path in rows if (digest, label) in confirmed}

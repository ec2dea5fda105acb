"""Numbers about each example, such as its sharpness: `data/measures.parquet`, for `checks`.

They are not in the manifest, because no other stage uses them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from . import parquet


def write(file: Path, names: Sequence[str], rows: dict[str, tuple[Any, ...]]) -> None:
    """Write the numbers of each example, sorted by digest; no rows if there are no names."""
    some = sorted(rows.items()) if names else []
    columns = [("digest", pa.string()), *((name, pa.float32()) for name in names)]
    values = [(digest, *numbers) for digest, numbers in some]
    arrays = list(zip(*values, strict=True)) or [()] * len(columns)
    table = [pa.array(column, form) for column, (_, form) in zip(arrays, columns, strict=True)]
    pq.write_table(pa.table(table, [name for name, _ in columns]), file)


def joined(file: Path, names: Sequence[str], rows: pd.DataFrame) -> pd.DataFrame:
    """Return `rows` of the manifest with the columns `names`; NaN for a digest without numbers.

    Raises:
        DataError: the file does not exist, is damaged, or lacks a column.
    """
    table = parquet.read(file, ("digest", *names), "ingest")
    return rows.merge(table[["digest", *names]], on="digest", how="left")

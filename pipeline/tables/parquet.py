"""Parquet tables that a stage wrote."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import DataError

BAD = (pa.ArrowException, OSError, ValueError, KeyError, TypeError)


def read(file: Path, columns: Sequence[str], stage: str) -> pd.DataFrame:
    """Read a table that `stage` wrote.

    Raises:
        DataError: the file does not exist, is not readable, or lacks one of the columns.
    """
    try:
        table: pd.DataFrame = pq.read_table(file).to_pandas()
    except BAD as error:
        raise unreadable(file, error, stage) from None
    if lacking := [name for name in columns if name not in table]:
        raise DataError(f"{file} has no column {lacking[0]}; run the {stage} stage again")
    return table


def unreadable(file: Path, error: Exception, stage: str) -> DataError:
    """Return the error for a file that does not exist or is not valid Parquet.

    Raises:
        OSError: the system cannot read the file. For invalid content, Arrow raises an `OSError`
            without a number.
    """
    if isinstance(error, FileNotFoundError):
        return DataError(f"{file} does not exist; run the {stage} stage first")
    if isinstance(error, OSError) and error.errno:
        raise error
    reason = " ".join(str(error).split())
    return DataError(f"{file} is not readable ({reason}); run the {stage} stage again")

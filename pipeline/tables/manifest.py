"""The manifest: a row an example, with its digest, path, label and split."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import DataError

SPLITS = ("train", "val", "test")
COLUMNS = ("digest", "path", "label", "split")  # that stages after ingest read
KIND = b"headstart.kind"  # in the file's metadata
SLICE = "slice:"  # before the name of a column by which the user's table slices the examples


def write_manifest(manifest: pd.DataFrame, kind: str, path: Path) -> None:
    """Write the manifest, and in its metadata what kind of example its rows are."""
    table = pa.Table.from_pandas(manifest, preserve_index=False)
    noted = table.replace_schema_metadata({**(table.schema.metadata or {}), KIND: kind.encode()})
    pq.write_table(noted, path)


def kind_in(path: Path) -> str:
    """The kind of the manifest's examples; one of before there were others holds images.

    Raises:
        DataError: as `read_manifest`.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        raise DataError(f"{path} is not here; run the ingest stage first") from None
    except pa.ArrowException as error:
        raise DataError(f"{path} is not readable: {' '.join(str(error).split())}") from None
    return str(metadata.get(KIND, b"image").decode())


def read_manifest(path: Path) -> pd.DataFrame:
    """Read the manifest, a row an example.

    Raises:
        DataError: it is not there or is not readable, or lacks a column.
    """
    try:
        manifest: pd.DataFrame = pq.read_table(path).to_pandas()
    except FileNotFoundError:
        raise DataError(f"{path} is not here; run the ingest stage first") from None
    except pa.ArrowException as error:
        raise DataError(f"{path} is not readable: {' '.join(str(error).split())}") from None
    lacking = [name for name in COLUMNS if name not in manifest]
    if lacking:
        raise DataError(f"{path} has no column {lacking[0]}; run the ingest stage again")
    return manifest


def slices(manifest: pd.DataFrame) -> pd.DataFrame:
    """The columns by which the user's table slices the examples, under the names that it has."""
    columns = [name for name in manifest.columns if name.startswith(SLICE)]
    return manifest[columns].rename(columns=lambda name: name.removeprefix(SLICE))

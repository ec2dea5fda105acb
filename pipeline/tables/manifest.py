"""The manifest: one row per example, with its digest, path, label and split."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import DataError
from ..tasks import TASKS, UNNAMED, noted
from . import parquet

SPLITS = ("train", "val", "test")
# The name of the split, in a source, for unlabelled examples of another domain. They are in a
# separate table, which only the stage `adapt` reads.
UNLABELLED = "target"
COLUMNS = ("digest", "path", "label", "split")  # that stages after `ingest` read
# Keys of the file's metadata.
KIND = b"headstart.kind"
ORIGINS = b"headstart.splits"
TASK = b"headstart.task"
# The origin of a held-out split: drawn at random from the same examples as train; given by the
# source; or given by a source whose splits are different places.
DRAWN, GIVEN, PLACE = "drawn", "given", "place"
TARGET = "target:"  # prefix of the columns of targets, in multi-label tasks and regression
SLICE = "slice:"  # prefix of the columns that define slices in the user's table


def write_manifest(
    manifest: pd.DataFrame,
    kind: str,
    path: Path,
    origins: dict[str, str] | None = None,
    task: str = UNNAMED,
) -> None:
    """Write the manifest, with kind, task and origins of the splits in its metadata."""
    table = pa.Table.from_pandas(manifest, preserve_index=False)
    notes = {KIND: kind.encode(), ORIGINS: json.dumps(origins or {}).encode()}
    if named := noted(task):
        notes[TASK] = named.encode()
    pq.write_table(table.replace_schema_metadata((table.schema.metadata or {}) | notes), path)


def kind_in(path: Path) -> str:
    """Return the kind of the manifest's examples; manifests of older versions are of images.

    Raises:
        DataError: as `read_manifest`.
    """
    return _notes(path).get(KIND, b"image").decode()


def task_in(path: Path) -> str:
    """Return the task; in manifests of older versions, each example has one label.

    Raises:
        DataError: as in `read_manifest`, or this version does not have the task.
    """
    task = _notes(path).get(TASK, UNNAMED.encode()).decode()
    if task not in TASKS:
        raise DataError(
            f"{path} is for the task {task!r:.40}, but this version of Headstart supports only"
            f" {', '.join(TASKS)}; run the ingest stage again"
        )
    return task


def origins_in(path: Path) -> dict[str, str]:
    """Return `DRAWN`, `GIVEN` or `PLACE` for val and test; the default is `GIVEN`.

    Raises:
        DataError: as `read_manifest`.
    """
    try:
        noted = dict(json.loads(_notes(path).get(ORIGINS, b"{}")))
    except (ValueError, TypeError, RecursionError) as error:
        raise parquet.unreadable(path, error, "ingest") from None
    return {name: str(noted.get(name, GIVEN)) for name in SPLITS[1:]}


def _notes(path: Path) -> dict[bytes, bytes]:
    """Return the file's metadata."""
    try:
        return pq.read_schema(path).metadata or {}
    except parquet.BAD as error:
        raise parquet.unreadable(path, error, "ingest") from None


def read_manifest(path: Path) -> pd.DataFrame:
    """Read the manifest, one row per example.

    Raises:
        DataError: the file does not exist, is not readable or lacks a column.
    """
    return parquet.read(path, COLUMNS, "ingest")


def slices(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that define slices, under their names in the user's table."""
    columns = [name for name in manifest.columns if name.startswith(SLICE)]
    return manifest[columns].rename(columns=lambda name: name.removeprefix(SLICE))


def group_keys(manifest: pd.DataFrame) -> "pd.Series[str]":
    """Return the name of each row's group, or the example's digest if it has no group."""
    named = manifest.get("group", pd.Series("", index=manifest.index))
    return named.where(named != "", manifest["digest"])


def groups_at(manifest: pd.DataFrame, digests: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Return `groups` for the rows with these digests, [n], in their order."""
    return groups(manifest.set_index("digest").loc[digests].reset_index())


def groups(manifest: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the number of each row's group, [n], from 0; a row without one is its own group."""
    named = manifest.get("group", pd.Series("", index=manifest.index)).to_numpy(str)
    alone = np.where(named == "", manifest["digest"].to_numpy(str), "")
    numbers: npt.NDArray[np.int64] = pd.MultiIndex.from_arrays([named, alone]).factorize()[0]
    return numbers


def divided_groups(manifest: pd.DataFrame) -> str:
    """Return a warning if groups have examples in several splits; empty if none has."""
    named = manifest[manifest["group"] != ""]
    several = named.groupby("group")["split"].nunique() > 1
    if not several.any():
        return ""
    return (
        f"the source itself divides {several.sum()} of {len(several)} groups between splits, such"
        f" as {several.idxmax()!r}: the accuracy will be too high; give each group one split"
    )

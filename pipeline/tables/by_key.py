"""Features as references: their keys in the store and a checksum each (`features: keys`).

Features are then stored only once, in the feature store. The keys and checksums in `data/features`
identify the vectors to the bit, and later stages read them from the store.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..core.errors import DataError, ParamsError
from ..store.eviction import stored_bytes
from ..store.interface import Store, blob, checksum
from ..store.places import default_address, default_folder, default_limit
from ..store.vectors import open_store
from . import joined
from .large import empty

KEY_BYTES = 16
KEPT = np.dtype([("key", f"V{KEY_BYTES}"), ("checksum", "<u4")])
AT_ONCE = 4096  # rows read from the store at once
BRING_BACK = "headstart repro --force --single-item extract"  # computes only missing features

Floats = npt.NDArray[np.float32]
# The type is KEPT: [n], or [n, networks] for joined networks. Inner blocks are further columns.
Kept = npt.NDArray[Any]


def stop_if_over_limit(views: int, lengths: Iterable[int]) -> None:
    """Check that all vectors of the table fit within the limit of the store on this machine.

    A store in a bucket does not evict the entries of a run, so it is not checked.

    Args:
        views: number of rows of the table.
        lengths: dimensions of the vectors of each network and inner block; 0 if unknown, and then
            not counted.

    Raises:
        ParamsError: the vectors take more than the store's limit.
    """
    limit = default_limit()
    size = sum(views * stored_bytes(4 * length) for length in lengths if length)
    if limit is not None and size > limit and default_address() is None:
        raise ParamsError(
            f"extract.features keys needs {size / 1e9:.2g} GB of vectors in the feature store, but"
            f" store.limit (or HEADSTART_STORE_LIMIT) is {limit / 1e9:.2g} GB; raise it, or set"
            " extract.features to vectors"
        )


def kept(keys: Sequence[bytes], checksums: Mapping[bytes, int]) -> Kept:
    """Return a table [n] of keys, and of the store's checksums of their vectors."""
    table = np.empty(len(keys), KEPT)
    table["key"] = np.frombuffer(b"".join(keys), KEPT["key"])
    table["checksum"] = [checksums[key] for key in keys]
    return table


def columns(table: Kept, blocks: Sequence[str] = ()) -> dict[str, pa.Array]:
    """Convert to the columns of a shard: `key` and `checksum`, then `key_2` and so on.

    The columns of an inner block have its name, such as `key:blocks.4.2`.
    """
    made = {}
    for number, (key, check) in enumerate(_names(table.shape[1] - len(blocks), blocks)):
        of_network = table[:, number]
        made[key] = pa.array(_bytes(of_network), type=pa.binary(KEY_BYTES))
        made[check] = pa.array(np.ascontiguousarray(of_network["checksum"]))
    return made


def is_of_keys(shard: pa.Table) -> bool:
    """Return whether a shard has the columns that the function `columns` makes."""
    return "key" in shard.column_names


def from_columns(shard: pa.Table, blocks: Sequence[str] = ()) -> Kept:
    """Convert the columns that `columns` made back to keys and checksums [n, networks]."""
    networks = sum(name.startswith("key") and ":" not in name for name in shard.column_names)
    table = np.empty((len(shard), networks + len(blocks)), KEPT)
    for number, (key, check) in enumerate(_names(networks, blocks)):
        table["key"][:, number] = np.frombuffer(b"".join(shard[key].to_pylist()), KEPT["key"])
        table["checksum"][:, number] = shard[check].to_numpy()
    return table


def _names(networks: int, blocks: Sequence[str]) -> list[tuple[str, str]]:
    """Return the names of the columns of keys and checksums, of each network and block."""
    further = [f"_{number + 1}" for number in range(1, networks)]
    ends = ["", *further, *(f":{block}" for block in blocks)]
    return [(f"key{end}", f"checksum{end}") for end in ends]


def vectors(
    wanted: Mapping[str, Kept], every: Kept, folder: Path, blocks: int = 0
) -> dict[str, Floats]:
    """Read the features of each split from the store; joined networks are concatenated.

    Args:
        wanted: rows [n, networks] of each split.
        every: all rows of the table [m, networks]; the store records that a run uses them.
        folder: the table's folder, for messages.
        blocks: how many of the columns, the last ones, belong to inner blocks.

    Raises:
        DataError: the store lacks some of them; the text has their number and the command to run.
        StoreError: the store cannot be read.
    """
    needed = [key for rows in wanted.values() for key in _bytes(rows.reshape(-1))]
    found: dict[str, Floats] = {}
    other = 0
    with open_store() as store:
        held = store.held(_bytes(every.reshape(-1)))
        missing = sum(key not in held for key in needed)
        for split, rows in wanted.items() if not missing else ():
            found[split], damaged, differ = _read(rows, store, blocks)
            missing, other = missing + damaged, other + differ
    if missing or other:
        raise DataError(
            f"{folder} needs {len(needed):,} vectors of the feature store"
            f" {default_address() or default_folder()}, which lacks {missing + other:,} of them"
            f"{f' (and has different values for {other:,} of these)' if other else ''}; run"
            f" `{BRING_BACK}`, which computes what is missing, and then run this again"
        )
    length = max((table.shape[1] for table in found.values()), default=0)
    return {
        split: table if len(table) else np.empty((0, length), np.float32)
        for split, table in found.items()
    }


def _read(rows: Kept, store: Store, blocks: int) -> tuple[Floats, int, int]:
    """Read the features of rows; count missing vectors, and vectors with a different checksum.

    If either count is not 0, the features are incomplete.
    """
    missing = other = 0
    table = np.empty((0, 0), np.float32)
    for start in range(0, len(rows), AT_ONCE):
        parts = []
        for of_network in rows[start : start + AT_ONCE].T:
            keys = _bytes(of_network)
            found = store.get(keys)
            missing += sum(key not in found for key in keys)
            expected = dict(zip(keys, of_network["checksum"].tolist(), strict=True))
            other += sum(checksum(key, blob(found[key])) != expected[key] for key in found)
            if not missing:
                parts.append(np.stack([found[key] for key in keys]))
        if missing or other:
            continue
        networks = len(parts) - blocks
        part = joined.with_blocks(parts[:networks], parts[networks:])
        if not start:
            table = empty(len(rows), part.shape[1])
        table[start : start + len(part)] = part
    return table, missing, other


def _bytes(rows: Kept) -> list[bytes]:
    """Return the keys of rows [n]."""
    data = np.ascontiguousarray(rows["key"]).tobytes()
    return [data[at : at + KEY_BYTES] for at in range(0, len(data), KEY_BYTES)]

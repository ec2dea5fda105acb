"""Features named by their keys in the store, with a checksum of each vector (`features: keys`).

What `extract` computed is then kept once, in the feature store. `data/features` says which vectors
these are, to the bit, and the stages behind it read them from there.
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

KEY_BYTES = 16
KEPT = np.dtype([("key", f"V{KEY_BYTES}"), ("checksum", "<u4")])
AT_ONCE = 4096  # rows that are read from the store together
BRING_BACK = "dvc repro --force --single-item extract"  # computes only what is missing

Floats = npt.NDArray[np.float32]
Kept = npt.NDArray[Any]  # of type KEPT: [n], or [n, networks] if networks are joined


def stop_if_over_limit(views: int, lengths: Iterable[int]) -> None:
    """Check that the store on this machine may hold all vectors that the table names.

    In a bucket, what a run requested is not evicted.

    Args:
        views: rows of the table.
        lengths: of each network's vectors; 0 is not known, and counts nothing.

    Raises:
        ParamsError: they take more than the store's limit.
    """
    limit = default_limit()
    size = sum(views * stored_bytes(4 * length) for length in lengths if length)
    if limit is not None and size > limit and default_address() is None:
        raise ParamsError(
            f"extract.features keys needs {size / 1e9:.2g} GB of vectors in the feature store, and"
            f" store.limit (or HEADSTART_STORE_LIMIT) is {limit / 1e9:.2g} GB; raise it, or set"
            " extract.features to vectors"
        )


def kept(keys: Sequence[bytes], checksums: Mapping[bytes, int]) -> Kept:
    """The keys, and the store's checksums of their vectors, [n]."""
    table = np.empty(len(keys), KEPT)
    table["key"] = np.frombuffer(b"".join(keys), KEPT["key"])
    table["checksum"] = [checksums[key] for key in keys]
    return table


def columns(table: Kept) -> dict[str, pa.Array]:
    """The columns of a shard that hold them: `key` and `checksum`, then `key_2` and so on."""
    made = {}
    for number in range(table.shape[1]):
        key, checksum = _names(number)
        of_network = table[:, number]
        made[key] = pa.array(_bytes(of_network), type=pa.binary(KEY_BYTES))
        made[checksum] = pa.array(np.ascontiguousarray(of_network["checksum"]))
    return made


def is_of_keys(shard: pa.Table) -> bool:
    """Whether a shard holds keys, as `columns` made them."""
    return _names(0)[0] in shard.column_names


def from_columns(shard: pa.Table) -> Kept:
    """What `columns` made, [n, networks]."""
    networks = sum(name.startswith("key") for name in shard.column_names)
    table = np.empty((len(shard), networks), KEPT)
    for number in range(networks):
        key, checksum = _names(number)
        table["key"][:, number] = np.frombuffer(b"".join(shard[key].to_pylist()), KEPT["key"])
        table["checksum"][:, number] = shard[checksum].to_numpy()
    return table


def _names(number: int) -> tuple[str, str]:
    """The columns of a network's keys and checksums."""
    return ("key", "checksum") if not number else (f"key_{number + 1}", f"checksum_{number + 1}")


def vectors(wanted: Mapping[str, Kept], every: Kept, folder: Path) -> dict[str, Floats]:
    """The features of each split from the store, those of joined networks side by side.

    Args:
        wanted: rows [n, networks] of each split.
        every: all rows of the table [m, networks]; the store notes that a run uses them.
        folder: of the table, for messages.

    Raises:
        DataError: the store lacks some; it says how many, and the command that computes them.
        StoreError: the store cannot be read.
    """
    needed = [key for rows in wanted.values() for key in _bytes(rows.reshape(-1))]
    found: dict[str, Floats] = {}
    other = 0
    with open_store() as store:
        held = store.held(_bytes(every.reshape(-1)))
        missing = sum(key not in held for key in needed)
        for split, rows in wanted.items() if not missing else ():
            found[split], damaged, differ = _read(rows, store)
            missing, other = missing + damaged, other + differ
    if missing or other:
        raise DataError(
            f"{folder} names {missing + other:,} vectors that are not in the feature store"
            f" {default_address() or default_folder()}, of {len(needed):,} that are needed"
            f"{f' ({other:,} are others there)' if other else ''}; run `{BRING_BACK}`, which"
            " computes what is missing, and then run this again"
        )
    length = max((table.shape[1] for table in found.values()), default=0)
    return {
        split: table if len(table) else np.empty((0, length), np.float32)
        for split, table in found.items()
    }


def _read(rows: Kept, store: Store) -> tuple[Floats, int, int]:
    """The features of these rows; how many vectors are missing, and how many are others.

    If there are any of these, the features are not whole.
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
        part = joined.beside(parts)
        if not start:
            table = np.empty((len(rows), part.shape[1]), np.float32)
        table[start : start + len(part)] = part
    return table, missing, other


def _bytes(rows: Kept) -> list[bytes]:
    """The keys of rows [n]."""
    data = np.ascontiguousarray(rows["key"]).tobytes()
    return [data[at : at + KEY_BYTES] for at in range(0, len(data), KEY_BYTES)]

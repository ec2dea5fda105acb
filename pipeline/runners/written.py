"""What the shards of the last run hold, so that `extract` reads only new vectors from the store.

After a small change, most shards stay as they are, and the others get a few more rows. Reading all
vectors from the store would take most of the time. So `extract` notes for each shard which rows it
has, and the file's inode, size and mtime, by which DVC too knows whether a file has changed. The
note is an entry of the store on this machine, and is valid for a day. After that, all vectors are
read, which also counts as their use.
"""

import json
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ..core.errors import DataError, StoreError
from ..store.interface import Store
from ..store.vectors import FeatureStore, open_local
from ..tables import by_key, features, joined
from ..tables.layers import Layers
from .threads import key_columns

VALID_S = 86_400


class Rows(NamedTuple):
    """Rows that a shard has: a mask of the rows that it should have [n], and features [k, d]."""

    mask: NDArray[np.bool_]
    features: NDArray[np.float32]

    def with_new(self, others: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the features of all rows [n, d], from those of the other rows [n - k, d]."""
        every = np.empty((len(self.mask), others.shape[1]), np.float32)
        every[self.mask], every[~self.mask] = self.features, others
        return every


class Written:
    """What is known about the shards in a folder."""

    def __init__(self, folder: Path, counts: bool, layers: Layers) -> None:
        """Read the note about `folder`; shards depend on `counts`, `layers` and their rows."""
        self._folder, self._layers, self._began = folder, layers, time.time()
        code = [Path(str(one.__file__)).read_bytes() for one in (features, by_key, joined)]
        known = f"{folder.absolute()}\n{(counts, layers)}\n{pa.__version__}\n".encode()
        self._key = blake2b(known + b"".join(code), digest_size=16, person=b"shards").digest()
        self._noted: dict[str, Any] = {}
        self._rows: dict[str, str] = {}  # of this run
        with suppress(StoreError), open_local() as store:
            for numbers in store.get([self._key]).values():
                noted = json.loads(numbers.tobytes())
                if 0 <= self._began - noted["began"] < VALID_S:
                    self._began, self._noted = noted["began"], noted["shards"]

    def holds(self, shard: str, tables: Sequence[pd.DataFrame]) -> bool:
        """Return whether a shard has the rows of `tables`, one table for each network."""
        self._rows[shard] = _digest(tables)
        stamp = _stamp(self._folder / shard)
        return stamp is not None and self._noted.get(shard) == [self._rows[shard], stamp]

    def before(self, shard: str, tables: Sequence[pd.DataFrame]) -> Rows | None:
        """Return the rows of `tables` that a shard has; None if it has others, or is not known."""
        file = self._folder / shard
        rows, stamp = self._noted.get(shard, ("", ""))
        if stamp != _stamp(file):
            return None
        with suppress(DataError):  # then all of its rows are read from the store
            digests, views, parts = features.read_shard(file, self._layers[1:])
            there = set(zip(digests, views.tolist(), strict=True))
            wanted = zip(tables[0]["digest"], tables[0]["view"], strict=True)
            mask = np.fromiter((row in there for row in wanted), bool, len(tables[0]))
            if _digest([table[mask] for table in tables]) == rows:
                return Rows(mask, np.concatenate(parts, axis=1))
        return None

    def note(self, store: Store) -> None:
        """Note the shards as they are now; without a store, the next run writes them again.

        Args:
            store: the store of this run. If it is on this machine, the note is written through it:
                another store object could evict what this run has used.
        """
        shards = {name: [rows, _stamp(self._folder / name)] for name, rows in self._rows.items()}
        if shards == self._noted:
            return
        text = json.dumps({"began": self._began, "shards": shards}).encode()
        padded = text.ljust(-(-len(text) // 4) * 4)
        with suppress(StoreError):
            here: AbstractContextManager[Store] = (
                nullcontext(store) if isinstance(store, FeatureStore) else open_local()
            )
            with here as local:
                local.put({self._key: np.frombuffer(padded, np.float32)})


def _digest(tables: Sequence[pd.DataFrame]) -> str:
    rows = blake2b(digest_size=16)
    for table in tables:
        rows.update(json.dumps([table["digest"].tolist(), table["view"].tolist()]).encode())
        for column in key_columns(table):
            rows.update(b"".join(table[column]))
    return rows.hexdigest()


def _stamp(file: Path) -> str | None:
    try:
        it = os.stat(file)  # noqa: PTH116 (faster than Path.stat)
    except OSError:
        return None
    return f"{it.st_ino} {it.st_size} {it.st_mtime_ns}"

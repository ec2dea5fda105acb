"""Shards that `extract` need not write again, because they have these rows already.

After a small change, most shards stay as they are, and reading their vectors from the store is most
of what `extract` does. So it notes for each shard which rows it has, and the file's inode, size and
mtime, by which DVC too knows whether a file has changed. The note is an entry of the store on this
machine, and holds for a day: then all vectors are read, which also counts as their use.
"""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ..core.errors import StoreError
from ..store.vectors import open_local
from ..tables import by_key, features, joined
from .threads import key_columns

VALID_S = 86_400


class Written:
    """What is known about the shards in a folder."""

    def __init__(self, folder: Path, made_by: object) -> None:
        """Read the note about `folder`; `made_by` is what shards depend on, beside their rows."""
        self._folder, self._began = folder, time.time()
        code = [Path(str(one.__file__)).read_bytes() for one in (features, by_key, joined)]
        known = f"{folder.absolute()}\n{made_by}\n{pa.__version__}\n".encode() + b"".join(code)
        self._key = blake2b(known, digest_size=16, person=b"shards").digest()
        self._noted: dict[str, Any] = {}
        self._rows: dict[str, str] = {}  # of this run
        with suppress(StoreError), open_local() as store:
            for numbers in store.get([self._key]).values():
                noted = json.loads(numbers.tobytes())
                if 0 <= self._began - noted["began"] < VALID_S:
                    self._began, self._noted = noted["began"], noted["shards"]

    def holds(self, shard: str, tables: Sequence[pd.DataFrame]) -> bool:
        """Return whether a shard has the rows of `tables`, one table for each network."""
        rows = blake2b(digest_size=16)
        for table in tables:
            rows.update(json.dumps([table["digest"].tolist(), table["view"].tolist()]).encode())
            for column in key_columns(table):
                rows.update(b"".join(table[column]))
        self._rows[shard] = rows.hexdigest()
        stamp = _stamp(self._folder / shard)
        return stamp is not None and self._noted.get(shard) == [self._rows[shard], stamp]

    def note(self) -> None:
        """Note the shards as they are now; without a store, the next run writes them again."""
        shards = {name: [rows, _stamp(self._folder / name)] for name, rows in self._rows.items()}
        if shards == self._noted:
            return
        text = json.dumps({"began": self._began, "shards": shards}).encode()
        padded = text.ljust(-(-len(text) // 4) * 4)
        with suppress(StoreError), open_local() as store:
            store.put({self._key: np.frombuffer(padded, np.float32)})


def _stamp(file: Path) -> str | None:
    try:
        it = os.stat(file)  # noqa: PTH116 (faster than Path.stat)
    except OSError:
        return None
    return f"{it.st_ino} {it.st_size} {it.st_mtime_ns}"

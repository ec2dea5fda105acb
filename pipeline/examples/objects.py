"""Examples that are objects in a bucket, as named in a listing on this machine.

The listing is a Parquet file: one row per object, sorted by `key`, with its `etag` and its `size`
in bytes. The keys are relative to a prefix, whose address is in the file's metadata. `headstart
list` writes the file. The path of an example is the path of the listing, `#` and the key (as in
`rows.py`), so the manifest does not name the server.
"""

import itertools
import threading
from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..core import buckets
from ..core.buckets import Object
from ..core.errors import DataError, RefusedError

LISTING = "listing.s3.parquet"
ROOT = b"address"  # a key of the file's metadata
COLUMNS = ("key", "etag", "size")
READERS = 16  # objects that are read at a time, since most of the time goes into network latency
AT_ONCE = 10_000  # objects per batch from Arrow's columns

_one_opens = threading.Lock()


class Objects:
    """A listing in memory, as columns of Arrow; a key is found by bisection.

    Ten million objects take a gigabyte; a dictionary would take several.
    """

    def __init__(self, file: Path) -> None:
        """Read the listing.

        Raises:
            DataError: the file is not a listing.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(file)
            table.validate(full=True)  # for example, that keys are UTF-8
            columns, metadata = table.column_names, table.schema.metadata or {}
            address = metadata.get(ROOT, b"").decode()
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{file} cannot be read as Parquet: {reason}; run `headstart list` to write it"
                " again"
            ) from None
        if ROOT not in metadata or columns != list(COLUMNS):
            raise DataError(
                f"{file} is not a listing of a bucket; run `headstart list` to write it again"
            )
        self.table = table
        self.address: str = buckets.tidied(address)
        self._keys, self._etags, self._sizes = (_whole(table[name]) for name in COLUMNS)

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self._keys)

    def __iter__(self) -> Iterator[Object]:
        """Yield the objects in the order of their keys."""
        for some in self.table.to_batches(max_chunksize=AT_ONCE):
            yield from itertools.starmap(Object, zip(*some.to_pydict().values(), strict=True))

    def named(self, key: str) -> Object | None:
        """Return the object with this key, or None if it is not listed."""
        place = bisect_left(range(len(self)), key, key=lambda at: self._keys[at].as_py())
        if place == len(self) or self._keys[place].as_py() != key:
            return None
        columns = (self._keys, self._etags, self._sizes)
        return Object(*(column[place].as_py() for column in columns))

    def identity(self, listed: Object) -> bytes:
        """Return 16 bytes that change if the object's address, ETag or size changes."""
        content = "\n".join([f"{self.address}/{listed.key}", listed.etag, str(listed.size)])
        return blake2b(content.encode(), digest_size=16).digest()


def is_listing(file: Path) -> bool:
    """Return whether the file is a listing, according to its name."""
    return file.name == LISTING


def opened(file: Path) -> Objects:
    """Return the listing, which is read again only if the file changed.

    Raises:
        DataError: the listing cannot be read.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror or error})") from None
    with _one_opens:
        return _opened(file, (status.st_mtime_ns, status.st_size))


def size(file: Path, key: str) -> int:
    """Return an object's size in bytes from the listing; 0 if the object is not listed."""
    found = opened(file).named(key)
    return found.size if found else 0


def load(file: Path, key: str, most_bytes: int) -> bytes:
    """Return the bytes of an object, if it has not changed since it was listed.

    Raises:
        RefusedError: the object is not listed, too large or empty, or access to it is denied.
        ChangedError: the object has changed, or does not exist any more.
        DataError: the listing or the bucket cannot be read.
    """
    listing = opened(file)
    found = listing.named(key)
    if found is None:
        raise RefusedError(f"not listed in {file}")
    if found.size > most_bytes:
        raise RefusedError(
            f"too large: {found.size / 1e6:,.0f} MB, at most {most_bytes / 1e6:.0f} MB"
        )
    if not found.size:
        raise RefusedError("empty object")
    return buckets.read(listing.address, found)


@lru_cache(maxsize=2)
def _opened(file: Path, stamp: tuple[int, int]) -> Objects:
    return Objects(file)


def _whole(column: Any) -> Any:
    """Return a column as one chunk."""
    import pyarrow as pa

    return pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)

"""The feature store in a bucket, shared by many machines: immutable shards, no server.

A `put` writes one new object, a shard (`shards.py`); S3 writes objects atomically. A process reads
the heads of all shards once and keeps an index of their keys in memory (`index.py`). The process
that holds the lock merges small shards into large ones (`committer.py`).

Guarantees, and how they are kept:

- Crashes: nothing that was put is lost, because a merged shard is written before its source shards
  are deleted. The duplicates until then do no harm.
- Corruption: every vector has a CRC-32 over key and value; if it does not match, the entry counts
  as missing. Damaged entries are dropped when their shard is merged, at the end of the run that
  found them.
- Concurrency: no machine waits for another.
- A full or read-only bucket: `put` raises a `StoreError`, earlier entries stay, and reading still
  works.
- Size: if the limit is exceeded, entries that no run of the last `committer.KEPT` requested are
  evicted.
"""

import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any, NamedTuple

from ..core import buckets
from ..core.errors import StoreError
from . import shards
from .committer import Committer
from .index import Index
from .interface import Feature, blob, checksum

LAYOUT = 1  # raise when the format of shards, the checksum or the format of keys change
AT_ONCE = 16  # requests
JOINED_AFTER = 256  # puts of a process between two merges
LOOKS = 5  # at most, while other processes merge shards


class Held(NamedTuple):
    """The size of a store: entries (duplicates counted), shards and bytes."""

    entries: int
    shards: int
    bytes: int


class SharedStore:
    """A store of features in a bucket; use it in a `with` block. Threads may share it.

    Every method raises `StoreError` if the bucket cannot be read or written.
    """

    def __init__(self, address: str, limit_bytes: int | None) -> None:
        """Open the store at s3://BUCKET/PREFIX; without a limit if `limit_bytes` is None.

        Raises:
            DataError: the AWS configuration cannot be used.
            MissingSetError: the extra for buckets is not installed.
        """
        self.address = f"{address}/features-v{LAYOUT}"
        self.limit_bytes = limit_bytes
        self.damaged = 0  # entries whose checksum failed so far
        self._client = buckets.opened(self.address)
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._turn = threading.RLock()  # protects memory, is not held during requests
        self._looking = threading.Lock()
        self._index = Index()
        self._looked = False
        self._asked: list[bytes] = []  # keys requested from `held`, not yet in a listing
        self._puts = 0
        self._sick: set[str] = set()  # shards with damaged entries
        self._committer = Committer(self._client, self.limit_bytes, self._pool)

    def __enter__(self) -> "SharedStore":
        """Return the store itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the store; send no more requests if an error ended the run."""
        if error[0]:
            self._pool.shutdown()
        else:
            self.close()

    def close(self) -> None:
        """Close the store; merge shards if this process wrote some lately, or found damage."""
        try:
            if self._puts % JOINED_AFTER or self._sick:
                self._join()
        finally:
            self._pool.shutdown()

    def held(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return the `keys` that have an entry; entries are not verified.

        The next `get`, `checksums` or `put` records the keys as used by this run, so that they are
        not evicted.
        """
        self._look()
        if not keys:
            return set()
        with self._turn:
            self._asked += keys
            found = self._index.find(keys)
        if sum(len(places) for places, _ in found.values()) == len(keys):
            return set(keys)
        return {keys[at] for places, _ in found.values() for at in places.tolist()}

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Feature]:
        """Return the features of `keys`, read-only float32 vectors; missing keys are left out.

        `damaged` counts damaged entries; their keys are left out if no other shard has them.
        """
        self._write_asked()
        if not self._looked:
            self._look()
        found: dict[bytes, Feature] = {}
        looked_again = False
        while missing := [key for key in dict.fromkeys(keys) if key not in found]:
            with self._turn:
                places = self._index.find(missing)
                heads = {name: self._index.heads[name] for name in places}
            asked = [
                self._pool.submit(
                    self._read, name, heads[name], [missing[at] for at in which], rows
                )
                for name, (which, rows) in places.items()
            ]
            states = [one.result() for one in asked]
            for vectors, _ in states:
                found |= vectors
            if any(state == "gone" for _, state in states) and not looked_again:
                self._look()  # the shards were merged, so their entries are elsewhere
                looked_again = True
            elif all(state == "sound" for _, state in states):
                break
        return found

    def checksums(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Return the stored checksums of `keys` without a request for each; this is not a use.

        Missing keys are left out. Only `get` detects damaged entries.
        """
        self._write_asked()
        if not self._looked:
            self._look()
        if not keys:
            return {}
        with self._turn:
            places = self._index.find(keys)
            return {
                keys[at]: value
                for name, (which, rows) in places.items()
                for at, value in zip(
                    which.tolist(), self._index.heads[name].checksums[rows].tolist(), strict=True
                )
            }

    def put(self, entries: Mapping[bytes, Feature]) -> None:
        """Store float32 vectors of any length under their keys, either all or none.

        Raises:
            ValueError: a value is not a float32 vector.
            StoreError: the bucket is full, or this user may not write to it.
        """
        blobs = {key: blob(value) for key, value in entries.items()}
        if not blobs:
            return
        self._write_asked()
        name, data = shards.made(blobs)
        self._write(f"shards/{name}", data)
        head = shards.head(name, data)
        assert head is not None  # noqa: S101 - it was just made
        with self._turn:
            self._index.add({name: head})
            self._puts += 1
            join = self._puts % JOINED_AFTER == 0
        if join:
            self._join()

    def statistics(self) -> Held:
        """Return the current size of the store."""
        found = self._attempt(self._committer.listed)
        entries = sum(shards.rows_of(one.name) or 0 for one in found)
        return Held(entries, len(found), sum(one.size for one in found))

    # Reading and writing.

    def _look(self) -> None:
        """List the shards, and read the heads of new ones."""
        with self._looking:
            # A listed shard may have been merged before its head is read; then list again.
            for _ in range(LOOKS):
                if self._look_once():
                    break
            self._looked = True

    def _look_once(self) -> bool:
        """Update the index; return whether every listed shard could still be read."""
        with self._turn:
            known = set(self._index.heads)
        there = {one.name: one.size for one in self._attempt(self._committer.listed)}
        new = [name for name in there if name not in known and name not in self._sick]
        read = self._pool.map(lambda name: self._head(name, there[name]), new)
        heads = dict(zip(new, read, strict=True))
        with self._turn:
            self._index.forget(known - there.keys())
            self._index.add({name: head for name, head in heads.items() if head})
            return all(head or name in self._sick for name, head in heads.items())

    def _head(self, name: str, size: int) -> shards.Head | None:
        """Read the head of a shard; None if the shard is deleted or damaged, which is recorded."""
        from obstore import get_range

        end = min(size, shards.head_bytes(shards.rows_of(name) or 0))
        try:
            data = self._attempt(
                lambda: bytes(get_range(self._client, f"shards/{name}", start=0, end=end)),
                path=f"shards/{name}",
            )
        except FileNotFoundError:
            return None
        found = shards.head(name, data)
        if found is None:
            with self._turn:
                self._sick.add(name)
        return found

    def _read(
        self, name: str, head: shards.Head, keys: list[bytes], rows: Any
    ) -> tuple[dict[bytes, Feature], str]:
        """Return the shard's intact entries among `keys`, and its state: sound, damaged or gone."""
        from obstore import get_ranges

        starts, ends = head.places(rows)
        order = sorted(range(len(keys)), key=starts.__getitem__)
        begins, stops = [starts[i] for i in order], [ends[i] for i in order]
        try:
            parts = self._attempt(
                lambda: get_ranges(self._client, f"shards/{name}", starts=begins, ends=stops),
                path=f"shards/{name}",
            )
        except FileNotFoundError:
            with self._turn:
                self._index.forget({name})
            return {}, "gone"
        found: dict[bytes, Feature] = {}
        bad = []
        for i, part in zip(order, parts, strict=True):
            value = bytes(part)
            if checksum(keys[i], value) == head.checksums[rows[i]]:
                found[keys[i]] = shards.vector(value)
            else:
                bad.append(int(rows[i]))
        if not bad:
            return found, "sound"
        with self._turn:
            self.damaged += len(bad)
            self._sick.add(name)
            for row in bad:
                self._index.mark(name, row)
        return found, "damaged"

    def _write(self, path: str, data: bytes) -> None:
        from obstore import put

        self._attempt(lambda: put(self._client, path, data, use_multipart=False), "written")

    def _write_asked(self) -> None:
        """Record which keys this run requested, so that they are not evicted.

        Errors are ignored, because a run without write access does not evict anything either.
        """
        with self._turn:
            keys, self._asked = self._asked, []
        if not keys:
            return
        data = b"".join(sorted(set(keys)))  # `held` may have been called twice
        name = blake2b(data, digest_size=16).hexdigest()
        from obstore import exceptions, put

        try:
            put(self._client, f"listings/{name}", data, use_multipart=False)
        except (OSError, exceptions.BaseError, ValueError):
            return

    def _join(self) -> None:
        try:
            gone = self._attempt(lambda: self._committer.join(set(self._sick)), "written")
        except StoreError as error:
            print(f"store: warning: small shards are not joined: {error}", file=sys.stderr)
            return
        with self._turn:
            self._sick.clear()
            self._index.forget(gone & self._index.heads.keys())
            self._looked = self._looked and not gone

    def _attempt(self, work: Any, what: str = "searched", path: str = "") -> Any:
        """Do `work` on the object at `path`, or on the whole store, and convert errors.

        Raises:
            StoreError: a one-line error for the server's response.
            FileNotFoundError: the object does not exist.
        """
        from obstore import exceptions

        try:
            return work()
        except FileNotFoundError as error:
            if "NoSuchBucket" not in str(error):
                raise
            raise self._problem(error, what, path) from None
        except (OSError, exceptions.BaseError, ValueError) as error:
            raise self._problem(error, what, path) from None

    def _problem(self, error: Exception, what: str, path: str) -> StoreError:
        reason = buckets.in_words(error, f"{self.address}/{path}".rstrip("/"), what)
        return StoreError(f"the feature store failed: {reason}; its entries are kept")

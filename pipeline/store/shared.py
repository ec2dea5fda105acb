"""The feature store in a bucket, shared by many machines: shards that never change, no server.

A `put` is one new object, a shard (`shards.py`); S3 shows all of an object or none of it. Which
keys are held is seen from the heads of all shards, which a process reads once and keeps in memory
(`index.py`). Small shards are joined to large ones by whoever has the turn (`committer.py`).

What is promised, and by what:

- Killed at any moment: nothing that was put is lost, for a joined shard is there before those that
  it was made of go. What is there twice meanwhile is found once.
- Damage: every vector has a CRC-32 over key and value, and one that fails counts as missing. It is
  left out when its shard is joined, at the end of the run that found it.
- Several machines: nobody waits for anybody.
- A full bucket, or one that may not be written: `put` raises a `StoreError`, what was put before
  stays, and reading goes on.
- The limit: when it is exceeded, what goes is what no run of the last `committer.KEPT` requested.
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

LAYOUT = 1  # raise when the form of a shard, the checksum or the form of the key change
AT_ONCE = 16  # requests
JOINED_AFTER = 256  # puts of a process
LOOKS = 5  # at most, while others join shards


class Held(NamedTuple):
    """What a store holds: entries, some perhaps twice, the shards they are in, and their bytes."""

    entries: int
    shards: int
    bytes: int


class SharedStore:
    """A store of features in a bucket; use it in a `with` block. Threads may share it.

    Every method raises `StoreError` if the bucket cannot be read or written.
    """

    def __init__(self, address: str, limit_bytes: int | None) -> None:
        """Open the store below an address s3://BUCKET/PREFIX; `limit_bytes` None: no limit.

        Raises:
            MissingSetError: the set of packages for buckets is not installed.
        """
        self.address = f"{address}/features-v{LAYOUT}"
        self.limit_bytes = limit_bytes
        self.damaged = 0  # entries whose checksum failed so far
        self._client = buckets.opened(self.address)
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._turn = threading.RLock()  # of what is in memory, not of requests
        self._looking = threading.Lock()
        self._index = Index()
        self._looked = False
        self._asked: list[bytes] = []  # keys requested from `held`, not yet written down
        self._puts = 0
        self._sick: set[str] = set()  # shards in which something is damaged
        self._committer = Committer(self._client, self.limit_bytes, self._pool)

    def __enter__(self) -> "SharedStore":
        """The store itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the store; if an error ends the run, nothing more is asked of the server."""
        if error[0]:
            self._pool.shutdown()
        else:
            self.close()

    def close(self) -> None:
        """Join small shards, if this process wrote some or found damage."""
        try:
            if self._puts % JOINED_AFTER or self._sick:
                self._join()
        finally:
            self._pool.shutdown()

    def held(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of `keys` that have an entry, without checking it.

        If a `get` or `put` follows, the keys are written down as those of a run, and are not
        evicted.
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
        """The features found for `keys`: read-only float32 vectors; the missing are left out.

        A damaged entry is counted in `damaged`, and left out if no other shard has the key.
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
                self._look()  # they were joined, and are elsewhere now
                looked_again = True
            elif all(state == "sound" for _, state in states):
                break
        return found

    def checksums(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """The checksums of the vectors of `keys`, without reading these; counts as a use.

        The missing are left out. A damaged entry shows only on `get`.
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
        """Store float32 vectors of any length under their keys, all of them or none.

        Raises:
            ValueError: a value is not a float32 vector.
            StoreError: no room, or the bucket may not be written.
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
        """What there is at this moment."""
        found = self._attempt(self._committer.listed)
        entries = sum(shards.rows_of(one.name) or 0 for one in found)
        return Held(entries, len(found), sum(one.size for one in found))

    # Reading and writing.

    def _look(self) -> None:
        """See which shards there are, and read the heads of those that are new."""
        with self._looking:
            # A shard that is listed may have been joined before its head is read: look again.
            for _ in range(LOOKS):
                if self._look_once():
                    break
            self._looked = True

    def _look_once(self) -> bool:
        """Whether every shard that was listed was there."""
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
        """The head of a shard; None: it is gone, or damaged, which is noted."""
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
        """The sound ones of these entries of a shard; whether it is sound, damaged or gone."""
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
        """Write down which keys this run requested, so that they are not evicted.

        If this is denied, nothing is raised: who may not write evicts nothing either.
        """
        with self._turn:
            keys, self._asked = self._asked, []
        if not keys:
            return
        data = b"".join(sorted(set(keys)))  # `held` may have been asked twice
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
        """Do `work`, which is on the object at `path`, or on the whole store.

        Raises:
            StoreError: the one line for what the server answered.
            FileNotFoundError: there is no such object.
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
        return StoreError(f"the feature store: {reason}; what it holds is kept")

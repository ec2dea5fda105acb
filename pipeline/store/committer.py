"""Merge small shards into large ones, and evict unused entries if the limit is exceeded.

One process at a time does this: the one that created the object `committer`. The lock only saves
work: two processes at once would write entries twice, but lose none. A merged shard is written
before its source shards are deleted, so a process that is killed in between leaves duplicates, but
loses nothing.

Each run records the keys that it requested, such as those of `data/features`, in an object
`listings/HASH`. Every run that requests the same keys writes it again, so its modification time
is the time of the last use. Keys in a listing younger than `KEPT` are never evicted. All compared
times are the server's.
"""

import sys
from collections.abc import Iterable
from concurrent.futures import Executor
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import shards

LARGE = 2**25  # bytes; shards of at least this size are not merged
MOST = 2**26  # bytes of a merged shard, roughly
SMALL_ONES = 64  # small shards that may exist before they are merged
TURN = timedelta(minutes=10)  # after which the holder of the lock is assumed dead
KEPT = timedelta(days=30)
EVICT_DOWN_TO = 0.95  # of the limit


class Listed(NamedTuple):
    """A shard of the bucket: its name, size in bytes and time of writing by the server's clock."""

    name: str
    size: int
    written: datetime


class Committer:
    """Merges shards and evicts entries in one bucket. Its methods raise obstore's exceptions."""

    def __init__(self, client: Any, limit: int | None, pool: Executor) -> None:
        """Prepare, without a request; `limit` is in bytes, and `pool` runs the requests."""
        self._client, self._limit, self._pool = client, limit, pool

    def listed(self) -> list[Listed]:
        """List all shards of the bucket, in the order in which they were written."""
        found = [
            Listed(one["path"].rpartition("/")[2], one["size"], one["last_modified"])
            for one in self._objects("shards")
        ]
        sound = (one for one in found if shards.rows_of(one.name))
        return sorted(sound, key=lambda one: (one.written, one.name))

    def join(self, sick: set[str]) -> set[str]:
        """Merge damaged shards, and small ones if there are many; evict if the limit is exceeded.

        Returns:
            the names of the deleted shards.
        """
        listed = self.listed()
        exceeds = self._limit is not None and sum(one.size for one in listed) > self._limit
        small = [one for one in listed if one.size < LARGE or one.name in sick]
        if len(small) <= SMALL_ONES:
            small = [one for one in small if one.name in sick]
        if not (small or exceeds) or not self._take_turn(listed):
            return set()
        try:
            self._delete(["none"])  # without permission to delete, merging would only duplicate
            gone: set[str] = set()
            thinned: set[str] = set()
            named = np.empty(0, np.uint64)
            if exceeds:
                named = self._named()
                gone, thinned = self._evict(listed, named)
                small = [one for one in listed if one in small or one.name in thinned]
            left = [one for one in small if one.name not in gone]
            return gone | self._rewrite(left, thinned, named)
        finally:
            self._delete(["committer"])

    def _take_turn(self, listed: list[Listed]) -> bool:
        from obstore import exceptions, head, put

        try:
            put(self._client, "committer", b"", mode="create", use_multipart=False)
        except exceptions.AlreadyExistsError:
            try:
                since = head(self._client, "committer")["last_modified"]
            except FileNotFoundError:
                return False  # the other process has just finished
            if not listed or listed[-1].written - since < TURN:
                return False
            put(self._client, "committer", b"", use_multipart=False)
        return True

    def _rewrite(self, small: list[Listed], thinned: set[str], named: shards.Numbers) -> set[str]:
        """Write the intact entries of `small` to large shards, and delete the shards in `small`."""
        gone: set[str] = set()
        done: list[str] = []
        entries: dict[bytes, bytes] = {}
        size = 0
        for start in range(0, len(small), SMALL_ONES):
            some = small[start : start + SMALL_ONES]
            for one, data in zip(some, self._pool.map(self._whole, some), strict=True):
                if data is None:
                    continue
                found = shards.entries(one.name, data)
                if one.name in thinned and found:
                    kept = _is_in(shards.as_numbers(list(found)), named)
                    found = {key: found[key] for key, keep in zip(found, kept, strict=True) if keep}
                entries |= found
                size += len(data)
                done.append(one.name)
                if size >= MOST:
                    gone |= self._replace(done, entries)
                    entries, done, size = {}, [], 0
        return gone | self._replace(done, entries)

    def _replace(self, names: list[str], entries: dict[bytes, bytes]) -> set[str]:
        from obstore import put

        gone = set(names)
        if entries:
            name, data = shards.made(entries)
            put(self._client, f"shards/{name}", data, use_multipart=False)
            gone.discard(name)  # a shard with the same keys in another order
        self._delete(f"shards/{name}" for name in gone)
        return gone

    def _evict(self, listed: list[Listed], named: shards.Numbers) -> tuple[set[str], set[str]]:
        """Delete shards that no recent run requested, oldest first, down to 95 % of the limit.

        Returns:
            the names of the deleted shards, and of the shards that have to be rewritten without
            some entries.
        """
        from obstore import get_range

        limit = self._limit or 0
        size = sum(one.size for one in listed)
        gone: set[str] = set()
        thinned: set[str] = set()
        for one in listed:
            if size <= EVICT_DOWN_TO * limit:
                break
            rows = shards.rows_of(one.name) or 1
            end = min(one.size, shards.head_bytes(rows))
            try:
                data = bytes(get_range(self._client, f"shards/{one.name}", start=0, end=end))
            except FileNotFoundError:  # another process has merged or evicted it
                size -= one.size
                continue
            head = shards.head(one.name, data)
            kept = 0 if head is None else int(_is_in(head.keys, named).sum())
            if kept == rows:
                continue
            (thinned if kept else gone).add(one.name)
            size -= one.size * (rows - kept) // rows
        self._delete(f"shards/{name}" for name in gone)
        if size > limit:
            print(
                f"store: the runs of the last {KEPT.days} days use more than the limit of"
                f" {limit / 1e9:g} GB, so nothing more is deleted; to change the limit, set"
                " store.limit in params.yaml (or HEADSTART_STORE_LIMIT)",
                file=sys.stderr,
            )
        return gone, thinned

    def _named(self) -> shards.Numbers:
        """Return the first halves of the keys in recent listings, sorted; delete old listings."""
        from obstore import get, head

        now = head(self._client, "committer")["last_modified"]
        listings = self._objects("listings")
        old = [one["path"] for one in listings if now - one["last_modified"] > KEPT]
        self._delete(old)
        young = [one["path"] for one in listings if one["path"] not in old]
        read = self._pool.map(lambda path: bytes(get(self._client, path).bytes()), young)
        halves = [np.frombuffer(data, ">u8")[::2].astype(np.uint64) for data in read]
        return np.unique(np.concatenate([np.empty(0, np.uint64), *halves]))

    def _whole(self, one: Listed) -> bytes | None:
        from obstore import get

        try:
            return bytes(get(self._client, f"shards/{one.name}").bytes())
        except FileNotFoundError:
            return None  # another process has merged it

    def _objects(self, folder: str) -> list[Any]:
        from obstore import list as listing

        return [one for page in listing(self._client, folder, chunk_size=1000) for one in page]

    def _delete(self, paths: Iterable[str]) -> None:
        from obstore import delete

        if some := list(paths):
            delete(self._client, some)


def _is_in(keys: shards.Numbers, named: shards.Numbers) -> npt.NDArray[np.bool_]:
    """Return which keys [n, 2] are in `named`, comparing first halves: it may keep too many."""
    return np.isin(keys[:, 0], named)

"""The in-memory index from keys to shards: 56 bytes per entry."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .shards import Head, as_numbers

Places = npt.NDArray[np.int64]


class Index:
    """The keys of all known shards. A key may be in several shards."""

    def __init__(self) -> None:
        """Start without shards."""
        self.heads: dict[str, Head] = {}
        self._names: list[str] = []  # of shards; `_shards` has positions in this list
        self._sorted = 0  # how many of `_names` are in the arrays below
        self._firsts = np.empty(0, np.uint64)  # the first half of each key, sorted
        self._seconds = np.empty(0, np.uint64)
        self._shards = np.empty(0, np.int32)
        self._rows = np.empty(0, np.int32)
        self._bad: set[tuple[int, int]] = set()  # shard and row of damaged entries

    def add(self, heads: dict[str, Head]) -> None:
        """Add shards, or replace those with the same names."""
        self.forget(self.heads.keys() & heads.keys())
        self.heads |= heads
        self._names += heads

    def forget(self, names: set[str]) -> None:
        """Remove shards from the index."""
        if not names:
            return
        self.heads = {name: one for name, one in self.heads.items() if name not in names}
        self._names = list(self.heads)
        self._sorted = 0
        self._bad.clear()
        self._firsts = self._seconds = np.empty(0, np.uint64)
        self._shards = self._rows = np.empty(0, np.int32)

    def mark(self, name: str, row: int) -> None:
        """Mark an entry as damaged, so that other shards are searched for its key."""
        if name in self.heads:
            self._bad.add((self._names.index(name), row))

    def find(self, keys: Sequence[bytes]) -> dict[str, tuple[Places, Places]]:
        """Find keys in the shards.

        Returns:
            for each shard that has some of them, their positions in `keys` and rows in the shard.
        """
        self._sort()
        firsts, seconds = as_numbers(keys).T
        order = np.argsort(firsts)  # looking up a million keys in order takes a sixth of the time
        firsts, seconds = firsts[order], seconds[order]
        at = np.searchsorted(self._firsts, firsts)
        shards = np.full(len(keys), -1, np.int32)
        rows = np.full(len(keys), -1, np.int32)
        left = np.arange(len(keys))
        while len(left):  # one more step if a key is there twice or an entry is damaged
            left = left[at[left] < len(self._firsts)]
            left = left[self._firsts[at[left]] == firsts[left]]
            same = self._seconds[at[left]] == seconds[left]
            if self._bad:
                places = zip(self._shards[at[left]], self._rows[at[left]], strict=True)
                same &= np.array([place not in self._bad for place in places], dtype=bool)
            found = left[same]
            shards[found], rows[found] = self._shards[at[found]], self._rows[at[found]]
            left = left[~same]
            at[left] += 1
        by_shard = np.argsort(shards, kind="stable")
        by_shard = by_shard[shards[by_shard] >= 0]
        numbers, starts = np.unique(shards[by_shard], return_index=True)
        parts = np.split(by_shard, starts[1:])
        return {
            self._names[number]: (order[part], rows[part].astype(np.int64))
            for number, part in zip(numbers, parts, strict=False)
        }

    def _sort(self) -> None:
        if self._sorted == len(self._names):
            return
        new = range(self._sorted, len(self._names))
        heads = [self.heads[self._names[shard]] for shard in new]
        firsts = np.concatenate([self._firsts, *(one.keys[:, 0] for one in heads)])
        seconds = np.concatenate([self._seconds, *(one.keys[:, 1] for one in heads)])
        counts = [len(one.ends) for one in heads]
        shards = np.concatenate([self._shards, np.repeat(np.array(new, np.int32), counts)])
        own = [np.arange(count, dtype=np.int32) for count in counts]
        rows = np.concatenate([self._rows, *own])
        order = np.argsort(firsts)
        self._firsts, self._seconds = firsts[order], seconds[order]
        self._shards, self._rows = shards[order], rows[order]
        self._sorted = len(self._names)

"""Cached results of earlier runs of `ingest` about examples.

The cache has three levels, the fastest first:

- by stamp, on this machine only: a file whose stamp (`stamps.py`) has not changed is not read.
  There is one entry per 100,000 examples of a project; the project's next run replaces it.
- by version, in the feature store: an object of a bucket with the same address, ETag and size is
  not read.
- by content, in the feature store: bytes that were inspected are not decoded again, at any path.

The entry of an object is a list of numbers. If the object was accepted, the list has a 1, the 32
bytes of the digest, and the kind's numbers. If it was refused, the list has a 0 and the bytes of
the reason in UTF-8. The entries of refused objects, and of objects whose format needs its own
libraries, have other keys, and first the format and the libraries that read the object: with other
libraries, it is read again. Version 0.3 wrote refusals without libraries, which are not used.
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core import packages
from ..core.errors import RefusedError, StoreError
from ..kinds import Kind
from ..store.interface import Feature, Store
from ..store.places import default_address
from ..store.vectors import open_local, open_store
from .found import Found

DIGEST_BYTES = 32
LAYOUT = 1  # raise when entries by stamp have another form


class Inspected(NamedTuple):
    """An accepted example: its bytes' SHA-256, and the result of `Kind.inspect`."""

    digest: str
    seen: tuple[Any, ...]


Result = Inspected | str  # if the example was refused for its content, the reason


class Memory:
    """The three caches. If a store cannot be used, they print a warning, and examples are read.

    Threads may share it.
    """

    def __init__(self, kind: Kind, stamps: dict[Path, str]) -> None:
        """Open the stores; `stamps` are the trusted stamps of the examples."""
        self._kind, self._stamps = kind, stamps
        # A file that needs a missing extra is refused only until the extra is installed.
        # No file needs the set of weights.
        sets = [name for name in packages.SETS if name != "weights"]
        here = [name for name in sets if not packages.missing(name)]
        self._read_by = f"{kind.inspected_by()}, {' '.join(here)}"
        self._store = _Cache(open_store, kind.nouns)
        self._local = _Cache(open_local, kind.nouns) if default_address() else self._store
        self._entries: dict[str, list[Any]] = {}  # by path: stamp, digest, and numbers or reason
        self._libraries: dict[str, str] = {}  # that decode these entries, by format
        self._forms: dict[str, str] = {}  # formats that need their own libraries, by digest
        self._held: dict[str, list[Any]] = {}  # the entries by stamp that the store has

    def known(self, part: int, rows: Sequence[Found]) -> dict[Path, Result]:
        """Return the results known by stamp or version for `rows`, part `part` of all examples."""
        found: dict[Path, Result] = {}
        versions = {self._version(row): row.path for row in rows if row.identity}
        for key, numbers in self._store.get(list(versions)).items():
            result = _read(numbers, self._kind)
            if isinstance(result, Inspected):
                found[versions[key]] = result
        others = [row for row in rows if row.identity and row.path not in found]
        versions = {self._version(row, by_libraries=True): row.path for row in others}
        for key, numbers in self._store.get(list(versions)).items():
            form, libraries, rest = _parted(numbers)
            result = _read(rest, self._kind)
            if result is not None and self._kind.read_by(form) == libraries:
                found[versions[key]] = result

        held, self._entries = self._of_part(part), {}
        recall = cache(lambda numbers: self._kind.recall(np.array(numbers, np.float32)))
        for row in rows:
            path = str(row.path)
            if path not in held or held[path][0] != self._stamps.get(row.path):
                continue
            _, digest, rest = held[path]
            if digest is None:
                found[row.path] = rest
            elif (seen := recall(tuple(rest))) is not None:
                found[row.path] = Inspected(digest, seen)
            self._entries[path] = held[path]
        return found

    def inspect(self, examples: Sequence[tuple[bytes, str]]) -> list[tuple[Any, ...] | str]:
        """Return `Kind.inspect` of each example, cached by digest, or why the example is refused.

        Refusals are not cached by content.
        """
        keys = [self._content(data, digest) for data, digest in examples]
        kept = self._store.get(keys)
        results: list[tuple[Any, ...] | str] = []
        for (data, _), key in zip(examples, keys, strict=True):
            seen = self._kind.recall(kept[key]) if key in kept else None
            try:
                if seen is None:
                    seen = self._kind.inspect(data)
                    self._store.new[key] = self._kind.remember(seen)
                results.append(seen)
            except RefusedError as error:
                results.append(str(error))
        return results

    def note(self, row: Found, result: Result, digest: str) -> None:
        """Cache the result of inspecting an example by its version or stamp."""
        stamp = self._stamps.get(row.path)
        form = self._forms.get(digest, "")
        if row.identity and (form or isinstance(result, str)):
            text = _text(form, self._kind.read_by(form))
            numbers = np.concatenate([text, _numbers(result, self._kind)])
            self._store.new[self._version(row, by_libraries=True)] = numbers
        elif row.identity:
            self._store.new[self._version(row)] = _numbers(result, self._kind)
        elif stamp and isinstance(result, str):
            self._entries[str(row.path)] = [stamp, None, result]
        elif stamp and isinstance(result, Inspected):
            numbers = self._kind.remember(result.seen).tolist()
            self._entries[str(row.path)] = [stamp, result.digest, numbers]

    def keep(self) -> None:
        """Write the new entries by version and content to the store."""
        self._store.keep()

    def keep_stamps(self, part: int) -> None:
        """Write the results by stamp of the examples that were last passed to `known`."""
        if self._entries != self._held:
            held = {"libraries": self._libraries, "entries": self._entries}
            text = json.dumps(held, separators=(",", ":")).encode()
            padded = text.ljust(-(-len(text) // 4) * 4)
            self._local.new[self._part(part)] = np.frombuffer(padded, np.float32)
            self._local.keep()

    def close(self) -> None:
        """Close the stores."""
        for one in {self._store, self._local}:
            one.close()

    def _of_part(self, part: int) -> dict[str, list[Any]]:
        """Read a part's entries by stamp, unless a different library now decodes some of them."""
        self._held, self._libraries = {}, {}
        for numbers in self._local.get([self._part(part)] if self._stamps else []).values():
            held = json.loads(numbers.tobytes())
            if all(self._kind.read_by(form) == by for form, by in held["libraries"].items()):
                self._held, self._libraries = held["entries"], held["libraries"]
        return self._held

    def _part(self, part: int) -> bytes:
        content = os.fsencode(f"{LAYOUT}\n{Path.cwd()}\n{part}\n{self._read_by}")
        return blake2b(content, digest_size=16, person=b"stamps").digest()

    def _version(self, row: Found, by_libraries: bool = False) -> bytes:
        content = row.identity + self._read_by.encode()
        person = b"read by" if by_libraries else b"object"
        return blake2b(content, digest_size=16, person=person).digest()

    def _content(self, data: bytes, digest: str) -> bytes:
        form = self._kind.form(data)
        libraries = self._kind.read_by(form)
        if libraries:
            self._libraries[form] = libraries
            self._forms[digest] = form
        made_by = f"{self._kind.inspected_by()}{libraries}, {digest}"
        return blake2b(made_by.encode(), digest_size=16).digest()


class _Cache:
    """A store that is not used any more once it has failed. Threads may share it."""

    def __init__(self, opens: Callable[[], Store], nouns: str) -> None:
        self._nouns = nouns
        self._store: Store | None = None
        self._giving_up = threading.Lock()
        self.new: dict[bytes, Feature] = {}  # entries to write
        try:
            self._store = opens()
        except StoreError as error:
            self._warn(error)

    def get(self, keys: list[bytes]) -> dict[bytes, Feature]:
        """Return the entries of `keys`; missing ones are left out."""
        opened = self._store  # read once, because another thread may disable the store meanwhile
        try:
            return opened.get(keys) if opened and keys else {}
        except StoreError as error:
            self._do_without(error)
            return {}

    def keep(self) -> None:
        """Write the new entries to the store."""
        entries, self.new = self.new, {}
        try:
            if self._store and entries:
                self._store.put(entries)
        except StoreError as error:
            self._do_without(error)

    def close(self) -> None:
        """Close the store."""
        try:
            if self._store:
                self._store.close()
        except StoreError as error:
            self._do_without(error)

    def _do_without(self, error: StoreError) -> None:
        """Stop using the store; only the first of several failing threads prints a warning."""
        with self._giving_up:
            opened, self._store = self._store, None
        if opened:
            self._warn(error)
            with contextlib.suppress(StoreError):
                opened.close()

    def _warn(self, error: StoreError) -> None:
        print(f"ingest: warning: {self._nouns} seen before are decoded again: {error}")


def _text(form: str, libraries: str) -> NDArray[np.float32]:
    """Encode a format and its libraries."""
    text = f"{form}\n{libraries}".encode()
    return np.array([len(text), *text], np.float32)


def _parted(numbers: NDArray[np.float32]) -> tuple[str, str, NDArray[np.float32]]:
    """Return the format and the libraries that `_text` encoded, and the numbers after them."""
    end = 1 + int(numbers[0])
    form, _, libraries = bytes(numbers[1:end].astype(np.uint8)).decode().partition("\n")
    return form, libraries, numbers[end:]


def _numbers(result: Result, kind: Kind) -> NDArray[np.float32]:
    """Encode the result for an object."""
    if isinstance(result, str):
        return np.array([0, *result.encode("utf-8", "replace")], np.float32)
    first = np.array([1, *bytes.fromhex(result.digest)], np.float32)
    return np.concatenate([first, kind.remember(result.seen)])


def _read(numbers: NDArray[np.float32], kind: Kind) -> Result | None:
    """Decode the result for an object; None if its numbers are not those of the kind."""
    if not numbers[0]:
        return bytes(numbers[1:].astype(np.uint8)).decode()
    digest = bytes(numbers[1 : 1 + DIGEST_BYTES].astype(np.uint8)).hex()
    seen = kind.recall(numbers[1 + DIGEST_BYTES :])
    return None if seen is None else Inspected(digest, seen)

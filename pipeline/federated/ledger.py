"""The ledger of a site: what it submitted, and which examples were in it. It stays at the site.

A line of JSON for each submission, only ever added to. The examples of a submission are stored as
the difference from the one before, so that a line is short if little changed.
"""

import fcntl
import json
import os
import secrets
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import DataError

Examples = dict[str, str]  # from an example's digest to its label


@dataclass(frozen=True)
class Entry:
    """A submission.

    `of` is the digest of the sums without noise, with what they are of; `settings` that of what
    decides features. `rho` is what its noise costs, None if it has none. `added` are the
    examples that the one before had not, or had with another label.
    """

    number: int
    when: str
    site: str
    id: str
    of: str
    settings: str
    sums: str
    noise: dict[str, float] | None = None
    rho: float | None = None
    added: Examples = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


class Ledger:
    """The entries of a file, and what each submission held."""

    def __init__(self, file: Path) -> None:
        """Read the file; if it is not there, nothing was submitted.

        Raises:
            DataError: it cannot be read.
        """
        self.file = file
        self.entries: list[Entry] = []
        self.held: list[Examples] = []
        data = file.read_bytes() if file.exists() else b""
        # A line without an end was being written when its process was killed: nothing left then.
        self._whole = data[: data.rfind(b"\n") + 1]
        for line in self._whole.splitlines():
            try:
                self._take(Entry(**json.loads(line)))
            except (TypeError, ValueError, RecursionError) as error:
                raise DataError(
                    f"{file}, line {len(self.entries) + 1}, cannot be read"
                    f" ({' '.join(str(error).split())}); take it from a backup: without it nobody"
                    " knows what was submitted"
                ) from None

    def _take(self, entry: Entry) -> None:
        before = self.held[-1] if self.held else {}
        gone = set(entry.removed)
        self.entries.append(entry)
        self.held.append({d: b for d, b in before.items() if d not in gone} | entry.added)

    @property
    def last(self) -> Entry | None:
        """The last submission."""
        return self.entries[-1] if self.entries else None

    def identity(self, site: str) -> str:
        """A random identity of the site, which distinguishes it from another one of the same name.

        Raises:
            DataError: the submissions so far have another name.
        """
        if self.last is None:
            return secrets.token_hex(8)
        if self.last.site != site:
            raise DataError(
                f"this project submits as {self.last.site} ({self.file}): its examples would count"
                f" twice as {site}; keep the name"
            )
        return self.last.id

    def differing(self, examples: Examples, settings: str) -> list[tuple[int, str, int]]:
        """The number of each earlier submission of the same settings, and `fewest` of both.

        Submissions with noise are left out: their difference is not exact.
        """
        return [
            (entry.number, *fewest(held, examples))
            for entry, held in zip(self.entries, self.held, strict=True)
            if entry.settings == settings and entry.rho is None
        ]

    def append(self, examples: Examples, **given: Any) -> Entry:
        """Add a submission, and be sure that it is on the disk.

        If two processes do so at the same time, one waits and sees what the other has added.

        Raises:
            DataError: another process added one.
        """
        before = self.held[-1] if self.held else {}
        entry = Entry(
            number=len(self.entries) + 1,
            added={d: label for d, label in examples.items() if before.get(d) != label},
            removed=[digest for digest in before if digest not in examples],
            **given,
        )
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # let go as the file is closed
            stream.seek(0)
            there = stream.read()
            if there[: there.rfind(b"\n") + 1] != self._whole:
                raise DataError(f"{self.file} was added to meanwhile; run again")
            stream.truncate(len(self._whole))
            line = (json.dumps(asdict(entry), ensure_ascii=False) + "\n").encode()
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        self._whole += line
        self._take(entry)
        return entry


def count(one: Examples, other: Examples) -> int:
    """How many examples are in one of the two only, or have another label there."""
    return sum(one.get(digest) != other.get(digest) for digest in {**one, **other})


def fewest(one: Examples, other: Examples) -> tuple[str, int]:
    """The class that the fewest examples joined or left, and how many; 0 if none did.

    Each class has a sum of its own, and the difference of two such sums is of these examples alone.
    """
    changed: Counter[str] = Counter()
    for digest in {**one, **other}:
        before, after = one.get(digest), other.get(digest)
        if before != after:
            changed.update(label for label in (before, after) if label is not None)
    return min(changed.items(), key=lambda item: (item[1], item[0]), default=("", 0))

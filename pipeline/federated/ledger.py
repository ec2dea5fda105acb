"""The ledger of a site: its submissions, and their examples. It stays at the site.

The ledger is an append-only file with one line of JSON per submission. The examples of a submission
are stored as the difference from the previous one, so that a line is short if little changed.
"""

import fcntl
import json
import os
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import DataError

VECTORS = "\n"  # between a label, which has no line break, and the number of vectors

# From an example's digest to its label and number of vectors, as `counted` joins them. Ledgers of
# older versions have only the label.
Examples = dict[str, str]


@dataclass(frozen=True)
class Entry:
    """A submission.

    `of` is the digest of the sums before noise, of their description, and of the requested noise.
    `settings` is the digest of the settings that the features depend on. `rho` is the ρ of the
    noise, None without noise. `added` has the examples that are new since the previous submission,
    or whose label or number of vectors changed.
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
    """The entries of a file, and the examples of each submission."""

    def __init__(self, file: Path) -> None:
        """Read the file; if it does not exist, nothing was submitted.

        Raises:
            DataError: the file cannot be read.
        """
        self.file = file
        self.entries: list[Entry] = []
        self.held: list[Examples] = []
        data = file.read_bytes() if file.exists() else b""
        # A last line without a newline is from a process that was killed before it submitted.
        self._whole = data[: data.rfind(b"\n") + 1]
        for line in self._whole.splitlines():
            try:
                self._take(Entry(**json.loads(line)))
            except (TypeError, ValueError, RecursionError) as error:
                raise DataError(
                    f"{file}, line {len(self.entries) + 1}, cannot be read"
                    f" ({' '.join(str(error).split())}); restore it from a backup: without it"
                    " nobody knows what was submitted"
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
        """Return the random id of the site, which distinguishes sites with the same name.

        Raises:
            DataError: earlier submissions have a different site name.
        """
        if self.last is None:
            return secrets.token_hex(8)
        if self.last.site != site:
            raise DataError(
                f"this project has submitted as {self.last.site} ({self.file}): keep this name,"
                f" because as {site} its examples would count twice"
            )
        return self.last.id

    def differing(self, examples: Examples, settings: str) -> list[tuple[int, str, int]]:
        """Return number and result of `fewest` for each earlier submission with these settings.

        Submissions with noise are left out, because their differences are not exact.
        """
        return [
            (entry.number, *fewest(held, examples))
            for entry, held in zip(self.entries, self.held, strict=True)
            if entry.settings == settings and entry.rho is None
        ]

    def append(self, examples: Examples, **given: Any) -> Entry:
        """Append a submission, and wait until it is on disk.

        If two processes append at the same time, the second one waits, then fails.

        Raises:
            DataError: another process appended a submission.
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
            fcntl.flock(stream, fcntl.LOCK_EX)  # released when the file is closed
            stream.seek(0)
            there = stream.read()
            if there[: there.rfind(b"\n") + 1] != self._whole:
                raise DataError(f"another process changed {self.file}; run the command again")
            stream.truncate(len(self._whole))
            line = (json.dumps(asdict(entry), ensure_ascii=False) + "\n").encode()
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        self._whole += line
        self._take(entry)
        return entry


def counted(labels: Mapping[str, str], vectors: Mapping[str, int]) -> Examples:
    """Join the label of each digest with the number of its vectors in the sums."""
    return {digest: f"{label}{VECTORS}{vectors[digest]}" for digest, label in labels.items()}


def count(one: Examples, other: Examples) -> int:
    """Count the examples that are in only one of the two, or that differ in them."""
    return sum(1 for _ in _differing(one, other))


def fewest(one: Examples, other: Examples) -> tuple[str, int]:
    """Return the class that the fewest differing examples belong to, and their number; 0 if none.

    Each class has its own sum, so the difference of two submissions reveals the sum of the vectors
    that just these examples gained or lost.
    """
    changed = Counter(label for labels in _differing(one, other) for label in labels)
    return min(changed.items(), key=lambda item: (item[1], item[0]), default=("", 0))


def _differing(one: Examples, other: Examples) -> Iterator[set[str]]:
    """Yield the label, or both labels, of each example that differs.

    The number of vectors is compared only if both are of a version that counted them.
    """
    if not all(VECTORS in value for held in (one, other) for value in held.values()):
        one, other = ({d: _label(value) for d, value in held.items()} for held in (one, other))
    for digest in {**one, **other}:
        before, after = one.get(digest), other.get(digest)
        if before != after:
            yield {_label(value) for value in (before, after) if value is not None}


def _label(value: str) -> str:
    return value.partition(VECTORS)[0]

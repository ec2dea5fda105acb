"""A lock: one run at a time in a working copy."""

import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Any, Literal, Self

from pipeline.core.errors import BusyError, StoppedError

LOCK = Path(".dvc/tmp/headstart.lock")
KEPT = Path(".headstart/before")  # the last result, until a run with a gate has ended
SECONDS_BETWEEN_TRIES = 0.5


class Claim:
    """The exclusive right to run in a working copy; use it in a `with` block.

    The claim is the kernel's lock on `.dvc/tmp/headstart.lock`, so it is released in whatever way
    its holder ends. The file names the holder, and shows whether the last holder died without
    removing its entry. If stages outlive the holder for a moment, they still hold DVC's own locks.
    """

    def __init__(
        self,
        root: Path,
        when_busy: Literal["wait", "refuse"],
        cancelled: threading.Event | None = None,
    ) -> None:
        """Prepare to claim the working copy `root`; setting `cancelled` ends the wait for it."""
        self._path = root / LOCK
        self._when_busy, self._cancelled = when_busy, cancelled or threading.Event()
        self._signed = False
        self.died: dict[str, Any] = {}  # the last holder's entry, if the holder died

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+", encoding="utf-8")
        while not self._taken():
            if self._when_busy == "refuse":
                holder = self._read()
                self._file.close()
                raise BusyError(
                    f"another run ({holder.get('run', 'unnamed')}, process {holder.get('pid')}) is "
                    f"using {self._path.parents[2]}: wait for it or cancel it"
                )
            if self._cancelled.wait(SECONDS_BETWEEN_TRIES):
                self._file.close()
                raise StoppedError("cancelled while it waited for its turn")
        self.died = self._read()
        return self

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _read(self) -> dict[str, Any]:
        self._file.seek(0)
        try:
            holder: dict[str, Any] = json.loads(self._file.read() or "{}")
        except json.JSONDecodeError:  # killed while it wrote its entry
            return {}
        return holder

    def sign(self, **holder: str) -> None:
        """Write who holds the claim, for runs that wait and for the next holder."""
        self._signed = True
        self._file.truncate(0)
        self._file.write(json.dumps({"pid": os.getpid(), **holder}))
        self._file.flush()

    def __exit__(self, *_: object) -> None:
        if self._signed:
            self._file.truncate(0)
        self._file.close()


def at_work(root: Path) -> bool:
    """Return whether a run has a claim on the working copy `root`."""
    path = root / LOCK
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

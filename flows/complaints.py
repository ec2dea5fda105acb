"""Pass on what a Prefect server prints to stderr, or say in one line why it does not start."""

import re
import sys
import threading
from collections.abc import Iterable
from typing import IO

DATABASE = "PREFECT_API_DATABASE_CONNECTION_URL"
# The ends of tracebacks whose text is not secret. Any other could contain part of the address.
KNOWN = re.compile(
    r"(asyncpg\.exceptions\.|ConnectionRefusedError|OSError: Multiple exceptions"
    r"|TimeoutError|socket\.gaierror"
    r"|sqlalchemy\.exc\.OperationalError: \(sqlite3\.)"
)
PATIENCE_SECONDS = 10.0  # to wait for the last lines of a process that has ended


class Complaints:
    """Reads and buffers what a starting server prints, in a thread."""

    def __init__(self, stderr: IO[bytes] | None) -> None:
        """Start to read, if there is anything to read from."""
        self._held: list[str] | None = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, args=(stderr or [],), daemon=True)
        self._thread.start()

    def _read(self, stderr: "IO[bytes] | list[bytes]") -> None:
        for line in stderr:
            with self._lock:
                if self._held is None:
                    sys.stderr.write(line.decode(errors="replace"))
                else:
                    self._held.append(line.decode(errors="replace"))

    def pass_on(self) -> None:
        """Pass on to our own stderr what the server printed and will print, now that it is up."""
        with self._lock:
            sys.stderr.write("".join(self._held or []))
            self._held = None

    def why(self) -> str:
        """Return why a server that has ended did not start, and what to do about it."""
        self._thread.join(PATIENCE_SECONDS)
        with self._lock:
            reason = of_database(self._held or [])
        return reason or (
            "if its port is taken, choose another with --port, or see what"
            " `prefect server start` prints"
        )


def of_database(lines: Iterable[str]) -> str | None:
    """Return what a traceback says about the server's database, and what to do; None if nothing."""
    ends = [line.strip() for line in lines if KNOWN.match(line)]
    if not ends:
        return None
    reason = ends[-1].partition(": ")[2]
    return (
        f"its database says: {reason}; check the user, the password, the host and the database"
        f" that {DATABASE} names"
    )

"""Progress for people: one line that is rewritten on a terminal, plain lines elsewhere."""

import shutil
import sys
import time

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_MOVES = 0.1  # on a terminal
CLEARED = "\r\x1b[K"  # the cursor is at the start of a line that is empty


class Progress:
    """Counts towards `total`; use it in a `with` block.

    On a terminal it rewrites one line on stderr, such as `extract: 128/1000 views, 96.4 a second, 9
    s left`. Elsewhere (a log, Prefect) it prints that line without the estimate at most every five
    seconds. In both cases, a last such line is printed at the end.
    """

    def __init__(self, name: str, total: int, unit: str) -> None:
        """Start counting to `total` in the given `unit` for the stage `name`."""
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self._moves = sys.stderr.isatty()
        self._between = SECONDS_BETWEEN_MOVES if self._moves else SECONDS_BETWEEN_LINES
        self._start = self._last_line = time.monotonic()

    def advance(self, count: int) -> None:
        """Add `count` to the finished units."""
        self.done += count
        now = time.monotonic()
        if now - self._last_line < self._between:
            return
        self._last_line = now
        if self._moves:
            rest = (self.total - self.done) * (now - self._start) / max(self.done, 1)
            shown = f"{self._line(now)}, {_duration(rest)} left"
            # A line that is wider than the terminal could not be rewritten.
            self._write(CLEARED + shown[: shutil.get_terminal_size().columns - 1])
        elif self.done != self.total:  # the last line is that of `__exit__`
            print(self._line(now), flush=True)

    def clear(self) -> None:
        """Clear the progress line, so that what is printed next has a line of its own."""
        if self._moves:
            self._write(CLEARED)

    def _line(self, now: float) -> str:
        rate = self.done / max(now - self._start, 1e-9)
        return f"{self.name}: {self.done}/{self.total} {self.unit}, {rate:.1f} a second"

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.total and self._moves:
            self._write(f"{CLEARED}{self._line(time.monotonic())}\n")
        elif self.total:
            print(self._line(time.monotonic()), flush=True)


def _duration(seconds: float) -> str:
    """Return a time in words, as in `9 s`, `4 min` or `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

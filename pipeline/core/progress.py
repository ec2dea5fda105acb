"""Progress for people: a bar on a terminal, plain lines elsewhere."""

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Counts towards `total`; use it in a `with` block.

    On a terminal it is a tqdm bar. Elsewhere (a log, Prefect) it prints a line such as
    `extract: 128/1000 views, 96.4 a second` at most every five seconds, and one at the end.
    """

    def __init__(self, name: str, total: int, unit: str) -> None:
        """Start counting to `total` in the given `unit` for the stage `name`."""
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self._plain = not sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=name, unit=f" {unit}", disable=self._plain)
        self._start = self._last_line = time.monotonic()

    def advance(self, count: int) -> None:
        """Add `count` to the finished units."""
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._plain and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._line(now)

    def _line(self, now: float) -> None:
        rate = self.done / max(now - self._start, 1e-9)
        line = f"{self.name}: {self.done}/{self.total} {self.unit}, {rate:.1f} a second"
        print(line, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._plain and self.total:
            self._line(time.monotonic())

"""Record what a terminal shows, as text: `python -m docs.record COMMAND… > FILE`.

Each line begins with the seconds after which it appeared. A line that moves is recorded once a
second. The current folder is left out of paths.
"""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

FRAME = re.compile(r"\r\x1b\[K|\r?\n")
COLOURS = re.compile(r"\x1b\[[\d;]*[A-Za-z]")


def record(command: list[str]) -> int:
    """Run the command on a terminal of its own, print what it shows, and return its exit code."""
    terminal, end = pty.openpty()
    print("$", *command, flush=True)
    start = time.monotonic()
    with subprocess.Popen(command, stdin=end, stdout=end, stderr=end) as process:  # noqa: S603
        os.close(end)
        text, last = "", -1.0
        while read := _read(terminal):
            text += read
            now = time.monotonic() - start
            while found := FRAME.search(text):
                line, text = COLOURS.sub("", text[: found.start()]), text[found.end() :]
                moves = found[0] == "\r\x1b[K"
                if line and not (moves and now - last < 1):
                    print(f"{now:5.1f} s  {line.replace(f'{Path.cwd()}/', '')}", flush=True)
                    last = now
    print(f"{time.monotonic() - start:5.1f} s  $", flush=True)
    return process.returncode


def _read(terminal: int) -> str:
    """Return what the terminal shows next; nothing at its end, which Linux reports as an error."""
    try:
        return os.read(terminal, 100_000).decode(errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(record(sys.argv[1:]))

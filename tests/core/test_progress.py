"""Progress is a bar on a terminal, and lines that the flow understands elsewhere."""

import contextlib
import os
import pty
import subprocess
import sys
import termios

from flows.steps import PROGRESS
from tests.conftest import ROOT

COUNT = """
from pipeline.core.progress import Progress
with Progress("extract", 2176, "views") as progress:
    progress.advance(2000)
    progress.advance(176)
"""


def count(stderr: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COUNT],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True, check=True,
    )  # fmt: skip


def test_elsewhere_it_is_a_line_that_the_flow_understands() -> None:
    done = count(subprocess.PIPE)
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    found = PROGRESS.fullmatch(line)
    assert found
    assert found.groupdict() == {
        "name": "extract",
        "done": "2176",
        "total": "2176",
        "unit": "views",
    }


def test_on_a_terminal_it_is_a_bar() -> None:
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (25, 100))
    done = count(end)
    os.close(end)
    shown = ""
    with contextlib.suppress(OSError):  # which says that there is no more
        while True:
            shown += os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert done.stdout == ""
    assert "extract: 100%" in shown
    assert "2176/2176" in shown

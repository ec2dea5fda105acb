"""Progress is a line that moves on a terminal, and lines that the flow understands elsewhere."""

import io
import re
import sys

import pytest

from flows.steps import PROGRESS
from pipeline.core import progress
from pipeline.core.progress import CLEARED, Progress


class Clock:
    """Stands in for the module `time`."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def count(clock, seconds=2.0):
    """Count to 1,000 in steps of 100, each of which takes some seconds."""
    with Progress("extract", 1000, "views") as counting:
        for step in range(10):
            clock.now += seconds
            counting.advance(100)
            if step == 4:
                counting.clear()
                print("extract: a line in between", flush=True)


def test_elsewhere_they_are_lines_that_the_flow_understands(clock, capsys):
    count(clock)
    said, error = capsys.readouterr()
    assert error == ""
    assert said.splitlines() == [
        "extract: 300/1000 views, 50.0 a second",
        "extract: a line in between",
        "extract: 600/1000 views, 50.0 a second",
        "extract: 900/1000 views, 50.0 a second",
        "extract: 1000/1000 views, 50.0 a second",
    ]
    count(clock, seconds=6.0)
    assert capsys.readouterr().out.count("1000/1000") == 1
    found = PROGRESS.fullmatch(said.splitlines()[0])
    assert found
    assert found.groupdict() == {"name": "extract", "done": "300", "total": "1000", "unit": "views"}


class Terminal(io.StringIO):
    """Stands in for a terminal that shows stdout and stderr."""

    def isatty(self):
        return True


def test_on_a_terminal_one_line_moves_and_its_end_stays(clock, monkeypatch):
    terminal = Terminal(newline="")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    count(clock)
    count(clock, seconds=0.06)  # of which every second step is shown
    count(clock, seconds=900)
    end = "extract: 1000/1000 views, 50.0 a second"
    shown = [one for one in re.split(r"\r\x1b\[K|\n", terminal.getvalue()) if one]
    assert shown[:4] == [
        "extract: 100/1000 views, 50.0 a second, 18 s left",
        "extract: 200/1000 views, 50.0 a second, 16 s left",
        "extract: 300/1000 views, 50.0 a second, 14 s left",
        "extract: 400/1000 views, 50.0 a second, 12 s left",
    ]
    assert shown[11:13] == [end, "extract: 200/1000 views, 1666.7 a second, 0 s left"]
    assert "extract: 100/1000 views, 0.1 a second, 2.2 h left" in shown
    assert "extract: 700/1000 views, 0.1 a second, 45 min left" in shown
    # The terminal splits lines at "\n" only.
    left = [line.rpartition(CLEARED)[2] for line in terminal.getvalue().split("\n")]
    assert left == [
        "extract: a line in between", end,
        "extract: a line in between", "extract: 1000/1000 views, 1666.7 a second",
        "extract: a line in between", "extract: 1000/1000 views, 0.1 a second", "",
    ]  # fmt: skip


def test_a_line_is_never_wider_than_the_terminal(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "30")
    with Progress("extract", 1000, "views") as counting:
        clock.now += 1
        counting.advance(1)
        assert sys.stderr.getvalue() == f"{CLEARED}extract: 1/1000 views, 1.0 a "  # type: ignore[attr-defined]

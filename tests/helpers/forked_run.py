"""What smoke runs of benchmarks have in place of `harness.run`: a fork, not another Python."""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import harness

started = harness.run


def run(*command: str | Path, folder: Path = harness.ROOT, **environment: str) -> harness.Cost:
    """As `harness.run`. A Python is a fork of this one, which has imported most already."""
    how, *rest = map(str, command[1:]) if command[0] == sys.executable else ("",)
    if how not in ("-c", "-m"):
        return started(*command, folder=folder, **environment)
    with TemporaryDirectory() as place:
        given = how, rest, folder, environment, Path(place)
        process = multiprocessing.get_context("fork").Process(target=_work, args=given)
        process.start()
        took = harness.cost(process.join)
        out, err = ((Path(place) / name).read_text() for name in "12")
    if process.exitcode:
        sys.exit(f"{how} {rest[0]} failed:\n{out}{err}")
    return took._replace(gave=out + "\n".join(err.splitlines()))


def _work(
    how: str, words: list[str], folder: Path, environment: dict[str, str], place: Path
) -> None:
    for number in (1, 2):
        os.dup2(os.open(place / f"{number}", os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ |= harness.ENVIRONMENT | environment
    code, sys.argv = words[0], [how, *words[1:]]
    if how == "-m":
        runpy.run_module(code, run_name="__main__", alter_sys=True)
    else:
        exec(code, {"__name__": "__main__"})  # noqa: S102

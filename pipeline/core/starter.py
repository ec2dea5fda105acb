"""Fork stages from a process that has imported their code: `python -m pipeline.core.starter FD`.

A stage with little to do spends most of its time on imports. `flows.dvc.forked` starts this process
with the environment of a run's first stage, and requests each stage over a socket, whose file
descriptor is FD. Requests and replies are lines of JSON.

The process has a single Python thread when it forks. The threads that NumPy's OpenBLAS and
pyarrow's jemalloc start when they are imported have fork handlers of their own.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TextIO

PACKAGE = __package__.rpartition(".")[0]
# The stages that each project has. Others are not imported here, because some import PyTorch.
STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report")
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # those that a terminal or a flow sends to the group

Stamps = dict[str, tuple[int, ...]]


def serve(descriptor: int, run: Callable[[str], None]) -> None:
    """Fork a process for each request, and report its exit code, until the socket is closed.

    A request is refused if code or libraries have changed since this process started. `run` runs a
    stage in the new process, which then leaves this function.
    """
    noted: list[int] = []  # signals to the group: this process outlives its stage

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)

    handlers = {number: signal.signal(number, note) for number in SIGNALS}
    asked = socket.socket(fileno=descriptor)
    asked.set_inheritable(False)
    requests = asked.makefile(encoding="utf-8")
    imported = stamps()
    waiting = list(STAGES)
    gc.disable()  # it would look at each module's objects, again and again
    while line := _next(requests, asked, waiting):
        request = json.loads(line)
        stage = request["stage"]
        if stage in waiting:
            # The stages before this one are up to date, and need no import.
            waiting = waiting[waiting.index(stage) + 1 :]
            _import(stage)
        if stamps() != imported:
            asked.sendall(b'{"refused": true}\n')
            continue
        asked.sendall(b'{"forked": true}\n')
        gc.freeze()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking with the known threads
            child = os.fork()
        if not child:
            # The child keeps the socket, so it is closed only when both processes have ended.
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            for signum in noted:
                os.kill(os.getpid(), signum)
            os.environ.update(request["environment"])
            _as_started()
            run(stage)
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        code = None
        while code is None:
            # While the stage is at work, this process imports the modules of the next stages.
            done, status = os.waitpid(child, os.WNOHANG if waiting else 0)
            if done:
                code = os.waitstatus_to_exitcode(status)
            else:
                _import(waiting.pop(0))
        noted.clear()
        asked.sendall(json.dumps({"code": code}).encode() + b"\n")
    os._exit(0)


def _next(requests: TextIO, asked: socket.socket, waiting: list[str]) -> str:
    """Return the next request; import the code of stages in `waiting` until it comes."""
    while waiting and not select.select([asked], [], [], 0)[0]:
        _import(waiting.pop(0))
    return requests.readline()


def stamps() -> Stamps:
    """Return what changes when a file of this package changes, or when a library is installed."""
    found: Stamps = {}
    for file in Path(__file__).parents[1].rglob("*.py"):
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            found[str(file)] = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    for folder in sys.path:
        if folder.endswith("-packages"):
            with contextlib.suppress(OSError):
                found[folder] = (Path(folder).stat().st_mtime_ns,)
    return found


def run_module(stage: str) -> None:
    """Run a stage as `python -m pipeline.STAGE` does."""
    runpy.run_module(f"{PACKAGE}.{stage}", run_name="__main__", alter_sys=True)


def _import(stage: str) -> None:
    """Import a stage's module; ignore errors, because the stage itself will report them."""
    with contextlib.suppress(Exception, SystemExit):
        importlib.import_module(f"{PACKAGE}.{stage}")


def _as_started() -> None:
    """Remove from a forked process what a process that has just started would not have."""
    sys.argv[1:] = []
    for stage in STAGES:  # it will be `__main__`
        sys.modules.pop(f"{PACKAGE}.{stage}", None)
    importlib.invalidate_caches()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # else all stages draw the same; `random` is seeded at a fork
    gc.enable()


if __name__ == "__main__":
    serve(int(sys.argv[1]), run_module)

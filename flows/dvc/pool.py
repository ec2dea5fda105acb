"""Run stages through DVC, in a few processes that keep DVC loaded and run one stage at a time.

Importing DVC takes longer than most requests, so processes are reused: a chain of stages needs one,
parallel stages need one each. Each process leads a process group, which contains its stage's
command, and ends that group when its stdin ends.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from pipeline.core.errors import MayPassError, RunError, StageError, StoppedError

GRACE_SECONDS = 10.0  # between asking a stage to stop and killing it
TAIL = 20  # lines of a failed stage's output that the error shows
LINE = 2000  # characters of a line that are passed on


class DvcProcess:
    """One process of `flows/dvc/process.py` in the DVC repository `root`."""

    def __init__(self, root: Path, *, forks: bool) -> None:
        """Start the process, which imports DVC and waits for requests.

        Args:
            forks: whether its stages are forked from a process that imports their code ahead.
        """
        self._token = f"\x1e{uuid.uuid4()} "
        script = Path(__file__).with_name("process.py")
        # Stages run `python`; this makes it the interpreter that runs this, whatever the PATH was.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        arguments = [self._token, str(GRACE_SECONDS), *["forks"] * forks]
        self._process = subprocess.Popen(  # noqa: S603 (a fixed command)
            # -P: the folder of flows/ must not shadow anything that DVC imports.
            [sys.executable, "-P", str(script), *arguments],
            cwd=root,
            # Unbuffered, so that a line is shown as soon as a stage prints it.
            env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        # If the DVC process is killed, its stage would go on, and hold the pipe that `ask` reads.
        threading.Thread(target=self._bury, daemon=True).start()

    def _bury(self) -> None:
        self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def ask(self, request: dict[str, Any], on_line: Callable[[str], None]) -> dict[str, Any]:
        """Return the reply to `request`; pass each line printed meanwhile to `on_line`.

        Raises:
            StageError, MayPassError: the request failed.
            StoppedError: the process was stopped meanwhile.
        """
        lines: deque[str] = deque(maxlen=TAIL)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 (both are pipes)
        assert stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # then stdout has ended as well
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
        for line in stdout:
            text, answered, answer = line.rstrip("\n").partition(self._token)
            if text.strip():
                lines.append(text[:LINE])
                on_line(text[:LINE])
            if answered:
                return self._result(json.loads(answer), lines)
        code = self._process.wait()
        if stdin.closed:
            raise StoppedError("stopped before it was done")
        raise StageError(_with_lines(f"DVC's process ended unexpectedly (exit code {code})", lines))

    def _result(self, answer: dict[str, Any], lines: deque[str]) -> dict[str, Any]:
        failure = answer.get("failure")
        if failure is None:
            result: dict[str, Any] = answer["result"]
            return result
        if self._process.stdin is None or self._process.stdin.closed:
            raise StoppedError("stopped before it was done")
        if failure["kind"] == "passing":
            raise MayPassError(failure["message"])
        raise StageError(_with_lines(failure["message"], lines))

    def alive(self) -> bool:
        """Return whether the process can take another request."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask the process and its stage to end; return at once."""
        if self._process.stdin and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def kill(self) -> None:
        """Wait for the process to end, a little longer than a stage has to stop; then kill it."""
        try:
            self._process.wait(GRACE_SECONDS + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _with_lines(message: str, lines: deque[str]) -> str:
    return "\n".join([message, *lines])


_warm: dict[Path, DvcProcess] = {}


def warm_up(root: Path) -> None:
    """Start the first process of the next pool in `root`, so that DVC's import runs in parallel."""
    _warm[root] = DvcProcess(root, forks=True)


def ask_warm(root: Path, do: str, **request: Any) -> dict[str, Any]:
    """Send a request to the process that `warm_up` started, and leave it to the next pool."""
    return _warm[root].ask({"do": do, **request}, lambda line: None)


class Pool:
    """As many DVC processes as there are running stages; use it in a `with` block.

    Leaving the block ends all processes, with the stages that they run.
    """

    def __init__(self, root: Path) -> None:
        """Start the first process, in the DVC repository `root`."""
        self._root = root
        self._lock = threading.Lock()
        self._all: list[DvcProcess] = []
        self._idle: list[DvcProcess] = []
        self._stopped = False
        self._idle.append(self._start())

    def _start(self) -> DvcProcess:
        warm = _warm.pop(self._root, None)
        # A second process that forks would import the same code again.
        process = warm if warm and warm.alive() else DvcProcess(self._root, forks=not self._all)
        self._all.append(process)
        return process

    def ask(
        self,
        do: str,
        on_line: Callable[[str], None] = lambda line: None,
        aside: bool = False,
        **request: Any,
    ) -> dict[str, Any]:
        """Let an idle process handle `do`, one of `flows.dvc.process.REQUESTS`.

        If `aside`, it is not the first process, which forks its stages.
        """
        with self._lock:
            if self._stopped:
                raise StoppedError("stopped before it began")
            idle = [process for process in self._idle if not aside or process is not self._all[0]]
            process = min(idle, key=self._all.index) if idle else self._start()
            self._idle = [one for one in self._idle if one is not process]
        is_busy = True
        try:
            answer = process.ask({"do": do, **request}, on_line)
            is_busy = False
            return answer
        except RunError:
            is_busy = False
            raise
        finally:
            # If `on_line` failed, this process's reply is still to come, and the next would get it.
            if is_busy:
                process.stop()
            elif process.alive():
                with self._lock:
                    self._idle.append(process)

    def stop(self) -> None:
        """End all processes and the stages they run; return at once, and refuse later requests."""
        with self._lock:
            self._stopped = True
        for process in self._all:
            process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for process in self._all:
            process.kill()

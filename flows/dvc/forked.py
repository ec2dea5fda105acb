"""Fork Headstart's stages from a process that has imported their code, instead of starting them.

That process is `pipeline/core/starter.py`. It is started for the first stage, with the shell and
the environment with which DVC would start that stage.
"""

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dvc.stage.run
from dvc.env import DVC_STAGE
from dvc.stage.exceptions import StageCmdFailedError

OFF = "HEADSTART_FORK"  # 0: every stage is started

# A stage's command, and the command of the process that forks it.
COMMANDS = {
    re.compile(r"python -m pipeline\.(\w+)"): "python -m pipeline.core.starter",
    re.compile(r"headstart run (\w+)"): "headstart starter",
}


@contextlib.contextmanager
def forked(soon: Path | None = None) -> Iterator[Callable[[Path, Iterable[str]], None]]:
    """Let DVC fork Headstart's stages, but start any other command as usual.

    Yields a function that starts the process for a project, if one of the commands that will
    probably run there is a stage's. The process then begins to import the stages' code, while DVC
    does other work.

    Args:
        soon: a project in which a stage will probably run, if it is known already.
    """
    start = dvc.stage.run._run
    starters: dict[Any, Starter] = {}

    def starter(executable: str | None, program: str, **options: Any) -> Starter:
        shared = {name: value for name, value in options["env"].items() if name != DVC_STAGE}
        key = executable, program, options["cwd"], frozenset(shared.items())
        if key not in starters:
            starters[key] = Starter(executable, program, **options)
        return starters[key]

    def fork_or_start(executable: str | None, command: str, **options: Any) -> None:
        code = None
        if found := _starting(command, **options):
            stage, program = found
            own = {DVC_STAGE: options["env"][DVC_STAGE]}
            code = starter(executable, program, **options).run(stage, own)
        if code is None:
            start(executable, command, **options)
        elif code:
            raise StageCmdFailedError(command, code)

    def begin(root: Path, commands: Iterable[str]) -> None:
        """Start the process as it would be started for the first stage among the commands."""
        repo = SimpleNamespace(root_dir=str(root))
        # If this fails, the first stage starts the process, or DVC says what is wrong.
        with contextlib.suppress(AttributeError, OSError):
            options = dvc.stage.run.prepare_kwargs(
                SimpleNamespace(wdir=str(root), addressing="", repo=repo)
            )
            for command in commands:
                if found := _starting(command, **options):
                    starter(dvc.stage.run.get_executable(), found[1], **options)
                    return

    dvc.stage.run._run = fork_or_start
    try:
        if soon:
            begin(soon, ["python -m pipeline.ingest", "headstart run ingest"])
        yield begin
    finally:
        dvc.stage.run._run = start
        for one in starters.values():
            one.stop()


def _starting(command: str, **options: Any) -> tuple[str, str] | None:
    """Return a command's stage and its starter's command; None if the stage is not to be forked."""
    environment = options["env"]
    if sys.platform != "linux" or environment.get(OFF) == "0":
        return None
    for pattern, program in COMMANDS.items():
        if match := pattern.fullmatch(command):
            # The shell has to find this installation's program, whose starter is known.
            found = shutil.which(program.split()[0], path=environment.get("PATH"))
            if found is None or Path(found).parent != Path(sys.executable).parent:
                return None
            # The project's own code is that of a clone.
            in_clone = Path(options["cwd"], "pipeline", "core", "starter.py")
            if program.startswith("python") and not in_clone.exists():
                return None
            return match[1], program
    return None


class Starter:
    """A process that imports the stages' code and forks the stages."""

    def __init__(self, executable: str | None, program: str, **options: Any) -> None:
        """Start the process as DVC starts a command, in the shell `executable`."""
        self._asked, its = socket.socketpair()
        command = dvc.stage.run._make_cmd(executable, f"{program} {its.fileno()}")
        self._process = subprocess.Popen(command, pass_fds=[its.fileno()], **options)  # noqa: S603
        its.close()
        self._replies = self._asked.makefile(encoding="utf-8")

    def run(self, stage: str, environment: dict[str, str]) -> int | None:
        """Run a stage; return its exit code, as `subprocess` gives it, or None if it has not run.

        As DVC does while a command runs, the main thread ignores the Ctrl-C that the stage gets.
        """
        in_main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
        try:
            request = json.dumps({"stage": stage, "environment": environment})
            with contextlib.suppress(BrokenPipeError):  # then there is no reply either
                self._asked.sendall(request.encode() + b"\n")
            if "forked" not in self._reply():
                return None
            # No reply: both have been killed, for the stage has the socket too.
            code: int = self._reply().get("code", -signal.SIGKILL)
            return code
        finally:
            if in_main:
                signal.signal(signal.SIGINT, before)

    def _reply(self) -> dict[str, Any]:
        line = ""
        with contextlib.suppress(ConnectionResetError):
            line = self._replies.readline()
        reply: dict[str, Any] = json.loads(line) if line else {}
        return reply

    def stop(self) -> None:
        """End the process, once a stage that it runs has ended."""
        self._replies.close()
        self._asked.close()
        self._process.wait()

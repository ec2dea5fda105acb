"""DVC repositories of small stages, the flow run in them, and what Prefect's API says of it."""

import argparse
import contextvars
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unittest import mock

import httpx
import psutil
import yaml

from flows import run as command
from flows.dvc import pool

PROJECT = Path(__file__).resolve().parents[2]

# Seconds to wait for anything: it costs nothing where all is well, and a slow machine that does
# other things besides needs its time.
PATIENCE = 240.0

# A stage of the toy pipelines: it does what `NAME.json` says, then writes `NAME.out` from it and
# from its inputs. It leaves its process id in `NAME.pid`, and waits until the files `until` exist.
STAGE = """
import json, os, pathlib, signal, sys, time
name, *inputs = sys.argv[1:]
do = json.loads(pathlib.Path(f"{name}.json").read_text())
out = pathlib.Path(f"{name}.out")
pathlib.Path(f"{name}.pid").write_text(str(os.getpid()))
if do.get("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
out.write_text("half")
for line in do.get("lines", []):
    print(line)
time.sleep(do.get("seconds", 0))
while not all(pathlib.Path(file).exists() for file in do.get("until", [])):
    time.sleep(0.05)
if "fail" in do:
    sys.exit(do["fail"])
out.write_text(do.get("value", name) + "".join(pathlib.Path(i).read_text() for i in inputs))
"""


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class FlowRun:
    """What Prefect's API says of a flow run, once it has heard all of it."""

    id: str
    page: str
    state: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    output: str
    code: int

    def states(self) -> dict[str, str]:
        return {name: task["state"]["name"] for name, task in self.tasks.items()}


class Inside(threading.Thread):
    """`python -m flows.run` in this process, which has imported Prefect already."""

    def __init__(self, toy: "Toy", arguments: tuple[str, ...]) -> None:
        super().__init__(daemon=True)
        self.lines: list[str] = []
        self._toy, self._arguments = toy, arguments
        self._context = contextvars.copy_context()  # Prefect's settings among others
        self._code: int | None = None

    def run(self) -> None:
        listener = logging.Handler()
        listener.emit = self._note  # type: ignore[method-assign]
        logging.getLogger("prefect").addHandler(listener)
        try:
            parser = argparse.ArgumentParser()
            command.add_arguments(parser)
            asked = vars(parser.parse_args(self._arguments))
            done = self._context.run(command.bring_up_to_date, asked, self.lines.append)
            self._code = 0 if done else 1
        finally:
            logging.getLogger("prefect").removeHandler(listener)
            # A process takes it along when it ends.
            if unused := pool._warm.pop(self._toy.root, None):
                unused.stop()

    def _note(self, record: logging.LogRecord) -> None:
        of = getattr(record, "task_run_name", None)
        self.lines.append(f"Task run {of!r} - {record.getMessage()}" if of else record.getMessage())

    def hear(self, words: str) -> str:
        """The line with these words, once it is said."""
        wait_for(lambda: any(words in line for line in self.lines) or not self.is_alive())
        return next(line for line in self.lines if words in line)

    def finish(self) -> FlowRun:
        self.join(PATIENCE)
        assert self._code is not None, "\n".join(["it has not ended well:", *self.lines])
        return self._toy.heard_of("\n".join(self.lines), self._code)


class Patient(httpx.HTTPTransport):
    """Asks again where the server says 503, as Prefect's client does: its database was locked."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        end = time.monotonic() + PATIENCE / 4
        while (reply := super().handle_request(request)).status_code == 503:
            if time.monotonic() > end:
                break
            reply.close()
            time.sleep(0.5)
        return reply


class Toy:
    """A DVC repository of small stages, and the runs of the flow in it.

    In a `with` block this process is in the repository as a process of its own would be.
    """

    def __init__(self, root: Path, api: str, template: Path, password: str) -> None:
        self.root = root
        self.api = api
        user, _, word = password.partition(":")
        self.auth = user, word
        self._client = httpx.Client(base_url=api, timeout=60, auth=self.auth, transport=Patient())
        self.env = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]),
            "PWD": str(root),
            "PREFECT_API_URL": api,
            "PREFECT_API_AUTH_STRING": password,
            "PREFECT_HOME": str(root.parent / "prefect_home"),
            "GIT_AUTHOR_NAME": "toy",
            "GIT_AUTHOR_EMAIL": "toy@localhost",
            "GIT_COMMITTER_NAME": "toy",
            "GIT_COMMITTER_EMAIL": "toy@localhost",
        }
        shutil.copytree(template, root, symlinks=True)
        (root / "stage.py").write_text(STAGE)
        (root / ".gitignore").write_text("*.pid\n/.headstart/\n")

    def __enter__(self) -> Self:
        self._before, self._patch = Path.cwd(), mock.patch.dict(os.environ, self.env)
        self._patch.start()
        os.chdir(self.root)
        return self

    def __exit__(self, *_: object) -> None:
        os.chdir(self._before)
        self._patch.stop()
        self._client.close()
        for note in self.root.glob("*.pid"):  # a test that failed leaves nothing behind
            if note.read_text() and alive(int(note.read_text())):
                os.kill(int(note.read_text()), signal.SIGKILL)

    def stages(self, **stages: dict[str, Any]) -> "Toy":
        """Declare stages: what they need (other stages), read (files) and are tagged with goes to
        dvc.yaml, the rest is what the stage does."""
        declared = {}
        for name, do in stages.items():
            inputs = [f"{need}.out" for need in do.pop("needs", [])]
            declared[name] = {
                "cmd": " ".join(["python stage.py", name, *inputs]),
                "deps": [f"{name}.json", *inputs, *do.pop("reads", [])],
                "outs": [f"{name}.out"],
                "meta": {"tags": do.pop("tags", [])},
            }
            self.tell(name, **do)
        (self.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": declared}))
        return self

    def tell(self, name: str, **do: Any) -> None:
        (self.root / f"{name}.json").write_text(json.dumps(do))

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.root, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "as it is")

    def start(self, *arguments: str, **env: str) -> "subprocess.Popen[str]":
        """Start `python -m flows.run` as a person at a terminal would."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows.run", *arguments],
            cwd=self.root,
            env=self.env | env,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def begin(self, *arguments: str) -> Inside:
        """Begin what `start` starts in this process, in a third of the time."""
        inside = Inside(self, arguments)
        inside.start()
        return inside

    def flow(self, *arguments: str) -> FlowRun:
        return self.begin(*arguments).finish()

    def hear(self, process: "subprocess.Popen[str]", words: str) -> str:
        """The line with these words, once a run of `start` prints it."""
        heard = []
        for line in process.stdout or []:
            heard.append(line)
            if words in line:
                return line
        raise AssertionError("".join([f"never said {words!r}:\n", *heard]))

    def finish(self, process: "subprocess.Popen[str]") -> FlowRun:
        """Wait for a run of `start`, of whose output a test may have read a part."""
        output, _ = process.communicate(timeout=PATIENCE)
        return self.heard_of(output, process.returncode)

    def heard_of(self, output: str, code: int) -> FlowRun:
        """Read back the run whose page the output names."""
        found = re.search(r"flow-run/([0-9a-f-]{36})", output)
        assert found, output
        return self.heard(found[1], output, code)

    def latest(self) -> str:
        """The flow run that began last; tests begin them one by one."""
        runs = self.post("flow_runs/filter", sort="START_TIME_DESC", limit=1)
        return str(runs[0]["id"])

    def heard(self, run_id: str, output: str = "", code: int = 0) -> FlowRun:
        """Read the run back from the API; task runs' states reach it a moment after the fact."""
        said = set(re.findall(r"Task run '([^']+)' - Finished in state", output))
        settled = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
        end = time.monotonic() + PATIENCE / 4
        while True:
            run = self.get(f"flow_runs/{run_id}")
            tasks = self.tasks(run_id)
            states = [task["state"] for task in tasks.values()]
            # NotReady is the state of what is below a failed stage. What a run that crashed had
            # not begun stays Pending.
            left = {"NotReady", *(["Pending"] if run["state"]["type"] == "CRASHED" else [])}
            over = all(s["type"] in settled or s["name"] in left for s in states)
            if (over and said <= set(tasks)) or time.monotonic() > end:
                page = f"{self.api.removesuffix('/api')}/runs/flow-run/{run_id}"
                return FlowRun(run_id, page, run["state"], tasks, output, code)
            time.sleep(0.1)

    def tasks(self, run_id: str) -> dict[str, dict[str, Any]]:
        """The task runs of a flow run that the server knows of by now."""
        found = self.post("task_runs/filter", flow_runs={"id": {"any_": [run_id]}})
        return {task["name"]: task for task in found}

    def get(self, path: str) -> Any:
        return self._client.get(path).raise_for_status().json()

    def post(self, path: str, **body: Any) -> Any:
        reply = self._client.post(path, json=body).raise_for_status()
        return reply.json() if reply.content else None

    def delete(self, path: str) -> None:
        self._client.delete(path).raise_for_status()

    def artifacts(self, run: FlowRun) -> dict[str, dict[str, Any]]:
        found = self.post("artifacts/filter", artifacts={"flow_run_id": {"any_": [run.id]}})
        return {artifact["key"]: artifact for artifact in found}

    def logs(self, task_run_id: str) -> list[str]:
        wanted = {"task_run_id": {"any_": [task_run_id]}}
        return [entry["message"] for entry in self.post("logs/filter", logs=wanted)]

    def pid(self, name: str) -> int:
        """The process of a stage, once it is at work."""
        wait_for(lambda: (self.root / f"{name}.pid").exists())
        wait_for(lambda: (self.root / f"{name}.pid").read_text() != "")
        return int((self.root / f"{name}.pid").read_text())


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end, pause = time.monotonic() + seconds, 0.01
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the second where it ended as it was read
        return False
    return state != "Z"  # a zombie is dead; only nobody has taken note yet


def listening(process: psutil.Process) -> set[str]:
    """The addresses at which a process or one of its children takes connections."""
    found = set()
    for each in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            for one in each.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN:
                    found.add(one.laddr.ip)
    return found


def declare(toy: Toy, **schedule: str) -> None:
    """A prefect.yaml as the project's, whose nightly run has the given schedule.

    The deployments of the tests before are forgotten, with the runs still due.
    """
    for deployment in toy.post("deployments/filter"):
        toy.delete(f"deployments/{deployment['id']}")
    reschedule(toy, **schedule)


def reschedule(toy: Toy, **schedule: str) -> None:
    declared = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
    for deployment in declared["deployments"]:
        deployment.pop("schedules", None)
    declared["deployments"][0]["schedules"] = [schedule] if schedule else []
    (toy.root / "prefect.yaml").write_text(yaml.safe_dump(declared))


@contextmanager
def background(toy: Toy, *command: str, **env: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(command, cwd=toy.root, env=toy.env | env, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)

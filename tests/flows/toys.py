"""DVC repositories of small stages, the flow run in them, and what Prefect's API says of it."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

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
    state: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    output: str
    code: int

    def states(self) -> dict[str, str]:
        return {name: task["state"]["name"] for name, task in self.tasks.items()}


class Toy:
    """A DVC repository of small stages, and the runs of the flow in it."""

    def __init__(self, root: Path, api: str) -> None:
        self.root = root
        self.api = api
        self.env = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]),
            "PWD": str(root),
            "PREFECT_API_URL": api,
            "PREFECT_HOME": str(root.parent / "prefect_home"),
            "GIT_AUTHOR_NAME": "toy",
            "GIT_AUTHOR_EMAIL": "toy@localhost",
            "GIT_COMMITTER_NAME": "toy",
            "GIT_COMMITTER_EMAIL": "toy@localhost",
        }
        root.mkdir()
        self.run("git", "init", "--quiet")
        self.run("dvc", "init", "--quiet")
        self.run("dvc", "config", "core.analytics", "false")
        (root / "stage.py").write_text(STAGE)
        (root / ".gitignore").write_text("*.pid\n/.headstart/\n")

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

    def flow(self, *arguments: str, **env: str) -> FlowRun:
        return self.finish(self.start(*arguments, **env))

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
        found = re.search(r"flow-run/([0-9a-f-]{36})", output)
        return self.heard(found[1] if found else self.latest(), output, process.returncode)

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
            # NotReady is the state of what is below a failed stage.
            over = all(s["type"] in settled or s["name"] == "NotReady" for s in states)
            if (over and said <= set(tasks)) or time.monotonic() > end:
                return FlowRun(run_id, run["state"], tasks, output, code)
            time.sleep(0.2)

    def tasks(self, run_id: str) -> dict[str, dict[str, Any]]:
        """The task runs of a flow run that the server knows of by now."""
        found = self.post("task_runs/filter", flow_runs={"id": {"any_": [run_id]}})
        return {task["name"]: task for task in found}

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.api}/{path}", timeout=60).raise_for_status().json()

    def post(self, path: str, **body: Any) -> Any:
        reply = httpx.post(f"{self.api}/{path}", json=body, timeout=60).raise_for_status()
        return reply.json() if reply.content else None

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
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie is dead; only nobody has taken note yet.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"

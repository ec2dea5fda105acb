"""All of a federation on this machine: a SuperLink and a SuperNode a site, on loopback.

`python -m federated.loopback site-1 site-2 site-3 --set rounds=5` runs in `.venv-flower`; each site
is the folder of a project. To try it, to test it and to measure it; `docs/flower.md` says what is
different between machines.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from pipeline.core import command
from pipeline.core.errors import ParamsError, RunError

APP = Path(__file__).with_name("app")
# Flower tells its makers how it is used, looks for newer versions, and fetches an app's packages.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
DONE = "federated: the head of"  # begins the last line of a run that came to its end
HOST = "127.0.0.1"
STARTS = 60  # seconds in which the SuperLink has to be there


class Federation:
    """A SuperLink and its SuperNodes; leaving the context ends them all.

    `home` is a folder for Flower's own files and for what the processes print. `sites` are folders
    of projects by the names of the sites. `through` are other ports by the names of sites: such a
    site's SuperNode goes there instead of to the SuperLink.
    """

    def __init__(
        self,
        home: Path,
        sites: Mapping[str, Path],
        secure_sites: bool = False,
        through: Mapping[str, int] | None = None,
        python: Path = Path(sys.executable),
    ) -> None:
        """Start nothing yet; Flower is that beside `python`."""
        self.home, self.sites, self.secure_sites = home.resolve(), dict(sites), secure_sites
        self.through = dict(through or {})
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.env = dict(os.environ) | QUIET | {"FLWR_HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        self.programs = python.parent.resolve()
        if not (self.programs / "flower-superlink").exists():
            raise RunError(
                f"Flower is not in {self.programs}: run make flower, and then this with"
                " .venv-flower/bin/python"
            )
        self.env["PATH"] = os.pathsep.join([str(self.programs), self.env.get("PATH", "")])
        clone = str(Path(__file__).parent.parent)
        self.env["PYTHONPATH"] = os.pathsep.join([clone, self.env.get("PYTHONPATH", "")])

    def __enter__(self) -> "Federation":
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "loopback"\n\n'
            f'[superlink.loopback]\naddress = "{HOST}:{self.port}"\ninsecure = true\n'
        )
        self.start(
            "superlink", "flower-superlink", "--insecure", "--host", HOST, "--port", str(self.port)
        )
        self._wait_for_superlink()
        for name in self.sites:
            self.start_site(name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in list(self.processes):
            self.kill(name, signal.SIGTERM)

    def start_site(self, name: str) -> None:
        """Start a site's SuperNode."""
        told = f'project="{self.sites[name].resolve()}" name="{name}"'
        if self.secure_sites:
            told += " secure=true"
        port = self.through.get(name, self.port)
        self.start(
            name, "flower-supernode", "--insecure", "--superlink", f"{HOST}:{port}",
            "--host", HOST, "--port", str(free_port()), "--node-config", told,
        )  # fmt: skip

    def start(self, name: str, program: str, *arguments: str) -> None:
        """Start a program of Flower's in a process group of its own."""
        found = self.programs / program
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(  # noqa: S603
                [str(found), *arguments], env=self.env, cwd=self.home, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self, name: str, with_signal: int = signal.SIGKILL) -> None:
        """End a process and all that it started."""
        process = self.processes.pop(name)
        try:
            os.killpg(process.pid, with_signal)
            process.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def run(self, settings: Mapping[str, object]) -> "subprocess.Popen[str]":
        """Start a run, whose log comes out of the process."""
        told = " ".join(f"{name}={_toml(value)}" for name, value in settings.items())
        flwr = self.programs / "flwr"
        return subprocess.Popen(  # noqa: S603
            [str(flwr), "run", str(APP), "loopback", "--stream", "--run-config", told],
            env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def _wait_for_superlink(self) -> None:
        end = time.monotonic() + STARTS
        while time.monotonic() < end and self.processes["superlink"].poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return
            time.sleep(0.1)
        raise RunError(f"the SuperLink did not start; see {self.home / 'superlink.log'}")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str | Path) else str(value)


def loopback() -> None:
    """Run a federation of the projects that are named, and print its log."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends all it started
    parser = argparse.ArgumentParser(prog="python -m federated.loopback", description=__doc__)
    parser.add_argument("site", nargs="+", help="folders of projects, each with its prepared file")
    parser.add_argument("--out", default="federated-head", help="the folder for what comes out")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="as rounds=5")
    parser.add_argument("--home", help="a folder for Flower's files and logs, kept")
    asked = parser.parse_args()
    folders = [Path(name) for name in asked.site]
    sites = {folder.resolve().name: folder for folder in folders}
    if len(sites) < len(folders):
        raise ParamsError("two sites have folders of the same name")
    settings: dict[str, object] = {"sites": len(sites), "out": Path(asked.out).resolve()}
    settings |= settings_in(asked.set)
    with (
        tempfile.TemporaryDirectory() as folder,
        Federation(Path(asked.home or folder), sites) as federation,
    ):
        running = federation.run(settings)
        said = [_told(line) for line in running.stdout or ()]
    if running.wait() or not any(line.startswith(DONE) for line in said):
        raise RunError(f"the run failed: {' '.join(' '.join(said[-3:]).split())}")


def _told(line: str) -> str:
    if line.startswith("federated:"):
        print(line, end="", flush=True)
    return line


def settings_in(words: Sequence[str]) -> dict[str, object]:
    """`NAME=VALUE`, each value a number, true, false or a text."""
    found: dict[str, object] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ParamsError(f"{word} is not NAME=VALUE")
        if value in ("true", "false"):
            found[name] = value == "true"
        else:
            found[name] = _number(value)
    return found


def _number(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


if __name__ == "__main__":
    command.run(loopback, takes_arguments=True)

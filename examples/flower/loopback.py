"""Start a SuperLink and a SuperNode for each site on 127.0.0.1, have a run, and end them.

    .venv-flower/bin/python ../../flower/loopback.py sites/site-*.npz [--set rounds=3]

It runs with Flower's packages; further settings are those of `app/pyproject.toml`.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

APP = Path(__file__).with_name("app")
HEAD = Path("sites/head.npz")
PROGRAMS = Path(sys.executable).parent
HOST = "127.0.0.1"
STARTS = 60  # seconds in which the SuperLink has to be there
# Flower reports to its makers how it is used, looks for newer versions, and fetches packages.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_NUM_THREADS": "1",
}


def main() -> None:
    """Have a run; its log is printed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends all that was started
    parser = argparse.ArgumentParser(prog="loopback.py", description=__doc__)
    parser.add_argument("site", nargs="+", type=Path, help="files that sites.py wrote")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="as rounds=3")
    asked = parser.parse_args()
    if missing := [file for file in asked.site if not file.is_file()]:
        sys.exit(f"loopback: error: {missing[0]} is not there: run sites.py first")
    if not (PROGRAMS / "flower-superlink").exists():
        sys.exit("loopback: error: Flower is not there: run make flower, and this with its Python")
    settings = [f'out="{HEAD.resolve()}"', f"sites={len(asked.site)}", *asked.set]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        home, port = Path(folder), free_port()
        (home / "config.toml").write_text(
            f'[superlink.loopback]\naddress = "{HOST}:{port}"\ninsecure = true\n'
        )
        environment = os.environ | QUIET | {"FLWR_HOME": folder}
        environment["PATH"] = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"

        def start(name: str, *arguments: str) -> None:
            command = [str(PROGRAMS / name), "--insecure", "--host", HOST, *arguments]
            running.enter_context(started(command, environment, home / f"{name}.log"))

        start("flower-superlink", "--port", str(port))
        wait_for(port)
        for file in asked.site:
            features = f'features="{file.resolve()}"'
            start(
                "flower-supernode", "--superlink", f"{HOST}:{port}", "--port", str(free_port()),
                "--node-config", features,
            )  # fmt: skip
        command = [str(PROGRAMS / "flwr"), "run", str(APP), "loopback", "--stream"]
        command += ["--run-config", " ".join(settings)]
        HEAD.unlink(missing_ok=True)
        subprocess.run(command, env=environment, check=False)
    if not HEAD.exists():  # of a run that failed, too, `flwr run` ends with 0
        sys.exit("loopback: error: the run made no head; its log is above")


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """Have a program run, in a process group of its own, which ends with it."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until somebody listens there."""
    end = time.monotonic() + STARTS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        if time.monotonic() > end:
            sys.exit(f"the SuperLink is not there after {STARTS} s")
        time.sleep(0.1)


if __name__ == "__main__":
    main()

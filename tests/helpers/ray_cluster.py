"""Machines of a Ray cluster, each a network namespace that reaches the others and nothing else.

Ray 2.60 binds to the outer address whatever is set, and asks an outside address for its route.
Here there is none: the head's namespace has a bridge, and the others have an end of a cable to it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

TOKEN = "a-token-of-ray-that-is-to-be-found-nowhere"  # noqa: S105
PORT = 6379
BIN = Path(sys.executable).parent
ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
}


def allowed() -> bool:
    """Whether network namespaces can be made here."""
    tools = all(map(shutil.which, ("unshare", "nsenter", "ip")))
    made = "ip link set lo up && ip link add one type bridge"
    return (
        tools
        and not subprocess.run(
            ["unshare", "--net", "sh", "-c", made], capture_output=True
        ).returncode
    )


needs_namespaces = pytest.mark.skipif(
    not allowed(), reason="Ray is started only in network namespaces, which need root here"
)


class Machine:
    """A network namespace with a loopback and one address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.namespace = f"/proc/{self._holder.pid}/ns/net"
        own = Path("/proc/self/ns/net").readlink()
        until = time.monotonic() + 10
        while Path(self.namespace).readlink() == own:
            assert time.monotonic() < until
            time.sleep(0.01)
        self.sh("ip link set lo up")

    def command(self, *words: str) -> list[str]:
        """The command, for a process in this machine."""
        return ["nsenter", f"--net={self.namespace}", *words]

    def sh(self, script: str) -> None:
        subprocess.run(self.command("sh", "-c", script), check=True)

    def take_cable(self, other: "Machine", name: str) -> None:
        """A cable from here to the bridge of another machine."""
        holder = self._holder.pid
        other.sh(
            f"ip link add {name} type veth peer name eth0 netns {holder}"
            f" && ip link set {name} master br0 up"
        )
        self.sh(f"ip addr add {self.address}/24 dev eth0 && ip link set eth0 up")

    def end(self) -> None:
        self._holder.kill()
        self._holder.wait()


class Cluster:
    """A head, where the driver is, and nodes; all of its processes end with it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.environment = os.environ | ALWAYS | {"PYTHONPATH": str(ROOT)} | environment
        self.folder = folder
        self.head = Machine("10.77.0.1")
        self.head.sh("ip link add br0 type bridge && ip link set br0 up")
        self.head.sh(f"ip addr add {self.head.address}/24 dev br0")
        self.machines = [self.head]
        self.address = f"{self.head.address}:{PORT}"

    def start_head(self, cpus: int = 1) -> None:
        self._ray(
            self.head, {}, "--head", f"--port={PORT}", f"--num-cpus={cpus}",
            "--include-dashboard=false", f"--temp-dir={self.folder}",
        )  # fmt: skip

    def start_node(self, cpus: int = 1, **environment: str) -> Machine:
        """A further machine, which joins."""
        number = len(self.machines) + 1
        machine = Machine(f"10.77.0.{number}")
        machine.take_cable(self.head, f"cable{number}")
        self.machines.append(machine)
        self.join(machine, cpus, **environment)
        return machine

    def join(self, machine: Machine, cpus: int = 1, **environment: str) -> None:
        self._ray(machine, environment, f"--address={self.address}", f"--num-cpus={cpus}")

    def _ray(self, machine: Machine, environment: dict[str, str], *options: str) -> None:
        done = subprocess.run(
            machine.command(
                str(BIN / "ray"), "start", f"--node-ip-address={machine.address}",
                "--disable-usage-stats", "--object-store-memory=80000000", *options,
            ),
            env=self.environment | environment, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]

    def processes(self, machine: Machine | None = None) -> dict[int, str]:
        """What runs on a machine, or on all, by its id."""
        spaces = {
            Path(one.namespace).stat().st_ino for one in ([machine] if machine else self.machines)
        }
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "ns" / "net").stat().st_ino in spaces:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = words.decode(errors="replace").strip()
        return {pid: words for pid, words in found.items() if "sleep infinity" not in words}

    def workers(self) -> dict[int, str]:
        """The actors that are there."""
        return {pid: it for pid, it in self.processes().items() if it.startswith("ray::Worker")}

    def kill(self, machine: Machine) -> None:
        """All of a machine's processes at once, as if its power were cut."""
        for pid in self.processes(machine):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command on the head's machine."""
        environment = self.environment | options.pop("environment", {})
        return subprocess.run(
            self.head.command(*words), env=environment, text=True, capture_output=True,
            **({"timeout": 400} | options),
        )  # fmt: skip

    def start(self, *words: str, **options: Any) -> "subprocess.Popen[str]":
        """The same, left to run."""
        environment = self.environment | options.pop("environment", {})
        return subprocess.Popen(self.head.command(*words), env=environment, text=True, **options)

    def end(self) -> None:
        for machine in self.machines:
            self.kill(machine)
        for machine in self.machines:
            machine.end()


@contextlib.contextmanager
def cluster(**environment: str) -> Iterator[Cluster]:
    """A head of one CPU, and whatever is started later."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # its sockets need a short path
    made = Cluster(folder, environment)
    try:
        made.start_head()
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)

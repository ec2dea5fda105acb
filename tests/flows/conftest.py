"""Real parts: a Prefect server on loopback, and a DVC repository."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from toys import Toy, alive, free_port

from flows import server as prefect_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server with a fresh PREFECT_HOME; its address for the API."""
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    with mock.patch.dict(os.environ, {"PREFECT_HOME": str(home)}):
        os.environ.pop("PREFECT_API_URL", None)
        with prefect_server.running(home, "127.0.0.1", port) as api:
            yield api


@pytest.fixture
def toy(tmp_path: Path, server: str) -> Iterator[Toy]:
    yield Toy(tmp_path / "toy", server)
    for note in (tmp_path / "toy").glob("*.pid"):  # a test that failed leaves nothing behind
        if note.read_text() and alive(int(note.read_text())):
            os.kill(int(note.read_text()), signal.SIGKILL)

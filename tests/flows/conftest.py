"""Real parts: a Prefect server on loopback, and a DVC repository."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from toys import PATIENCE, PROJECT, Toy, free_port, wait_for

from flows import access
from flows.server import ADDRESS, QUIET

os.environ |= QUIET  # before any test's module imports Prefect
RUNNING = contextlib.ExitStack()  # what is ended after the last test of this folder


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """An idle server takes 1/40 of a core, for as long as other tests run on this worker."""
    if nextitem is None or not nextitem.nodeid.startswith("tests/flows/"):
        RUNNING.close()


@contextlib.contextmanager
def dashboard_in(root: Path) -> Iterator[None]:
    (root / ".dvc").mkdir()
    unwanted = {"PREFECT_API_URL", access.GIVEN, access.WANTED, "DISPLAY", "WAYLAND_DISPLAY"}
    env = {name: value for name, value in os.environ.items() if name not in unwanted}
    env |= {"PREFECT_HOME": str(root / "home"), "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "flows.dashboard", "--port", str(free_port())]
    process = subprocess.Popen(command, cwd=root, env=env, start_new_session=True)
    try:
        wait_for((root / ADDRESS).exists)
        (root / "pid").write_text(str(process.pid))
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    assert not (root / ADDRESS).exists()


@pytest.fixture(scope="session")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working copy in which `python -m flows.dashboard` was started, on another port than its
    own, with a fresh PREFECT_HOME and the password that it makes."""
    root = tmp_path_factory.mktemp("dashboard")
    RUNNING.enter_context(dashboard_in(root))
    return root


@pytest.fixture(scope="session")
def password(dashboard: Path) -> str:
    """The user:password that the server of the tests has made."""
    (file,) = (dashboard / "home").glob("headstart-*.password")
    return file.read_text().strip()


@contextlib.contextmanager
def used_here(api: str, password: str, home: Path) -> Iterator[None]:
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_HOME,
        temporary_settings,
    )

    ours = {PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: password, PREFECT_HOME: home}
    with temporary_settings(ours):
        yield
        for worker in (EventsWorker, APILogWorker):  # what they still hold is for this server
            worker.drain_all(timeout=PATIENCE, at_exit=False)


@pytest.fixture(scope="session")
def server(dashboard: Path, password: str) -> str:
    """The address of a Prefect server's API, which Prefect uses in this process too."""
    api = (dashboard / ADDRESS).read_text()
    RUNNING.enter_context(used_here(api, password, dashboard / "client"))
    return api


@pytest.fixture
def toy(tmp_path: Path, server: str, password: str, dvc_template: Path) -> Iterator[Toy]:
    with Toy(tmp_path / "toy", server, dvc_template, password) as toy:
        yield toy

"""A Prefect server that does not start or does not answer, played by a stand-in."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from toys import free_port

from flows import access, server
from pipeline.core.errors import RunError

HANGS = ["sleep", "1000"]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands to start one after another in the place of a server, soon given up."""
    commands: list[list[str]] = []

    def start(host: str, port: int, names: list[str]) -> subprocess.Popen[bytes]:
        command = [word.replace("PORT", str(port)) for word in commands.pop(0)]
        return subprocess.Popen(command, start_new_session=True)

    monkeypatch.setattr(server, "_start", start)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(access.GIVEN, "")
    return commands


@pytest.mark.slow
def test_it_is_started_again(
    started: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "api" / "health").mkdir(parents=True)
    answering = [sys.executable, "-m", "http.server", "PORT", "--directory", str(tmp_path)]
    started += [HANGS, answering]
    monkeypatch.setattr(server, "PATIENCE_SECONDS", 5.0)
    with server.running(tmp_path, "127.0.0.1", free_port()) as api:
        assert server.answers(api)
    assert not server.answers(api)


def test_twice_is_an_error(
    started: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started += [HANGS, HANGS]
    monkeypatch.setattr(server, "PATIENCE_SECONDS", 0.5)
    with (
        pytest.raises(RunError, match="did not answer in 0 s, twice"),
        server.running(tmp_path, "127.0.0.1", free_port()),
    ):
        pass


def test_a_home_that_cannot_be_written_to_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "not" / "yet"))
    server.stop_without_home()
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # root may write everywhere
    with pytest.raises(RunError, match=r"/not/yet, which cannot .*: set PREFECT_HOME to another"):
        server.stop_without_home()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite+aiosqlite:////not/there/prefect.db", "unable to open database file; check"),
        ("postgresql+asyncpg://anna:wr0ng@127.0.0.1:9/x", "Connect call failed"),
        ("postgres-anna:wr0ng", "see what"),
    ],
)
def test_a_database_that_a_server_for_one_run_could_not_open_is_a_line(url: str, said: str) -> None:
    from prefect.server.database.dependencies import temporary_database_config
    from prefect.settings import (
        PREFECT_API_DATABASE_CONNECTION_URL,
        PREFECT_API_URL,
        temporary_settings,
    )

    with (
        temporary_database_config(None),
        temporary_settings(
            {PREFECT_API_DATABASE_CONNECTION_URL: url}, restore_defaults={PREFECT_API_URL}
        ),
        pytest.raises(RunError) as error,
    ):
        server.stop_without_database()
    line = str(error.value)
    assert said in line
    assert "PREFECT_API_DATABASE_CONNECTION_URL" in line
    assert "\n" not in line
    assert "wr0ng" not in line


def test_what_is_no_http_server_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            for _ in range(2):
                asked, _ = listening.accept()
                with asked:
                    asked.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                    asked.recv(10_000)

        greeting = threading.Thread(target=greet, daemon=True)
        greeting.start()
        api = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        assert not server.answers(api)
        assert not server.answers(api, with_anything=True)
        greeting.join()

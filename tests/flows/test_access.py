"""Who may come in: what people read who bring no password, a wrong one, or one that cannot be."""

import os
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, temporary_settings
from toys import AUTH, PASSWORD, Toy, free_port

from flows import access, predict, run, serve, uptodate, watch
from flows.complaints import Complaints
from flows.dvc import pool
from flows.server import find
from pipeline.core.errors import MayPassError, RunError


def refused(toy: Toy, words: str) -> None:
    """Each command that talks to the server ends with a line of these words, as does a look."""
    with pytest.raises(RunError, match=words):
        run.bring_up_to_date(run.arguments(["--set", "a=1"]), print)
    with pytest.raises(RunError, match=words):
        serve.run("127.0.0.1", free_port(), [], 1.0)
    for every in (None, 1.0):
        with pytest.raises(RunError, match=words):
            predict.ask({}, every, "127.0.0.1", free_port())
    with pytest.raises(MayPassError, match=f"headstart/on-change was not started: {words}"):
        watch.start_run()


@pytest.mark.slow
def test_none_and_a_wrong_one_are_a_line(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.stages(a={})
    at = f"the Prefect server at {toy.api}"
    monkeypatch.delenv(access.GIVEN)
    with temporary_settings(restore_defaults={PREFECT_API_AUTH_STRING}):
        refused(toy, f"{at} wants a password: set PREFECT_API_AUTH_STRING to its user:password")
        with temporary_settings({PREFECT_API_KEY: "a-key"}):
            refused(toy, f"{at} refuses PREFECT_API_KEY: set it anew, or PREFECT_API_AUTH_STRING")
    monkeypatch.setenv(access.GIVEN, "team:wrong")
    with temporary_settings({PREFECT_API_AUTH_STRING: "team:wrong"}):
        refused(toy, f"{at} refuses the password in PREFECT_API_AUTH_STRING: set it to the server")
    with (
        temporary_settings({PREFECT_API_AUTH_STRING: "team:bäh"}),
        pytest.raises(RunError, match="PREFECT_API_AUTH_STRING holds more than ASCII"),
    ):
        access.refusal(toy.api)


def test_a_run_with_nothing_to_do_is_noted_with_the_password(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.stages(a={})
    toy.run("dvc", "repro")
    said: list[str] = []
    pool.warm_up(toy.root)
    assert uptodate.noted(toy.root, toy.api, [], said.append)
    assert said[0] == "Completed: 1 cached"
    monkeypatch.setenv(access.GIVEN, "team:wrong")
    assert not uptodate.noted(toy.root, toy.api, [], said.append)
    pool._warm.pop(toy.root).stop()


def test_a_password_goes_to_no_other_server() -> None:
    heard: list[str] = []

    class Sends(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Sends) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with temporary_settings({PREFECT_API_AUTH_STRING: PASSWORD}):
            assert access.refusal(f"http://127.0.0.1:{server.server_port}") is None
        server.shutdown()
    assert heard == ["/hello"]


def test_a_server_says_nothing_to_who_brings_no_password(toy: Toy) -> None:
    assert httpx.get(f"{toy.api}/admin/settings").status_code == 401
    shown = httpx.get(f"{toy.api}/admin/settings", auth=AUTH).text
    assert PASSWORD not in shown


@pytest.mark.parametrize(
    ("wanted", "given", "words"),
    [
        ("", None, "PREFECT_SERVER_API_AUTH_STRING is empty, and would let nobody in"),
        ("team:bäh", None, "PREFECT_SERVER_API_AUTH_STRING holds more than ASCII"),
        ("team:one", "team:two", "is not the password that PREFECT_SERVER_API_AUTH_STRING gives"),
    ],
)
def test_no_server_is_started_that_would_let_nobody_in(
    wanted: str, given: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ((access.WANTED, wanted), (access.GIVEN, given)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=words) as caught:
        access.share_password()
    assert not {"one", "two", "bäh"} & set(str(caught.value).replace(":", " ").split())


def test_its_password_is_for_its_clients_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(access.WANTED, "team:one")
    monkeypatch.setenv(access.GIVEN, "")
    access.share_password()
    assert os.environ[access.GIVEN] == "team:one"


def test_an_address_with_a_password_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://team:secret@127.0.0.1:4200/api")
    with pytest.raises(RunError, match="holds a password, which every") as caught:
        find(tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            'asyncpg.exceptions.InvalidPasswordError: password authentication failed for user "me"',
            'its database says: password authentication failed for user "me"; see to the user',
        ),
        (
            "ConnectionRefusedError: [Errno 111] Connect call failed ('::1', 9)",
            r"\('::1', 9\); see",
        ),
        ("ValueError: invalid literal for int(): 'half-a-password'", "if its port is taken"),
    ],
)
def test_why_a_server_did_not_start(said: str, words: str, tmp_path: Path) -> None:
    traceback = f"Traceback (most recent call last):\n  File ...\n{said}\n\nERROR:    Exiting.\n"
    (tmp_path / "stderr").write_text(traceback)
    with (tmp_path / "stderr").open("rb") as stderr:
        why = Complaints(stderr).why()
    assert re.search(words, why)
    assert "half-a-password" not in why


def test_a_server_that_is_up_is_heard(capsys: pytest.CaptureFixture[str]) -> None:
    ear, mouth = os.pipe()
    with os.fdopen(ear, "rb") as stderr, os.fdopen(mouth, "wb", buffering=0) as server:
        complaints = Complaints(stderr)
        server.write(b"as it starts\n")
        complaints.pass_on()
        server.write(b"later\n")
        server.close()
        complaints._thread.join()
    assert capsys.readouterr().err == "as it starts\nlater\n"

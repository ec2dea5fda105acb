"""Who may come in: what people read who bring no password, a wrong one, or one that cannot be."""

import argparse
import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import psutil
import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_API_URL,
    temporary_settings,
)
from toys import PROJECT, Toy, free_port, listening

from flows import access, predict, run, serve, uptodate, watch
from flows import dashboard as page
from flows.complaints import Complaints
from flows.dvc import pool
from flows.dvc.claim import KEPT
from flows.server import find, page_at, running, stop_if_too_open
from pipeline.core.errors import MayPassError, RunError

HERE = "http://127.0.0.1:4200/api"
ALL = "0.0.0.0"  # noqa: S104


def refused(toy: Toy, words: str) -> None:
    """Each command that talks to the server ends with a line of these words, as does a look."""
    with pytest.raises(RunError, match=words):
        run.bring_up_to_date({"overrides": ["a=1"]}, print)
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
        refused(toy, f"{at} needs a password: set PREFECT_API_AUTH_STRING to its user:password")
        with temporary_settings({PREFECT_API_KEY: "a-key"}):
            refused(
                toy, f"{at} refuses PREFECT_API_KEY: set it again, or set PREFECT_API_AUTH_STRING"
            )
    monkeypatch.setenv(access.GIVEN, "team:wrong")
    with temporary_settings({PREFECT_API_AUTH_STRING: "team:wrong"}):
        refused(toy, f"{at} refuses the password in PREFECT_API_AUTH_STRING: set it to the server")
    with (
        temporary_settings({PREFECT_API_AUTH_STRING: "team:bäh"}),
        pytest.raises(RunError, match="PREFECT_API_AUTH_STRING has characters outside ASCII"),
    ):
        access.refusal(toy.api)


def test_a_run_with_nothing_to_do_is_recorded_with_the_password_if_there_is_a_server(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.stages(a={})
    toy.run("dvc", "repro")
    said: list[str] = []
    pool.warm_up(toy.root)
    assert uptodate.answered(toy.root, toy.api, [], said.append, lambda: None)
    assert said.pop(0) == "Completed: 1 cached"
    assert said.pop().startswith(f"Dashboard: {toy.api.removesuffix('/api')}/runs/flow-run/")
    monkeypatch.setenv(access.GIVEN, "team:wrong")
    assert not uptodate.answered(toy.root, toy.api, [], said.append, lambda: None)
    # No server is found, but Prefect's settings have one, which only the flow can report to.
    assert not uptodate.answered(toy.root, None, [], said.append, lambda: None)
    with temporary_settings({PREFECT_API_URL: None}):
        assert uptodate.answered(toy.root, None, [], said.append, lambda: None)
    assert said == ["Completed: 1 cached", f"Dashboard: {uptodate.NOT_RECORDED}"]
    # A run with a gate was cancelled; the flow then forgets the result from before it.
    (toy.root / KEPT).mkdir(parents=True)
    assert not uptodate.answered(toy.root, toy.api, [], said.append, lambda: None)
    pool._warm.pop(toy.root).stop()


def test_a_server_that_is_busy_for_a_moment_is_asked_again(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    class IsBusyAtFirst(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            heard.append(self.path)
            answer = httpx.Response(503)
            if self.path != always_busy and heard.count(self.path) > times_busy:
                url = toy.api + self.path.removeprefix("/api")
                of_json = {"Content-Type": "application/json"}
                asked = self.command, url
                answer = httpx.request(*asked, content=body, auth=toy.auth, headers=of_json)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_DELETE = do_POST  # noqa: N815 (called by this name)

    always_busy = ""
    toy.stages(a={})
    toy.run("dvc", "repro")
    said: list[str] = []
    pool.warm_up(toy.root)
    monkeypatch.setattr(uptodate, "SECONDS_UNTIL_ASKED_AGAIN", (0.01, 0.01))
    with ThreadingHTTPServer(("127.0.0.1", 0), IsBusyAtFirst) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        api = f"http://127.0.0.1:{server.server_port}/api"
        times_busy = 2
        assert uptodate.answered(toy.root, api, [], said.append, lambda: None)
        assert heard[:4] == [*["/api/flows/"] * 3, "/api/flow_runs/"]
        heard.clear()
        times_busy = 3
        assert not uptodate.answered(toy.root, api, [], said.append, lambda: None)
        assert heard == ["/api/flows/"] * 3
        # What was recorded until then is deleted, since the flow records a run of its own.
        heard.clear()
        times_busy, always_busy = 0, "/api/task_runs/"
        latest = toy.latest()
        assert not uptodate.answered(toy.root, api, [], said.append, lambda: None)
        assert heard[:-1] == ["/api/flows/", "/api/flow_runs/", *[always_busy] * 3]
        assert heard[-1].startswith("/api/flow_runs/")
        assert toy.latest() == latest
        server.shutdown()
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
        with temporary_settings({PREFECT_API_AUTH_STRING: "team:one"}):
            assert access.refusal(f"http://127.0.0.1:{server.server_port}") is None
        server.shutdown()
    assert heard == ["/hello"]


def test_a_server_says_nothing_to_who_brings_no_password(toy: Toy) -> None:
    assert httpx.get(f"{toy.api}/admin/settings").status_code == 401
    shown = httpx.get(f"{toy.api}/admin/settings", auth=toy.auth).text
    assert toy.auth[1] not in shown


@pytest.mark.parametrize(
    ("wanted", "given", "words"),
    [
        ("", None, "PREFECT_SERVER_API_AUTH_STRING is empty, so nobody could log in"),
        ("team:bäh", None, "PREFECT_SERVER_API_AUTH_STRING has characters outside ASCII"),
        ("team:one", "team:two", "PREFECT_SERVER_API_AUTH_STRING have different passwords"),
    ],
)
def test_no_server_is_started_that_would_let_nobody_in(
    wanted: str, given: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", "/nowhere")
    for name, value in ((access.WANTED, wanted), (access.GIVEN, given)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=words) as caught:
        access.share_password(HERE)
    assert not {"one", "two", "bäh"} & set(str(caught.value).replace(":", " ").split())


def test_its_password_is_for_its_clients_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", "/nowhere")
    monkeypatch.setenv(access.WANTED, "team:one")
    monkeypatch.setenv(access.GIVEN, "")
    access.share_password(HERE)
    assert os.environ[access.GIVEN] == "team:one"


def test_one_that_was_chosen_may_lie_in_a_file_or_in_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("team:of-the-file\n")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv(access.WANTED, raising=False)
    monkeypatch.setenv(access.FILE, str(tmp_path / "secret"))
    monkeypatch.setenv(access.GIVEN, "")
    made = access.make(HERE)
    access.share_password(HERE, "team:of-the-profile")
    assert os.environ[access.GIVEN] == "team:of-the-file"
    assert access.made_for(HERE) is None  # it was another server's
    monkeypatch.delenv(access.FILE)
    monkeypatch.setenv(access.GIVEN, "")
    access.share_password(HERE, "team:of-the-profile")
    assert os.environ[access.GIVEN] == "team:of-the-profile"
    assert "team" not in made
    monkeypatch.setenv(access.FILE, str(tmp_path / "nowhere"))
    with pytest.raises(RunError, match=r"AUTH_STRING_FILE: .*nowhere cannot be read"):
        access.share_password(HERE)


def test_one_is_made_for_each_server_of_this_machine_and_for_its_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (access.WANTED, access.FILE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(access.GIVEN, "")
    access.share_password(HERE)
    made = os.environ[access.GIVEN]
    file = access.file_of(HERE)
    assert file
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(made) > 40
    monkeypatch.setenv(access.GIVEN, "")
    assert access.bring(HERE.replace("127.0.0.1", "localhost")) == made
    # What others may have read is not used again, and what was made goes to no other server.
    file.chmod(0o644)
    assert access.make(HERE) not in {made, ""}
    assert file.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv(access.GIVEN, "")
    for other in ("http://127.0.0.1:9/api", "http://example.com:4200/api", "http://10.0.0.1:4200"):
        assert access.bring(other) is None


@pytest.mark.parametrize(
    ("host", "names", "wanted", "words"),
    [
        (ALL, ["prefect.example"], None, "set PREFECT_SERVER_API_AUTH_STRING to a user"),
        ("10.0.0.1", [], None, "set PREFECT_SERVER_API_AUTH_STRING to a user:password, or"),
        (ALL, [], "team:one", "add --name HOST for each name or address"),
        ("::", [], "team:one", "add --name HOST"),
    ],
)
def test_a_server_that_others_reach_has_a_password_and_names_or_is_not_started(
    host: str, names: list[str], wanted: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (access.WANTED, access.FILE):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RunError, match=words):
        stop_if_too_open(host, names, wanted)
    stop_if_too_open(host, ["prefect.example"], "team:one")
    for loopback in ("127.0.0.1", "127.1.2.3", "localhost", "::1"):
        stop_if_too_open(loopback, [], None)


def test_by_itself_a_server_listens_on_loopback_alone(dashboard: Path) -> None:
    for starts in (page, serve):
        parser = argparse.ArgumentParser()
        starts.add_arguments(parser)
        assert parser.parse_args([]).host == "127.0.0.1"
    assert listening(psutil.Process(int((dashboard / "pid").read_text()))) == {"127.0.0.1"}


@pytest.mark.parametrize(
    "wrong",
    [
        *(("--port", number) for number in ("0", "65536", "-1", "http")),
        *(("--look-every", number) for number in ("0", "-1", "nan", "inf", "often")),
    ],
)
def test_a_number_that_cannot_be_is_refused(wrong: tuple[str, str]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    serve.add_arguments(parser)
    asked = parser.parse_args(["--port", "65535", "--look-every", "0.5"])
    assert (asked.port, asked.look_every) == (65535, 0.5)
    with pytest.raises(argparse.ArgumentError, match=f"^argument {wrong[0]}: .* should be"):
        parser.parse_args(wrong)


@pytest.mark.slow
def test_as_a_command_that_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    command = [sys.executable, "-m", "flows.serve", "--host", ALL]
    command += ["--port", str(free_port())]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {"PREFECT_HOME": str(tmp_path / "home"), "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (9, 1), done.stderr
    assert done.stderr.startswith("serve: error: --host 0.0.0.0 opens the server to other")
    assert done.stdout == ""


def test_a_server_is_asked_at_an_address_that_can_be_asked() -> None:
    pages = {host: page_at(host, 1) for host in (ALL, "::", "::1", "prefect.example")}
    assert pages == {
        ALL: "http://127.0.0.1:1",
        "::": "http://[::1]:1",
        "::1": "http://[::1]:1",
        "prefect.example": "http://prefect.example:1",
    }


def test_an_older_server_that_wants_no_password_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Open(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Open) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        api = f"http://127.0.0.1:{server.server_port}/api"
        monkeypatch.setenv("PREFECT_API_URL", api)
        monkeypatch.setenv(access.GIVEN, "")
        monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
        with running(tmp_path, "127.0.0.1", server.server_port) as used:
            assert used == api
        assert access.let_in(api) is None
        server.shutdown()
    assert f"{api} needs no password: any page that a browser" in capsys.readouterr().out


def test_an_address_with_a_password_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://team:secret@127.0.0.1:4200/api")
    with pytest.raises(RunError, match="contains a password, which every") as caught:
        find(tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            'asyncpg.exceptions.InvalidPasswordError: password authentication failed for user "me"',
            'its database says: password authentication failed for user "me"; check the user',
        ),
        (
            "ConnectionRefusedError: [Errno 111] Connect call failed ('::1', 9)",
            r"\('::1', 9\); check",
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

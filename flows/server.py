"""Finding and starting the Prefect server that flow runs report to."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows import access
from flows.complaints import Complaints
from pipeline.core.errors import RunError

HOST, PORT = "127.0.0.1", 4200
PATIENCE_SECONDS = 300.0  # the first start makes the database; Prefect's own 20 s can be too few
# Neither the server nor its clients send figures about their use to anyone.
QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
ADDRESS = Path(".headstart") / "server"
ASK_PREFECT = "from prefect.settings import get_current_settings as s; print(s().api.url or '')"


def answers(api: str, with_anything: bool = False) -> bool:
    """Whether a Prefect server is up at `api`, such as `http://127.0.0.1:4200/api`.

    One that wants to know who asks, as Prefect Cloud does, answers `with_anything` else.
    """
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=2) as reply:  # noqa: S310
            return bool(reply.status == 200)
    except urllib.error.HTTPError:
        return with_anything
    except (urllib.error.URLError, OSError):
        return False


def find(root: Path) -> str | None:
    """The server to use: PREFECT_API_URL, or one started from the working copy `root` and up.

    None leaves it to Prefect: the address in its profile, or a server for one run alone.

    Raises:
        RunError: the address holds a password.
    """
    api = os.environ.get("PREFECT_API_URL")
    access.stop_if_shown(api or "")
    if api is None and (root / ADDRESS).exists():
        noted = (root / ADDRESS).read_text()
        api = noted if answers(noted) else None
    return api


def stop_without_home() -> None:
    """See that a server started here can keep its database.

    Raises:
        RunError: its folder cannot be written to.
    """
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(nearest, os.W_OK):
        raise RunError(
            f"Prefect keeps its database in {home}, which cannot be written to: set PREFECT_HOME to"
            " another folder"
        )


@contextmanager
def running(root: Path, host: str, port: int) -> Iterator[str]:
    """The address of a server that is up: the one that is configured, or was started in `root`.

    Where there is none, one is started at `host` and `port`; it is found by runs in `root` until
    it is ended here. Its database is SQLite in PREFECT_HOME, or what
    PREFECT_API_DATABASE_CONNECTION_URL says; its password is in PREFECT_SERVER_API_AUTH_STRING, and
    from then on in PREFECT_API_AUTH_STRING for Prefect in this process and below.

    Raises:
        RunError: it does not start, or the one that is configured does not answer.
    """
    api = f"http://{host}:{port}/api"
    known = find(root) or _in_profile() or api
    access.stop_if_shown(known)
    if answers(known, with_anything=known != api):
        yield known
        return
    if known != api:
        raise RunError(
            f"the Prefect server at {known} does not answer: start it, or take it out of"
            " PREFECT_API_URL or Prefect's profile to have one started here"
        )
    stop_without_home()
    access.share_password()
    # SIGTERM as Ctrl-C: it would end us without our ending the server.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = _start(host, port)
    try:
        if not _is_up(api, process):  # it has been seen to hang as it started
            print("it does not answer; starting it again", flush=True)
            _end(process)
            process = _start(host, port)
            if not _is_up(api, process):
                raise RunError(
                    f"the Prefect server at {api} did not answer in {PATIENCE_SECONDS:.0f} s,"
                    " twice; try again, or see what `prefect server start` says"
                )
        (root / ADDRESS).parent.mkdir(exist_ok=True)
        (root / ADDRESS).write_text(api)
        yield api
    finally:
        (root / ADDRESS).unlink(missing_ok=True)
        _end(process)
        signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(60)
    with contextlib.suppress(ProcessLookupError):  # of its own processes none is to keep the port
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _in_profile() -> str:
    """The server that Prefect's profile names; Prefect takes long to import, hence in a process."""
    command = [sys.executable, "-c", ASK_PREFECT]
    asked = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    if asked.returncode:
        said = asked.stderr.strip().splitlines()[-1:]
        raise RunError(f"Prefect cannot read its settings: {' '.join(said)}")
    return asked.stdout.strip()


def _start(host: str, port: int) -> subprocess.Popen[bytes]:
    page = {
        # The page asks this address for its data: its own, whatever host and port that is.
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # The second version of the page calls an analytics service whatever it is told.
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        # How long a stage waits before it asks again for a slot that was taken; 30 by default.
        "PREFECT_SERVER_TASKS_TAG_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
    }
    print(f"starting a Prefect server on {host}:{port}; the first start takes longest", flush=True)
    return subprocess.Popen(  # noqa: S603 (a fixed command)
        [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)],
        env=QUIET | page | os.environ,
        start_new_session=True,  # Ctrl-C is for us; we end the server when we are done
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _is_up(api: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server that was started answers; whether it did, in good time."""
    complaints = Complaints(process.stderr)
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if answers(api):
            complaints.pass_on()
            return True
        if process.poll() is not None:
            raise RunError(f"the Prefect server at {api} ended as it started: {complaints.why()}")
        time.sleep(0.2)
    complaints.pass_on()
    return False


def where_to_look(report: Path | None, page: str | None) -> list[str]:
    """The last lines on the screen of a run; `page` is its own on the dashboard, if that is up."""
    lines = [f"Report: {report}"] if report else []
    return [*lines, f"Dashboard: {page or 'make dashboard'}"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where a server is to be started, for the commands that start one."""
    parser.add_argument("--host", default=HOST, help=f"default: {HOST}, this machine only")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}")

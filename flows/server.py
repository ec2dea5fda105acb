"""Find or start the Prefect server that flow runs report to."""

import argparse
import asyncio
import contextlib
import http.client
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipeline.core.errors import RunError

from . import access
from .complaints import DATABASE, Complaints, of_database

HOST, PORT = "127.0.0.1", 4200
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")  # host names that a server here always accepts
PATIENCE_SECONDS = 300.0  # the first start creates the database; Prefect's 20 s may be too short
# Neither the server nor its clients send usage statistics.
QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
ADDRESS = Path(".headstart") / "server"
ASK_PREFECT = """
import json
from prefect.settings import get_current_settings
settings = get_current_settings()
wanted = settings.server.api.auth_string
print(json.dumps([settings.api.url or "", wanted and wanted.get_secret_value()]))
"""


def answers(api: str, with_anything: bool = False) -> bool:
    """Return whether a Prefect server is up at `api`, such as `http://127.0.0.1:4200/api`.

    With `with_anything`, any reply counts: a server that requires a login, such as Prefect Cloud,
    replies with an error.
    """
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=2) as reply:  # noqa: S310
            return bool(reply.status == 200)
    except urllib.error.HTTPError:
        return with_anything
    except (OSError, http.client.HTTPException):  # the second if it is no HTTP server
        return False


def find(root: Path) -> str | None:
    """Return the server to use: PREFECT_API_URL, or one that was started in `root` and is up.

    None leaves the choice to Prefect: the address in its profile, or a server for a single run. If
    a password was made for the server, it is set in PREFECT_API_AUTH_STRING.

    Raises:
        RunError: the address contains a password.
    """
    api = os.environ.get("PREFECT_API_URL")
    access.stop_if_shown(api or "")
    if api is None and (root / ADDRESS).exists():
        noted = (root / ADDRESS).read_text()
        api = noted if answers(noted) else None
    if api:
        access.bring(api)
    return api


def stop_without_home() -> None:
    """Check that a server started here can keep its database.

    Raises:
        RunError: the database's folder cannot be written to.
    """
    home = access.home()
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(nearest, os.W_OK):
        raise RunError(
            f"Prefect keeps its database in {home}, which cannot be written to: set PREFECT_HOME to"
            " another folder"
        )


def stop_without_database() -> None:
    """Check that a server for a single run, if one will be started, can open its database.

    Only a database that the user chose is looked at. If it cannot be opened, Prefect would start
    the server again and again, for five minutes. The function imports Prefect.

    Raises:
        RunError: the database does not exist, or refuses the connection.
    """
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL

    if PREFECT_API_URL.value() or not PREFECT_API_DATABASE_CONNECTION_URL.value():
        return
    from prefect.server.database import provide_database_interface

    async def connect() -> None:
        engine = await provide_database_interface().engine()
        try:
            async with engine.connect():
                pass
        finally:
            await asyncio.sleep(0.1)  # SQLite's thread prints a traceback if the loop is closed

    try:
        asyncio.run(connect())
    except Exception as error:
        reason = of_database("".join(traceback.format_exception_only(error)).splitlines())
        raise RunError(
            f"a Prefect server for this run cannot start:"
            f" {reason or f'see what {DATABASE} names ({type(error).__name__})'}"
        ) from None


def stop_if_silent(known: str) -> None:
    """Raise `RunError` if the configured server does not answer."""
    if not answers(known, with_anything=True):
        raise RunError(
            f"the Prefect server at {known} does not answer: start it, or remove it from"
            " PREFECT_API_URL or Prefect's profile, so that one is started here"
        )


@contextmanager
def running(root: Path, host: str, port: int, names: list[str] | None = None) -> Iterator[str]:
    """Yield the address of a running server: the configured one, or one that is started here.

    A server is started at `host` and `port` if there is none. Runs in `root` find it until it is
    ended here. Its database is SQLite in PREFECT_HOME, or the one in
    PREFECT_API_DATABASE_CONNECTION_URL. The server accepts requests for `names`, its `host` and the
    loopback names. Its password is in PREFECT_SERVER_API_AUTH_STRING, or is generated if only this
    machine can reach the server (see `flows.access`). The password is set in
    PREFECT_API_AUTH_STRING for Prefect in this process and its children.

    Raises:
        RunError: the server does not start, other machines could reach it and no password or name
            is set, or the configured server does not answer.
    """
    api = f"{page_at(host, port)}/api"
    profile = Profile("", None)
    known = find(root)
    if known is None:
        profile = _in_profile()
        known = profile.api or api
    access.stop_if_shown(known)
    if answers(known, with_anything=known != api):
        access.bring(known)
        if access.is_open(known):
            print(
                f"the Prefect server at {known} needs no password: any page that a browser opens on"
                " this machine can run commands; if you stop it, a protected one is started",
                flush=True,
            )
        yield known
        return
    if known != api:
        stop_if_silent(known)
    stop_if_too_open(host, names or [], profile.wanted)
    stop_without_home()
    access.share_password(api, profile.wanted)
    # Treat SIGTERM as Ctrl-C: otherwise it would end this process and leave the server running.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = _start(host, port, names or [])
    try:
        if not _is_up(api, process):  # servers have hung at startup
            print("it does not answer; starting it again", flush=True)
            _end(process)
            process = _start(host, port, names or [])
            if not _is_up(api, process):
                raise RunError(
                    f"the Prefect server at {api} did not answer in {PATIENCE_SECONDS:.0f} s,"
                    " twice; try again, or see what `prefect server start` prints"
                )
        (root / ADDRESS).parent.mkdir(exist_ok=True)
        (root / ADDRESS).write_text(api)
        if access.made_for(api):
            print(
                f"for Prefect's own commands: export PREFECT_API_URL={api}"
                f' {access.GIVEN}="$(cat {access.file_of(api)})"',
                flush=True,
            )
        yield api
    finally:
        (root / ADDRESS).unlink(missing_ok=True)
        _end(process)
        signal.signal(signal.SIGTERM, before)


def page_at(host: str, port: int) -> str:
    """Return the address of the page of a server that listens at `host`, seen from this machine."""
    if _is_any(host):
        host = "::1" if ":" in host else HOST
    return f"http://{_in_address(host)}:{port}"


def _is_any(host: str) -> bool:
    """Return whether `host` means all addresses of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def stop_if_too_open(host: str, names: list[str], wanted: str | None) -> None:
    """Check that a server that others can reach has a password and host names set by the user.

    Without names, a web page that rebinds its DNS name to the server would pass as same-origin. A
    `host` that does not mean all addresses of this machine counts as a name.

    Raises:
        RunError: the password or the names are missing.
    """
    if access.on_this_machine(host):
        return
    if wanted is None and not {access.WANTED, access.FILE} & set(os.environ):
        raise RunError(
            f"--host {host} opens the server to other machines: set {access.WANTED} to a"
            f" user:password, or {access.FILE} to a file that contains one"
        )
    if not names and _is_any(host):
        raise RunError(
            f"--host {host} opens the server to other machines: add --name HOST for each"
            " name or address by which they reach it"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(60)
    with contextlib.suppress(ProcessLookupError):  # its child processes must not keep the port
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Profile(NamedTuple):
    """Prefect's settings, including its profile."""

    api: str  # empty if there is none
    wanted: str | None  # the password for a server that is to be started


def _in_profile() -> Profile:
    """Return Prefect's settings, read in another process because Prefect takes long to import."""
    command = [sys.executable, "-c", ASK_PREFECT]
    asked = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    if asked.returncode:
        reason = asked.stderr.strip().splitlines()[-1:]
        raise RunError(f"Prefect cannot read its settings: {' '.join(reason)}")
    return Profile(*json.loads(asked.stdout))


def _start(host: str, port: int, names: list[str]) -> subprocess.Popen[bytes]:
    page = {
        # The page requests its data from this relative address, so the host and port do not matter.
        "PREFECT_SERVER_UI_API_URL": "/api",
        # No other page may call the API: Prefect's default allows any origin.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": page_at(host, port),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # The second version of the page calls an analytics service, whatever its settings are.
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        # How long a stage waits before it requests a taken slot again; the default is 30.
        "PREFECT_SERVER_TASKS_TAG_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
    }
    answers_to = [*LOOPBACK, *([] if _is_any(host) else [_in_address(host)]), *names]
    command = [sys.executable, "-m", f"{__package__}.door", "--host", host, "--port", str(port)]
    command += [word for name in answers_to for word in ("--name", name)]
    print(f"starting a Prefect server on {host}:{port}; the first start takes longest", flush=True)
    return subprocess.Popen(  # noqa: S603
        command,
        # By now both passwords are the same, chosen or made.
        env=QUIET | page | os.environ | {access.WANTED: os.environ[access.GIVEN]},
        start_new_session=True,  # Ctrl-C must not reach the server, which we end ourselves
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _is_up(api: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the started server answers; return whether it answered in time."""
    complaints = Complaints(process.stderr)
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if answers(api):
            complaints.pass_on()
            return True
        if process.poll() is not None:
            raise RunError(
                f"the Prefect server at {api} stopped while it was starting: {complaints.why()}"
            )
        time.sleep(0.2)
    complaints.pass_on()
    return False


def where_to_look(report: Path | None, page: str | None) -> list[str]:
    """Return the last lines that a run prints; `page` is its dashboard page, if a server is up."""
    lines = [f"Report: {report}"] if report else []
    return [*lines, f"Dashboard: {page or 'headstart dashboard'}"]


def _port(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} should be a number from 1 to 65535")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the commands that start a server."""
    parser.add_argument(
        "--host",
        default=HOST,
        help=f"address to listen on (default: {HOST}, only for this machine)",
    )
    parser.add_argument(
        "--port", type=_port, default=PORT, help=f"port to listen on (default: {PORT})"
    )
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="additional host name or address of the server. You can repeat this option",
    )

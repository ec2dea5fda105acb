"""The password of Prefect's server: its sources, and the message if the server refuses it.

A server requires the `user:password` of PREFECT_SERVER_API_AUTH_STRING for every request except
health checks. Clients send the one in PREFECT_API_AUTH_STRING. Prefect passes both on in the
environment of the processes that it starts.

If nobody chose a password for a server on this machine, this module generates one. It is kept in
PREFECT_HOME, in one file per port that only the user can read. So it is never sent to a server at a
different port, all working copies of a user find it, and a browser stays logged in.
"""

import base64
import http.client
import ipaddress
import json
import os
import secrets
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.core.errors import RunError

GIVEN, WANTED = "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"
FILE = f"{WANTED}_FILE"  # names a file with the password
KEY = "PREFECT_API_KEY"  # for Prefect Cloud
ENTER = "/enter"  # a path of `flows.door`


def home() -> Path:
    """Return Prefect's folder, which the variable PREFECT_HOME may name."""
    return Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()


def on_this_machine(host: str) -> bool:
    """Return whether only this machine can reach a server at `host`, a name or an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def file_of(api: str) -> Path | None:
    """Return the file of the password for the server at `api`; None for a server elsewhere."""
    address = urlsplit(api)
    if not on_this_machine(address.hostname or ""):
        return None
    return home() / f"headstart-{address.port}.password"


def made_for(api: str) -> str | None:
    """Return the password that was generated for the server at `api`."""
    file = file_of(api)
    return file.read_text().strip() if file and file.exists() else None


def bring(api: str) -> str | None:
    """Return the password for the server at `api`, and set it in the environment for Prefect.

    If there is none, return None: Prefect then uses its profile.
    """
    given = os.environ.get(GIVEN) or made_for(api)
    if given:
        os.environ[GIVEN] = given
    return given


def make(api: str) -> str:
    """Generate a password for a server of this machine at `api`, unless a secret one exists."""
    file = file_of(api)
    assert file  # noqa: S101 (passwords are made only for servers on this machine)
    made = made_for(api)
    if made and not file.stat().st_mode & 0o077:
        return made
    made = f"headstart:{secrets.token_urlsafe(32)}"
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as new:  # its mode is 0600
        new.write(f"{made}\n")
    Path(new.name).replace(file)
    return made


def header(password: str | None, key: str | None = None) -> dict[str, str]:
    """Return the HTTP header with the password as Prefect's client sends it, empty without one."""
    if password:
        return {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
    return {"Authorization": f"Bearer {key}"} if key else {}


def stop_if_shown(api: str) -> None:
    """Check that a server's address, which is printed and logged, contains no password.

    Raises:
        RunError: the address contains a password.
    """
    if "@" in api:
        raise RunError(
            "the address in PREFECT_API_URL or Prefect's profile contains a password, which every"
            f" page and log would show: remove it, and set {GIVEN} to the user:password"
        )


def share_password(api: str, wanted: str | None = None) -> None:
    """Set the password of a server that will be started at `api`, for it and its clients.

    If the user chose a password, in the environment, a file or Prefect's profile (`wanted`), it is
    used. Otherwise one is generated, if only this machine can reach the server.

    Raises:
        RunError: the password cannot be read or used, or the server and its clients have different
            ones.
    """
    chosen = os.environ.get(WANTED)
    if chosen is None and (file := os.environ.get(FILE)):
        try:
            chosen = Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{FILE}: {file} cannot be read: {error}") from None
    if chosen is None:
        chosen = wanted
    file_of_made = file_of(api)
    if chosen is not None:
        _stop_if_unusable(WANTED, chosen)
        given = os.environ.get(GIVEN) or chosen
        if given != chosen:
            raise RunError(
                f"{GIVEN} and {WANTED} have different passwords: set both to the same user:password"
            )
        if file_of_made:  # of an earlier server at this port
            file_of_made.unlink(missing_ok=True)
    else:
        chosen = make(api)
    os.environ[GIVEN] = chosen


def let_in(api: str) -> str | None:
    """Return an address that logs a browser in once at the server at `api`; None if impossible."""
    headers = header(os.environ.get(GIVEN))
    page = api.removesuffix("/api")
    try:
        asked = urllib.request.Request(f"{page}{ENTER}", method="POST", headers=headers)  # noqa: S310
        with urllib.request.build_opener(_Stay).open(asked, timeout=10) as reply:
            return f"{page}{ENTER}?code={json.load(reply)['code']}"
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None  # for example, the server was started by `prefect server start`


def is_open(api: str) -> bool:
    """Return whether the server at `api`, on this machine, accepts requests without a password."""
    if not on_this_machine(urlsplit(api).hostname or ""):
        return False
    try:
        with urllib.request.urlopen(f"{api}/admin/version", timeout=10) as reply:  # noqa: S310
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):
        return False


@contextmanager
def admitted() -> Iterator[None]:
    """Make sure, for this block, that Prefect's server accepts our password.

    The server is the one in Prefect's settings, or one that Prefect starts for a single run. A
    server for a single run gets a password too, and refuses requests from pages, because it uses
    the same database as a lasting server. The function imports Prefect. It raises no error if a
    server does not answer.

    Raises:
        RunError: the server refuses the password.
    """
    from prefect import settings

    api = settings.PREFECT_API_URL.value()
    if api:
        stop_if_shown(api)
        given = settings.PREFECT_API_AUTH_STRING.value() or made_for(api)
        with settings.temporary_settings({settings.PREFECT_API_AUTH_STRING: given or None}):
            if reason := refusal(api):
                raise RunError(reason)
            yield
        return
    wanted = settings.PREFECT_SERVER_API_AUTH_STRING.value()
    if wanted is None:
        wanted = f"headstart:{secrets.token_urlsafe(32)}"
    _stop_if_unusable(WANTED, wanted)
    of_this_run = {
        settings.PREFECT_SERVER_API_AUTH_STRING: wanted,
        settings.PREFECT_API_AUTH_STRING: wanted,
        settings.PREFECT_SERVER_CORS_ALLOWED_ORIGINS: "",
    }
    # If the server ends while its services use the database, SQLAlchemy would log a traceback.
    os.environ.setdefault("UVICORN_LOG_CONFIG", str(Path(__file__).with_name("one_run.json")))
    with settings.temporary_settings(of_this_run):
        yield


def refusal(api: str) -> str | None:
    """Return the message if the server at `api` refuses the password in Prefect's settings."""
    from prefect import settings

    password = settings.PREFECT_API_AUTH_STRING.value()
    if password:
        _stop_if_unusable(GIVEN, password)
    key = settings.PREFECT_API_KEY.value()
    sent = settings.PREFECT_CLIENT_CUSTOM_HEADERS.value() | header(password, key)
    try:
        asked = urllib.request.Request(f"{api}/hello", headers=sent)  # noqa: S310
        with urllib.request.build_opener(_Stay).open(asked, timeout=10):
            return None
    except urllib.error.HTTPError as error:
        if error.code != 401:
            return None
    except (OSError, http.client.HTTPException):
        return None
    if password and password == made_for(api):
        return (
            f"the Prefect server at {api} refuses the password in {file_of(api)}, which was made"
            f" for another server at this port: set {GIVEN} to the user:password of this one"
        )
    if password:
        return (
            f"the Prefect server at {api} refuses the password in {GIVEN}: set it to the server's"
        )
    if key:
        return (
            f"the Prefect server at {api} refuses {KEY}: set it again, or set {GIVEN} to a password"
        )
    return f"the Prefect server at {api} needs a password: set {GIVEN} to its user:password"


class _Stay(urllib.request.HTTPRedirectHandler):
    """Does not follow redirects, because urllib would send the password to the new server."""

    def redirect_request(self, *_: Any) -> None:
        """Return None, so that the redirection is handled like any other reply."""


def _stop_if_unusable(name: str, password: str) -> None:
    if not password:
        raise RunError(f"{name} is empty, so nobody could log in: set it to user:password")
    if not password.isascii():
        raise RunError(f"{name} has characters outside ASCII, which Prefect's server rejects")

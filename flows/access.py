"""The password of Prefect's server: where it is from, and what to say where it is refused.

A server wants the `user:password` of PREFECT_SERVER_API_AUTH_STRING from everybody who asks it for
anything but its health. Who asks gives that of PREFECT_API_AUTH_STRING. Prefect passes both on in
the environment of the processes that it starts.

A server on this machine for which nobody chose a password is given one that is made here. It lies
in PREFECT_HOME, in a file of the user's own, one for each port: so it is sent to no server at
another port, all working copies of a user find it, and a browser that was let in once stays so.
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
FILE = f"{WANTED}_FILE"  # names a file that holds it
KEY = "PREFECT_API_KEY"  # of Prefect Cloud
ENTER = "/enter"  # of `flows.door`


def home() -> Path:
    """Prefect's folder, as Prefect finds it."""
    return Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()


def on_this_machine(host: str) -> bool:
    """Whether a server at `host`, a name or an address, can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def file_of(api: str) -> Path | None:
    """The file of the password that was made for the server at `api`, if one may have been."""
    address = urlsplit(api)
    if not on_this_machine(address.hostname or ""):
        return None
    return home() / f"headstart-{address.port}.password"


def made_for(api: str) -> str | None:
    """The password that was made for the server at `api`."""
    file = file_of(api)
    return file.read_text().strip() if file and file.exists() else None


def bring(api: str) -> str | None:
    """The password for the server at `api`, which Prefect reads from the environment from now on.

    None leaves it to Prefect's profile.
    """
    given = os.environ.get(GIVEN) or made_for(api)
    if given:
        os.environ[GIVEN] = given
    return given


def make(api: str) -> str:
    """Make a password for a server of this machine at `api`, unless there is one that is secret."""
    file = file_of(api)
    assert file  # noqa: S101 (a server elsewhere is given one)
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
    """The header with the password, as Prefect's own client sends it; empty if there is none."""
    if password:
        return {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
    return {"Authorization": f"Bearer {key}"} if key else {}


def stop_if_shown(api: str) -> None:
    """Check that a server's address, which is printed and logged, holds no password.

    Raises:
        RunError: it does.
    """
    if "@" in api:
        raise RunError(
            "the address in PREFECT_API_URL or Prefect's profile holds a password, which every"
            f" page and log would show: take it out, and set {GIVEN} to the user:password"
        )


def share_password(api: str, wanted: str | None = None) -> None:
    """Give the password of a server that is to be started here, at `api`, to it and its clients.

    It is the one that somebody chose, in the environment, in a file or in Prefect's profile, which
    is `wanted`. Without one it is made, for a server that only this machine can reach.

    Raises:
        RunError: the server would let nobody in, or everybody.
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
                f"{GIVEN} is not the password that {WANTED} gives the server to be started: set"
                " both to the same user:password"
            )
        if file_of_made:  # of an earlier server, and not this one's
            file_of_made.unlink(missing_ok=True)
    else:
        chosen = make(api)
    os.environ[GIVEN] = chosen


def let_in(api: str) -> str | None:
    """An address that lets a browser in, once, at the server at `api`; None where it has none."""
    headers = header(os.environ.get(GIVEN))
    page = api.removesuffix("/api")
    try:
        asked = urllib.request.Request(f"{page}{ENTER}", method="POST", headers=headers)  # noqa: S310
        with urllib.request.build_opener(_Stay).open(asked, timeout=10) as reply:
            return f"{page}{ENTER}?code={json.load(reply)['code']}"
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None  # Prefect's own server, say


def is_open(api: str) -> bool:
    """Whether the server at `api`, on this machine, lets everybody in."""
    if not on_this_machine(urlsplit(api).hostname or ""):
        return False
    try:
        with urllib.request.urlopen(f"{api}/admin/version", timeout=10) as reply:  # noqa: S310
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):
        return False


@contextmanager
def admitted() -> Iterator[None]:
    """In this block Prefect's server lets us in: the one of its settings, or one for a run alone.

    A server for a run alone gets a password too, for that run, and no other page may call it: it
    has the same database. It imports Prefect. A server that does not answer is not spoken of here.

    Raises:
        RunError: it does not let us in.
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
    with settings.temporary_settings(of_this_run):
        yield


def refusal(api: str) -> str | None:
    """The line for people where the server at `api` refuses what Prefect's settings hold."""
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
            f" for another one at this port: set {GIVEN} to its user:password"
        )
    if password:
        return (
            f"the Prefect server at {api} refuses the password in {GIVEN}: set it to the server's"
        )
    if key:
        return f"the Prefect server at {api} refuses {KEY}: set it again, or {GIVEN} to a password"
    return f"the Prefect server at {api} wants a password: set {GIVEN} to its user:password"


class _Stay(urllib.request.HTTPRedirectHandler):
    """Takes a password nowhere but where it was to go: urllib would send it to any other server."""

    def redirect_request(self, *_: Any) -> None:
        """Follow no redirection: it is an answer like any other."""


def _stop_if_unusable(name: str, password: str) -> None:
    if not password:
        raise RunError(f"{name} is empty, and would let nobody in: set it to user:password")
    if not password.isascii():
        raise RunError(f"{name} holds more than ASCII, which Prefect's server cannot compare")

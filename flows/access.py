"""The password of Prefect's server: from the environment, and what to say where it is refused.

A server wants the `user:password` of PREFECT_SERVER_API_AUTH_STRING from everybody who asks it for
anything but its health. Who asks gives that of PREFECT_API_AUTH_STRING. Prefect passes both on in
the environment of the processes that it starts.
"""

import base64
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.core.errors import RunError

GIVEN, WANTED = "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"
KEY = "PREFECT_API_KEY"  # of Prefect Cloud


def header(password: str | None, key: str | None = None) -> dict[str, str]:
    """What says who asks, as Prefect's own client says it; empty where there is nothing to say."""
    if password:
        return {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
    return {"Authorization": f"Bearer {key}"} if key else {}


def stop_if_shown(api: str) -> None:
    """See that a server's address, which is printed and logged, holds no password.

    Raises:
        RunError: it does.
    """
    if "@" in api:
        raise RunError(
            "the address in PREFECT_API_URL or Prefect's profile holds a password, which every"
            f" page and log would show: take it out, and set {GIVEN} to the user:password"
        )


def share_password() -> None:
    """Give the password of a server that is to be started here to those who will ask it.

    Raises:
        RunError: the server would let nobody in.
    """
    wanted = os.environ.get(WANTED)
    if wanted is None:
        return
    _stop_if_unusable(WANTED, wanted)
    given = os.environ.get(GIVEN) or wanted
    if given != wanted:
        raise RunError(
            f"{GIVEN} is not the password that {WANTED} gives the server to be started: set both to"
            " the same user:password"
        )
    os.environ[GIVEN] = given


@contextmanager
def admitted() -> Iterator[None]:
    """In this block Prefect's server lets us in: the one of its settings, or one for a run alone.

    It imports Prefect. A server that does not answer is not spoken of here.

    Raises:
        RunError: it does not let us in.
    """
    from prefect import settings

    api = settings.PREFECT_API_URL.value()
    if api:
        stop_if_shown(api)
        if said := refusal(api):
            raise RunError(said)
        yield
        return
    wanted = settings.PREFECT_SERVER_API_AUTH_STRING.value()
    if wanted is not None:
        _stop_if_unusable(WANTED, wanted)
    with settings.temporary_settings({settings.PREFECT_API_AUTH_STRING: wanted}):
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
    if password:
        return (
            f"the Prefect server at {api} refuses the password in {GIVEN}: set it to the server's"
        )
    if key:
        return f"the Prefect server at {api} refuses {KEY}: set it anew, or {GIVEN} to a password"
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

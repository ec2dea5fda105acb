"""Access control of `headstart serve`.

Any page in the user's browser can send requests to this machine. A page of a different origin
cannot read the answers, but its requests cost as much as any others. With DNS rebinding, an
attacker can even read the answers: the attacker's domain resolves to 127.0.0.1 once the page is
loaded. The server therefore checks `Host`, and refuses requests from pages of other origins. On
loopback no other machine can send requests; on other addresses a token is required. `/health` is
open to everybody.
"""

import ipaddress
import os
import re
import secrets
from collections.abc import Collection, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..core.errors import ParamsError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
TOKEN = "HEADSTART_SERVE_TOKEN"  # noqa: S105 (the name of the variable)
SHORTEST = 16  # characters of a token
WITHOUT_TOKEN = ("/", "/health")  # the page asks for the token, and sends it with each request
AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?)(?::\d*)?")
NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")

# The headers of every reply. Only the page has its own policy. No other reply can run scripts or be
# framed, whatever a plugin's kind returns.
HEADERS = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}
POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"


@dataclass(frozen=True)
class Door:
    """The host names of the server, besides those of loopback, and its token.

    If `token` is None, the server requires none.
    """

    names: frozenset[str] = frozenset()
    token: str | None = None


def opened(host: str, names: Sequence[str], token_file: Path | None) -> Door:
    """Return the access rules of a server that listens on `host`.

    Args:
        host: a name or an address.
        names: further host names, such as that of a proxy.
        token_file: the file with the token; if None, the token is from the environment variable
            `HEADSTART_SERVE_TOKEN`, if it is set.

    Raises:
        ParamsError: a name is not a host name, the token is not valid, or other machines can reach
            the server and it has no token or no name.
    """
    given = [_checked(name) for name in names]
    token = _token(token_file)
    if not _is_loopback(host):
        missing = ["a token (--token-file FILE, or the variable " + TOKEN + ")"] * (token is None)
        missing += ["the name that it answers to (--name HOST)"] * (not given)
        if missing:
            raise ParamsError(
                f"--host {host} opens the server to other machines, which needs"
                f" {' and '.join(missing)}"
            )
    return Door(frozenset([*given, host.lower()]), token)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _checked(name: str) -> str:
    lower = name.lower().strip("[]")
    try:
        ipaddress.ip_address(lower)
    except ValueError:
        if not NAME.fullmatch(lower):
            raise ParamsError(
                f"--name is {name!r:.80}; it should be a host's name alone, such as"
                " model.example.org"
            ) from None
    return lower


def _token(file: Path | None) -> str | None:
    if file is None:
        token, where = os.environ.get(TOKEN), TOKEN
    else:
        where = str(file)
        try:
            token = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise ParamsError(f"--token-file {file} cannot be read ({reason})") from None
    if token is None:
        return None
    token = token.strip()
    if not re.fullmatch(f"[!-~]{{{SHORTEST},1000}}", token):
        raise ParamsError(
            f"{where} has no valid token: it should be at least {SHORTEST} letters, digits or"
            " signs, without spaces, such as `openssl rand -hex 24` makes"
        )
    return token


class Guard:
    """ASGI middleware that passes requests on to an application or refuses them, as `Door` says."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        """Wrap `app`."""
        self.app, self.token = app, door.token
        self.given = door.names
        self.names = door.names | LOOPBACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message)
            await send(message)

        refused = self._refused(scope)
        await (self.app if refused is None else refused)(scope, receive, safely)

    def _refused(self, scope: Scope) -> JSONResponse | None:
        """Return the reply to a request that is refused; None if it is not refused."""
        if scope["path"] == "/health":
            return None
        headers = Headers(scope=scope)
        authority = headers.get("host", "").lower()
        if _name(authority) not in self.names:
            detail = (
                f"this server does not answer to the name {authority[:100]!r}; start it with --name"
                " to add it"
            )
            return _problem(421, detail)
        if self._foreign(scope, headers, authority):
            return _problem(403, "the request comes from a page of another origin")
        if self.token is not None and scope["path"] not in WITHOUT_TOKEN:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            right = secrets.compare_digest(given.strip().encode(), self.token.encode())
            if scheme.lower() != "bearer" or not right:
                detail = "a token is needed: send it in the header Authorization: Bearer TOKEN"
                return _problem(401, detail, {"www-authenticate": "Bearer"})
        return None

    def _foreign(self, scope: Scope, headers: Headers, authority: str) -> bool:
        """Whether a page of a different origin sent the request.

        Browsers send `Sec-Fetch-Site` on loopback and over HTTPS, and `Origin` with forms and
        scripts. Users may follow links from other pages to this server.
        """
        follows_link = (
            scope["method"] == "GET"
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        )
        site = headers.get("sec-fetch-site", "none")
        if site not in ("same-origin", "none") and not follows_link:
            return True
        origin = headers.get("origin")
        if origin is None:
            return False
        scheme, _, where = origin.lower().partition("://")
        # A proxy may send another name in `Host` than its own, and another port.
        own = where == authority or _name(where) in self.given - LOOPBACK
        return not (own and scheme in ("http", "https"))


def _name(authority: str) -> str | None:
    """Return the name in `name`, `name:port` or `[address]:port`."""
    found = AUTHORITY.fullmatch(authority)
    return found and (found[1] or found[2])


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


def _add_headers(message: MutableMapping[str, Any]) -> None:
    there: Collection[bytes] = {name.lower() for name, _ in message["headers"]}
    for name, value in (HEADERS | {"content-security-policy": POLICY}).items():
        if name.encode() not in there:
            message["headers"] = [*message["headers"], (name.encode(), value.encode())]

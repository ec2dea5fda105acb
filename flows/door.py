"""Prefect's server with access checks: `flows.server` starts it.

`prefect server start` accepts any Host header. A web page can therefore rebind its DNS name to this
machine and pass as same-origin. Prefect's page also asks the user for the password. This module
requires that a request names a host that the server was started for, and it logs a browser in at
`/enter`:

- `POST /enter` with the password returns a code, which is valid once and for ten minutes;
- `GET /enter?code=…` stores the password where Prefect's page looks for it, and opens that page.

If Prefect replies that its SQLite database is busy, this module passes the request on again very
soon. Prefect's own clients wait for two seconds, which would delay the next stage of a flow.

Prefect handles everything else. Its API requires the password (PREFECT_SERVER_API_AUTH_STRING), and
its CORS headers (PREFECT_SERVER_CORS_ALLOWED_ORIGINS) allow its own origin only.
"""

import argparse
import asyncio
import base64
import hmac
import json
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from . import access

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH = "/api/health"
BUSY = 503
SECONDS_UNTIL_AGAIN = (0.02, 0.05, 0.1, 0.2, 0.4)  # then the client waits, and tries again itself
SECONDS_OF_A_CODE = 600.0
# No other page may embed the dashboard in a frame, and browsers must not guess content types.
HEADERS = [(b"x-frame-options", b"DENY"), (b"x-content-type-options", b"nosniff")]
STORED_AS = "prefect-password"  # the key in which both versions of Prefect's page look, in base64
ENTER = """<!doctype html><title>Prefect</title><script nonce="{nonce}">
localStorage.setItem({key}, {password}); location.replace("./");</script>
"""


class Door:
    """An ASGI app in front of Prefect's that checks the Host of requests and serves `/enter`."""

    def __init__(self, app: App, names: set[str], password: str) -> None:
        """Accept requests whose Host is one of `names`, given in lower case."""
        self._app, self._names, self._password = app, names, password
        self._codes: dict[str, float] = {}  # each with the time at which it expires

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on to Prefect."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        await self._choose(scope)(scope, receive, guarded)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to Prefect, and once more if its database was busy."""
        body = [await receive()]
        while body[-1].get("more_body"):
            body.append(await receive())
        for seconds in (*SECONDS_UNTIL_AGAIN, None):
            if not await self._try(scope, body, receive, send, is_last=seconds is None):
                return
            await asyncio.sleep(seconds or 0.0)

    async def _try(
        self, scope: Scope, body: list[Message], receive: Receive, send: Send, *, is_last: bool
    ) -> bool:
        """Pass a request with this body on; return whether it has to be passed on again."""
        waiting, is_busy = iter(body), False

        async def read() -> Message:
            return next(waiting, None) or await receive()

        async def answer(message: Message) -> None:
            nonlocal is_busy
            is_busy = is_busy or (message.get("status") == BUSY and not is_last)
            if not is_busy:
                await send(message)

        try:
            await self._app(dict(scope), read, answer)
        except Exception:  # Prefect's app replies, and then raises what it replied to
            if not is_busy:
                raise
        return is_busy

    def _choose(self, scope: Scope) -> App:
        is_http = scope["type"] == "http"
        if is_http and scope["path"] == HEALTH and scope["method"] == "GET":
            return self._app  # anyone may check that the server is up, and nothing else
        hosts = Headers(scope=scope).getlist("host")
        if [name_in(host) in self._names for host in hosts] != [True]:
            reply = (
                "This server does not answer to that name; start it with --name HOST to add it.\n"
            )
            return PlainTextResponse(reply, 421) if is_http else _hang_up
        if is_http and scope["path"] == access.ENTER:
            return self._enter(scope)
        return self._pass_on if is_http else self._app

    def _enter(self, scope: Scope) -> Response:
        if scope["method"] == "POST":
            return self._make_code(Headers(scope=scope).get("authorization", ""))
        if scope["method"] != "GET":  # HEAD, which browsers do not send, would use up a code
            return PlainTextResponse("GET or POST\n", 405)
        code = QueryParams(scope["query_string"]).get("code", "")
        if self._codes.pop(code, 0.0) < time.monotonic():
            reply = (
                "This address was used already, or is too old. `headstart dashboard` prints a new"
                " one.\n"
            )
            return PlainTextResponse(reply, 403)
        nonce = secrets.token_urlsafe()
        password = json.dumps(base64.b64encode(self._password.encode()).decode())
        headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": f"default-src 'none'; script-src 'nonce-{nonce}'",
            "Referrer-Policy": "no-referrer",
        }
        page = ENTER.format(nonce=nonce, key=json.dumps(STORED_AS), password=password)
        return HTMLResponse(page, headers=headers)

    def _make_code(self, brought: str) -> Response:
        wanted = access.header(self._password)["Authorization"]
        if not hmac.compare_digest(brought.encode(), wanted.encode()):
            return JSONResponse({"exception_message": "Unauthorized"}, 401)
        now, code = time.monotonic(), secrets.token_urlsafe(32)
        self._codes = {old: end for old, end in self._codes.items() if end >= now}
        self._codes[code] = now + SECONDS_OF_A_CODE
        return JSONResponse({"code": code}, headers={"Cache-Control": "no-store"})


async def _hang_up(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket connection."""
    await send({"type": "websocket.close", "code": 1008})


def name_in(host: str) -> str:
    """Return the name in a Host header, in lower case and without the port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def main() -> None:
    """Serve Prefect's API and page until a signal ends it, as `prefect server start` does."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.door", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--name", action="append", default=[], help="that it answers to")
    asked = parser.parse_args()

    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    settings = get_current_settings().server
    password = settings.api.auth_string
    assert password  # noqa: S101 (flows.server gives it one)
    door = Door(
        create_app(final=True), {name.lower() for name in asked.name}, password.get_secret_value()
    )
    config = uvicorn.Config(
        door,
        host=asked.host,
        port=asked.port,
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )
    # Bind first: if the port is in use, the database is not touched.
    uvicorn.Server(config).run(sockets=[config.bind_socket()])


if __name__ == "__main__":
    main()

"""A page on loopback that writes files: `headstart review` and `headstart label`.

Whoever knows the address may write, so it has a secret part, made at each start. The rest of the
access control is that of `headstart serve` (`pipeline/serving/door.py`): no page of another origin
can send a request, and a request to another name of this machine is refused.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from pipeline.core.command import in_words
from pipeline.core.errors import HeadstartError, ParamsError
from pipeline.serving.connections import Server
from pipeline.serving.desk import Limits
from pipeline.serving.door import Door, Guard

SHEET = re.compile(r"[0-9a-f]{2}\.svg")
MOST_BYTES = 20_000  # of a request's body
SECONDS = 10.0  # until a body is complete
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src {script}; img-src{sheets} data:;"
    " media-src data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)

Answer = Callable[[dict[str, Any] | None], dict[str, Any]]


def new_key() -> str:
    """Return the secret part of the addresses."""
    return secrets.token_urlsafe(24)


def listening(port: int) -> socket.socket:
    """Return a socket that listens at the port of 127.0.0.1.

    Raises:
        ParamsError: the port is not valid or in use.
    """
    if not 0 <= port <= 65535:
        raise ParamsError(f"--port is {port}; it should be 0 to 65535")
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ParamsError(f"cannot listen at port {port} ({error.strerror}); give --port") from None


def serve(app: Starlette, at: socket.socket) -> None:
    """Serve an application until interrupted."""
    with at, suppress(KeyboardInterrupt):
        Server(app, Limits()).run(sockets=[at])


def address(at: socket.socket, key: str) -> str:
    """Return the address of the page."""
    return f"http://127.0.0.1:{at.getsockname()[1]}/{key}/"


def only_script_of(page: bytes) -> str:
    """Return the source for a content security policy that only the page's own script has."""
    code = page.partition(b"<script>")[2].partition(b"</script>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(code).digest()).decode()}'"


def application(
    command: str,
    key: str,
    page: Callable[[], bytes],
    name: str,
    answer: Answer,
    script: str = "'unsafe-inline'",
    sheets: Path | None = None,
) -> Starlette:
    """Return the web application.

    Args:
        command: the command that prints the address.
        key: the secret part of the addresses.
        page: returns the page.
        name: the end of the address to which the page sends its requests.
        answer: returns what the page gets, given the body of a POST or None for a GET. Requests are
            answered one after the other.
        script: the scripts that the content security policy allows. The report has a policy of its
            own.
        sheets: the folder of the page's SVG files, at the address `report/`.
    """

    def check(request: Request) -> None:
        if not hmac.compare_digest(request.path_params["key"].encode(), key.encode()):
            raise HTTPException(404, f"no such page; `headstart {command}` prints the address")

    policy = POLICY.format(script=script, sheets=" 'self'" if sheets else "")
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}

    async def shown(request: Request) -> Response:
        check(request)
        try:
            return HTMLResponse(page(), headers=headers)
        except OSError as error:  # a run deletes the report until it has written a new one
            reason = f"{error.filename} cannot be read ({error.strerror})"
            raise HTTPException(503, f"{reason}: reload when the run has ended") from None

    async def sheet(request: Request) -> Response:
        check(request)
        name = request.path_params["name"]
        file = sheets / name if sheets and SHEET.fullmatch(name) else None
        if file is None or not file.is_file():
            raise HTTPException(404, "no such file")
        return Response(file.read_bytes(), media_type="image/svg+xml", headers=headers)

    async def answered(request: Request) -> Response:
        check(request)
        given = None if request.method == "GET" else await _body(request)
        try:
            return JSONResponse(answer(given))
        except (HeadstartError, OSError) as error:
            return JSONResponse({"detail": str(in_words(error))}, 422)

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return JSONResponse({"detail": error.detail}, error.status_code)

    app = Starlette(
        routes=[
            Route("/{key}/", shown),
            Route("/{key}/report/{name}", sheet),
            Route(f"/{{key}}/{name}", answered, methods=["GET", "POST"]),
        ],
        exception_handlers={HTTPException: problem},
    )
    app.add_middleware(Guard, door=Door())
    return app


async def _body(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415, "the body should be application/json")
    data = b""
    try:
        async with asyncio.timeout(SECONDS):
            async for piece in request.stream():
                data += piece
                if len(data) > MOST_BYTES:
                    raise HTTPException(413, f"at most {MOST_BYTES:,} bytes")
    except TimeoutError:
        raise HTTPException(408, "the body arrived too slowly") from None
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise HTTPException(400, "the body should be a JSON object")
    return given

"""`headstart review`: serve the report on loopback, and write the corrections that a person makes.

Whoever knows the address may write corrections, so it has a secret part, made at each start. The
rest of the access control is that of `headstart serve` (`pipeline/serving/door.py`): no page of
another origin can send a request, and no other name of this machine is answered.
"""

import argparse
import asyncio
import getpass
import hmac
import json
import re
import secrets
import socket
import subprocess
from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from pipeline.core.errors import DataError, ParamsError
from pipeline.core.paths import CORRECTIONS, MANIFEST, REPORT
from pipeline.pages.embed import REVIEWED
from pipeline.serving.connections import Server
from pipeline.serving.desk import Limits
from pipeline.serving.door import Door, Guard
from pipeline.tables import corrections
from pipeline.tables.corrections import COLUMNS, Correction
from pipeline.tables.manifest import read_manifest

PORT = 8010
NAME = re.compile(r"\w[\w.-]{0,63}")
MOST_BYTES = 20_000  # of a request's body
SECONDS = 10.0  # until a body is complete
LONGEST = 2_000  # characters of a cell
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " img-src data:; media-src data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
GIVEN = ("digest", "field", "old", "new", "why")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run` to a parser."""
    parser.add_argument(
        "--name", help="Your file in corrections/, without .csv (default: git's user.name)."
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"Port (default: {PORT}).")


def run(name: str | None = None, port: int = PORT) -> None:
    """Serve the report until interrupted.

    Raises:
        DataError: there is no report, it names no examples, or there is no manifest.
        ParamsError: the name is not that of a file, or the port is not valid or in use.
    """
    name = name or own_name()
    if not NAME.fullmatch(name):
        raise ParamsError(f"--name is {name!r:.80}; it should be letters, digits, _, . or -")
    if not 0 <= port <= 65535:
        raise ParamsError(f"--port is {port}; it should be 0 to 65535")
    if not REPORT.exists():
        raise DataError(f"{REPORT} does not exist; run `headstart repro` first")
    if REVIEWED not in REPORT.read_text(encoding="utf-8"):
        raise DataError(
            f"{REPORT} names no examples: set report.examples to shown, and run `headstart repro`"
        )
    desk, key = Desk(name, set(read_manifest(MANIFEST)["digest"])), secrets.token_urlsafe(24)
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ParamsError(f"cannot listen at port {port} ({error.strerror}); give --port") from None
    at = f"http://127.0.0.1:{listening.getsockname()[1]}/{key}/"
    print(f"review: open {at} ; corrections go to {desk.file}", flush=True)
    with listening, suppress(KeyboardInterrupt):
        Server(application(desk, key), Limits()).run(sockets=[listening])


def own_name() -> str:
    """Return the name of git's user as that of a file, or else the name of the system's user."""
    asked = ["git", "config", "user.name"]
    with suppress(OSError):
        done = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603
        if name := re.sub(r"[^\w]+", "-", done.stdout.strip().lower()).strip("-_"):
            return name[:64]
    return getpass.getuser()


class Desk:
    """Reads and writes the corrections of one person."""

    def __init__(self, name: str, digests: set[str]) -> None:
        """Prepare for the file of `name`, and for examples with these digests."""
        self.name, self.file = name, CORRECTIONS / f"{name}.csv"
        self._digests = digests

    def rows(self) -> list[Correction]:
        """Return the person's corrections.

        Raises:
            DataError: the file is damaged.
        """
        return corrections.read(self.file) if self.file.exists() else []

    def put(self, given: dict[str, Any]) -> str:
        """Add a correction, or remove that of the same field if its `new` is None.

        Returns:
            a warning if another file contradicts it.

        Raises:
            DataError: it is not a valid correction, or the file is damaged, which stays as it is.
        """
        texts = {name: given.get(name) for name in GIVEN}
        removes = texts["new"] is None
        texts["new"] = texts["new"] or ""
        for name, text in texts.items():
            if not isinstance(text, str) or len(text) > LONGEST or not text.isprintable():
                raise DataError(f"{name} should be a text of at most {LONGEST} characters")
        digest, field, old, new, why = (str(texts[name]).strip() for name in GIVEN)
        one = Correction(digest, field, old, new, self.name, why)
        if one.digest not in self._digests:
            raise DataError("no example has this digest: run `headstart repro`, and reload")
        rows = self.rows()
        same = [row for row in rows if (row.digest, row.field) == (one.digest, one.field)]
        rest = [row for row in rows if row not in same]
        if removes:
            corrections.write(self.file, rest)
            return ""
        if reason := corrections.why_not(one):
            raise DataError(reason)
        for row in same:  # the source's value stays the old one of a correction that was applied
            if row.new == one.old != row.old:
                one = one._replace(old=row.old)
        CORRECTIONS.mkdir(exist_ok=True)
        corrections.write(self.file, [*rest, one])
        return self._contradicted(one)

    def _contradicted(self, one: Correction) -> str:
        for file in corrections.files_in(CORRECTIONS)[0]:
            with suppress(DataError):  # which ingest names
                for row in corrections.read(file) if file != self.file else ():
                    same = (row.digest, row.field) == (one.digest, one.field)
                    if same and row.new != one.new:
                        return f"{file} says {row.new!r:.40}: until you agree, neither applies."
        return ""

    def reply(self, warning: str = "") -> JSONResponse:
        """Return the person's corrections for the page."""
        rows = [{name: getattr(one, name) for name in COLUMNS} for one in self.rows()]
        return JSONResponse({"file": str(self.file), "rows": rows, "warning": warning})


def application(desk: Desk, key: str) -> Starlette:
    """Return the web application; `key` is the secret part of its addresses."""

    def check(request: Request) -> None:
        if not hmac.compare_digest(request.path_params["key"].encode(), key.encode()):
            raise HTTPException(404, "no such page; `headstart review` prints the address")

    async def page(request: Request) -> Response:
        check(request)
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
        return HTMLResponse(REPORT.read_bytes(), headers=headers)

    async def corrected(request: Request) -> Response:
        check(request)
        try:
            if request.method == "GET":
                return desk.reply()
            return desk.reply(desk.put(await _body(request)))
        except DataError as error:
            return JSONResponse({"detail": str(error)}, 422)

    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return JSONResponse({"detail": error.detail}, error.status_code)

    app = Starlette(
        routes=[
            Route("/{key}/", page),
            Route("/{key}/corrections", corrected, methods=["GET", "POST"]),
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

"""The door in front of Prefect's server, on real sockets: who is let in, and by which names."""

import http.client
import json
import re
import socket
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient
from toys import Toy

from flows import access, door

UPGRADE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
UPGRADE += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: prefect"]


def ask(api: str, request: list[str]) -> tuple[int, str]:
    """The status and body of the answer to a request of these lines; PORT is the server's."""
    port = urlsplit(api).port or 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        lines = "\r\n".join([*request, "", ""])
        connection.sendall(lines.replace("PORT", str(port)).encode())
        reply = http.client.HTTPResponse(connection)
        reply.begin()
        return reply.status, reply.read().decode()


@pytest.mark.parametrize(
    "hosts",
    [
        ["Host: evil.example"],
        ["Host: evil.example:PORT"],
        ["Host: 127.0.0.1.evil.example:PORT"],
        ["Host: localhost@evil.example"],
        ["Host: 10.0.0.1:PORT"],
        ["Host: "],
        ["Host: localhost:PORT", "Host: evil.example"],
        ["Host: evil.example", "Host: localhost:PORT"],
    ],
    ids=" ".join,
)
def test_another_name_is_told_nothing_with_the_password_too(toy: Toy, hosts: list[str]) -> None:
    password = "Authorization: " + access.header(":".join(toy.auth))["Authorization"]
    for path in ("/", "/ui-settings", "/openapi.json", "/api/ready", "/api/admin/version"):
        status, said = ask(toy.api, [f"GET {path} HTTP/1.1", *hosts, password])
        assert status in {400, 421}, said
        assert "start it with --name HOST to add it" in said or "Invalid" in said
    assert ask(toy.api, ["POST /enter HTTP/1.1", *hosts, password])[0] in {400, 421}
    assert ask(toy.api, ["GET /api/events/out HTTP/1.1", *hosts, *UPGRADE])[0] in {400, 403}


@pytest.mark.parametrize("host", ["localhost:PORT", "127.0.0.1:PORT", "[::1]:1", "LocalHost"])
def test_its_own_names_are_answered_to_who_has_the_password(toy: Toy, host: str) -> None:
    named = f"Host: {host}"
    assert ask(toy.api, ["GET /api/events/out HTTP/1.1", named, *UPGRADE])[0] == 101
    get = ["GET /api/admin/version HTTP/1.1", named]
    password = "Authorization: " + access.header(":".join(toy.auth))["Authorization"]
    assert ask(toy.api, [*get, password])[0] == 200
    assert ask(toy.api, get) == (401, '{"exception_message":"Unauthorized"}')


def test_who_has_no_password_learns_that_it_is_up_and_no_more(toy: Toy) -> None:
    anybody = httpx.Client(base_url=toy.api)
    assert anybody.get("health").json() is True
    assert ask(toy.api, ["GET /api/health HTTP/1.1", "Host: 10.0.0.1"]) == (200, "true")
    for method, path in (
        ("GET", "admin/version"),
        ("GET", "admin/settings"),
        ("POST", "flow_runs/filter"),
        ("POST", "flows/"),
        ("POST", "deployments/"),
        ("POST", "health"),
        ("GET", "../enter"),
        ("POST", "../enter"),
    ):
        assert anybody.request(method, path, json={}).status_code in {401, 403}, path


def test_a_page_of_another_origin_may_not_ask(toy: Toy) -> None:
    page = toy.api.removesuffix("/api")
    wanted = {"Access-Control-Request-Method": "POST"}
    wanted["Access-Control-Request-Headers"] = "authorization, content-type"
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null", "https://127.0.0.1"):
        for asked in (
            httpx.options(f"{toy.api}/deployments/", headers={"Origin": origin, **wanted}),
            httpx.post(f"{toy.api}/flow_runs/filter", headers={"Origin": origin}, json={}),
            httpx.post(f"{page}/enter", headers={"Origin": origin}, auth=toy.auth),
        ):
            assert "access-control-allow-origin" not in asked.headers
    own = httpx.options(f"{toy.api}/deployments/", headers={"Origin": page, **wanted})
    assert own.headers["access-control-allow-origin"] == page
    assert httpx.get(page).headers["x-frame-options"] == "DENY"


def test_a_code_lets_in_once(toy: Toy) -> None:
    enter = access.let_in(toy.api)
    assert enter
    assert enter.startswith(toy.api.removesuffix("/api"))
    assert httpx.head(enter).status_code == 405  # that used nothing up
    first = httpx.get(enter)
    assert access.header(":".join(toy.auth))["Authorization"].split()[1] in first.text
    assert first.headers["cache-control"] == "no-store"
    second = httpx.get(enter)
    assert (second.status_code, toy.auth[1] in second.text) == (403, False)
    assert "`headstart dashboard` prints a new one" in second.text


def test_a_code_is_good_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(door.Door(Starlette(), {"localhost"}, "a:b"), "http://localhost")
    for seconds, status in ((60.0, 200), (-1.0, 403)):
        monkeypatch.setattr(door, "SECONDS_OF_A_CODE", seconds)
        code = client.post("/enter", auth=("a", "b")).json()["code"]
        assert client.get("/enter", params={"code": code}).status_code == status
    assert client.post("/enter", auth=("a", "c")).status_code == 401
    assert client.post("/enter").status_code == 401


@pytest.mark.parametrize(("locked", "status"), [(0, 200), (3, 200), (9, 503)])
def test_a_busy_database_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, locked: int, status: int
) -> None:
    monkeypatch.setattr(door, "SECONDS_UNTIL_AGAIN", (0.0,) * 5)
    bodies = []

    async def write(request: Request) -> Response:
        bodies.append(await request.body())
        if len(bodies) <= locked:
            raise sqlite3.OperationalError("database is locked")
        return Response(bodies[-1])

    async def busy(request: Request, error: Exception) -> Response:  # as Prefect replies
        return Response("busy", 503)

    app = Starlette(
        routes=[Route("/api/slots", write, methods=["POST"])], exception_handlers={Exception: busy}
    )
    guarded = door.Door(app, {"localhost"}, "a:b")
    client = TestClient(guarded, "http://localhost", raise_server_exceptions=False)
    reply = client.post("/api/slots", content=b"gpu")
    assert (reply.status_code, reply.text) == (status, "gpu" if status == 200 else "busy")
    assert bodies == [b"gpu"] * min(locked + 1, 6)


def test_the_password_is_on_no_command_line_and_in_no_file_of_others(
    toy: Toy, dashboard: Path
) -> None:
    lines = b""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines += process.read_bytes()
        except OSError:  # it has ended
            continue
    assert b"flows.door" in lines
    assert toy.auth[1].encode() not in lines
    encoded = access.header(":".join(toy.auth))["Authorization"].split()[1]
    held = [
        file
        for file in dashboard.rglob("*")
        if file.is_file() and re.search(f"{toy.auth[1]}|{encoded}".encode(), file.read_bytes())
    ]
    assert [file.name for file in held] == [f"headstart-{urlsplit(toy.api).port}.password"]
    assert held[0].stat().st_mode & 0o777 == 0o600
    assert json.loads(httpx.get(f"{toy.api}/health").text) is True

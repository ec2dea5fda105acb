"""Who may come in at `headstart serve`, and what bounds those who do, with small limits."""

import asyncio
import http.server
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, sync_playwright

from pipeline.core.errors import ParamsError
from pipeline.heads.head import Head
from pipeline.kinds import Shown
from pipeline.serving.classifier import Classifier
from pipeline.serving.connections import Server
from pipeline.serving.desk import Desk, Limits, Thumbnails
from pipeline.serving.door import TOKEN, Door, opened
from pipeline.serving.server import application
from tests.conftest import CHROMIUM, SMALL
from tests.helpers.bundles import write_by_hand

PATIENCE = 120
SECRET = "a-token-of-two-dozen-signs"  # noqa: S105
OWN = "http://localhost"


@contextmanager
def served(
    classifier: Classifier,
    limits: Limits | None = None,
    door: Door | None = None,
    port: int = 0,
) -> Iterator[str]:
    """A server in a thread of this process; its address."""
    limits = limits or Limits()
    server = Server(application(classifier, limits, door), limits)
    with socket.create_server(("127.0.0.1", port)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def line_to(address: str, sent: bytes) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    line = socket.create_connection((host, int(port)), PATIENCE)
    line.sendall(sent)
    return line


def rest(line: socket.socket) -> bytes:
    """What comes until the server hangs up."""
    found = b""
    try:
        while piece := line.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def send_on(line: socket.socket, piece: bytes) -> None:
    """Dribble for ten seconds."""
    for _ in range(1000):
        line.sendall(piece)
        time.sleep(0.01)


def half_sent(size: int = 5000, some: bytes = b"abc") -> bytes:
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + some


def npy(vector: list[float]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(vector, np.float32))
    return file.getvalue()


VECTOR = npy([1, 0, 0, 0])


@pytest.fixture(scope="module")
def vectors(by_hand: Callable[[str], Path]) -> Classifier:
    return Classifier(by_hand("classification"), explains=True)


@pytest.fixture
def pictures(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> Classifier:
    monkeypatch.chdir(bundled)
    return Classifier(bundled / "bundle", explains=True)


# Who may come in


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "[::1", "a@b"])
def test_only_requests_that_name_this_server_are_answered(vectors: Classifier, host: str) -> None:
    with TestClient(application(vectors, Limits()), base_url=OWN) as client:
        for path in ("/", "/training/0", "/metrics", "/about", "/openapi.json"):
            assert client.get(path, headers={"Host": host}).status_code == 421
        reply = client.post("/predict", content=VECTOR, headers={"Host": host})
        assert reply.status_code == 421
        assert "does not answer to" in reply.json()["detail"]
        assert client.get("/health", headers={"Host": host}).json() == {"status": "ok"}


@pytest.mark.parametrize(
    "host", ["localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000", "model.example.org"]
)
def test_its_own_names_need_no_typing(vectors: Classifier, host: str) -> None:
    door = opened("127.0.0.1", ["Model.example.org"], None)
    with TestClient(application(vectors, Limits(), door), base_url=OWN) as client:
        own = {"Host": host, "Origin": f"http://{host.lower()}", "Sec-Fetch-Site": "same-origin"}
        assert client.post("/predict", content=VECTOR, headers=own).status_code == 200
        assert client.get("/about", headers={"Host": host}).status_code == 200


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=lambda headers: " ".join(headers.values()))
def test_pages_of_another_origin_are_refused(vectors: Classifier, headers: dict[str, str]) -> None:
    with TestClient(application(vectors, Limits()), base_url=OWN) as client:
        assert client.post("/predict", content=VECTOR, headers=headers).status_code == 403
        assert client.get("/metrics", headers=headers).status_code == 403
        followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        page = client.get("/", headers={**followed, "Sec-Fetch-Dest": "document"})
        assert page.status_code == 200


def test_who_has_the_token_may_come_in(vectors: Classifier) -> None:
    door = Door(frozenset({"model.example.org"}), SECRET)
    with TestClient(application(vectors, Limits(), door), base_url=OWN) as client:
        for path in ("/about", "/metrics", "/training/0", "/openapi.json"):
            for wrong in ("", "Bearer ", f"Bearer {SECRET}x", f"Basic {SECRET}", "Bearer é"):
                reply = client.get(path, headers=[(b"Authorization", wrong.encode())])
                assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert client.post("/predict", content=VECTOR).status_code == 401
        assert client.get("/").status_code == client.get("/health").status_code == 200
        right = {"Authorization": f"Bearer {SECRET}"}
        assert client.post("/predict", content=VECTOR, headers=right).status_code == 200
        assert client.get("/about", headers=right).status_code == 200


def test_a_server_for_others_needs_a_token_and_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    names = ["model.example.org"]
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        assert opened(host, [], None) == Door(frozenset({host}), None)
    for host in ("0.0.0.0", "::", "192.168.1.5", "box", ""):  # noqa: S104
        with pytest.raises(ParamsError, match=r"needs a token .* and the name that it answers to"):
            opened(host, [], None)
        with pytest.raises(ParamsError, match="needs the name"):
            opened(host, [], file)
        with pytest.raises(ParamsError, match=f"needs a token .*{TOKEN}"):
            opened(host, names, None)
        assert opened(host, names, file) == Door(frozenset({host, *names}), SECRET)
    monkeypatch.setenv(TOKEN, SECRET)
    assert opened("box", names, None).token == SECRET
    monkeypatch.setenv(TOKEN, "short")
    with pytest.raises(ParamsError, match=f"{TOKEN} has no valid token: it should be at least 16"):
        opened("localhost", [], None)
    with pytest.raises(ParamsError, match=r"nothing cannot be read \(No such file"):
        opened("localhost", [], tmp_path / "nothing")
    for name in ("https://model.example.org", "a:80", "", "a b"):
        with pytest.raises(ParamsError, match="should be a host's name alone"):
            opened("localhost", [name], None)


def test_nothing_that_is_sent_is_taken_for_a_page(pictures: Classifier) -> None:
    with TestClient(application(pictures, Limits()), base_url=OWN) as client:
        replies = [client.get(path) for path in ("/", "/training/0", "/about", "/nothing")]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 404]
    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert reply.headers["content-security-policy"].startswith("default-src 'none'; s")
    assert "sandbox" in replies[1].headers["content-security-policy"]


# Connections


def test_silent_connections_make_room_and_are_closed_in_the_end(vectors: Classifier) -> None:
    limits = Limits(connections=50, header_seconds=0.5)
    with served(vectors, limits) as address, ExitStack() as lines:
        silent = [
            lines.enter_context(line_to(address, sent))
            for _ in range(100)
            for sent in (b"", b"GET /health HTTP/1.1\r\nHost: l")
        ]
        statuses = [httpx.get(f"{address}/about", timeout=PATIENCE).status_code for _ in range(20)]
        assert statuses == [200] * 20
        assert b"".join(map(rest, silent)) == b""  # all were hung up on


def test_dribbling_headers_and_rests_of_bodies_are_not_waited_for(vectors: Classifier) -> None:
    limits = Limits(header_seconds=0.3)
    with served(vectors, limits) as address, ExitStack() as lines:
        head = b"GET /about HTTP/1.1\r\nHost: localhost\r\n"
        first = lines.enter_context(line_to(address, head + b"\r\n" + head))  # a second one begins
        unread = head.replace(b"\r\n", b"\r\nContent-Length: 1000000\r\n", 1) + b"\r\n"
        second = lines.enter_context(line_to(address, unread))
        for line in (first, second):
            with pytest.raises(ConnectionError):
                send_on(line, b"a")


def test_who_reads_no_reply_is_not_waited_for(pictures: Classifier) -> None:
    limits = Limits(header_seconds=0.3, seconds=0.5)
    with served(pictures, limits) as address:
        line = line_to(address, b"")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
        with line, pytest.raises(ConnectionError):
            send_on(line, asked)
        assert httpx.get(f"{address}/health").status_code == 200


# Bodies


def test_slow_bodies_give_way_and_hold_no_place(vectors: Classifier) -> None:
    limits = Limits(waiting=1, bodies=8, grace=0.3, header_seconds=0.5)
    with served(vectors, limits) as address, ExitStack() as lines:
        slow = [lines.enter_context(line_to(address, half_sent())) for _ in range(20)]
        for _ in range(10):
            assert httpx.post(f"{address}/predict", content=VECTOR).status_code == 200
        replies = [rest(line) for line in slow]
    statuses = [reply[9:12] for reply in replies]
    assert set(statuses) == {b"429", b"408"}
    assert statuses.count(b"429") >= 12  # eight are read at a time
    assert b"this body took longest" in replies[statuses.index(b"429")]
    assert b"less than 1000 bytes a second" in replies[statuses.index(b"408")]


def test_a_body_that_is_slow_and_not_too_slow_is_answered(vectors: Classifier) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(VECTOR), 32):
            yield VECTOR[start : start + 32]
            time.sleep(0.1)

    with served(vectors, Limits(rate=50, grace=0.2)) as address:
        assert httpx.post(f"{address}/predict", content=pieces()).status_code == 200


def test_bodies_together_are_bounded(vectors: Classifier) -> None:
    """No more than 1.6 MB are held of forty bodies of 0.1 MB, all but their last byte."""
    limits = Limits(megabytes=0.1, grace=0.5, rate=200_000, header_seconds=0.5)
    assert limits.held == 1_600_000
    body = half_sent(100_000, bytes(99_999))
    with served(vectors, limits) as address, ExitStack() as lines:
        sent = [lines.enter_context(line_to(address, body)) for _ in range(40)]
        assert httpx.post(f"{address}/predict", content=VECTOR).status_code == 200
        statuses = [rest(line)[9:12] for line in sent]
        assert statuses.count(b"429") >= 24
        assert httpx.post(f"{address}/predict", content=VECTOR).status_code == 200


# Threads


def test_training_examples_are_shown_within_the_limits(pictures: Classifier) -> None:
    examples = len(pictures.known["paths"])
    with (
        TestClient(application(pictures, Limits(waiting=2)), base_url=OWN) as client,
        ThreadPoolExecutor(examples) as pool,
    ):
        replies = list(pool.map(lambda n: client.get(f"/training/{n}"), range(examples)))
        assert {reply.status_code for reply in replies} == {200, 429}
        assert client.get("/training/0").status_code == 200


def test_what_was_shown_is_kept(bundled: Path, pictures: Classifier) -> None:
    desk = Desk(pictures, Limits())

    async def twice() -> tuple[Shown, Shown]:
        until = asyncio.get_running_loop().time() + PATIENCE
        return await desk.thumbnail(0, until), await desk.thumbnail(0, until)

    one, other = asyncio.run(twice())
    desk.close()
    assert one is other


def test_no_more_is_kept_than_there_is_room_for() -> None:
    kept = Thumbnails(100)
    for number in range(10):
        kept.keep(number, Shown("image/png", bytes(20), Shown("audio/wav", bytes(10))))
        kept.get(0)
    assert [number for number in range(10) if kept.get(number)] == [0, 8, 9]
    kept.keep(10, Shown("image/png", bytes(200)))
    assert [number for number in range(11) if kept.get(number)] == []


@pytest.fixture
def small(tmp_path: Path, small_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> Classifier:
    """A bundle of a small network for pictures."""
    monkeypatch.setenv("HEADSTART_STORE", str(small_backbone.parent.parent))
    name, weights = SMALL["extract.backbone"], SMALL["extract.weights"]
    width = onnxruntime.InferenceSession(small_backbone).get_outputs()[0].shape[1]
    head = Head(np.zeros((3, width), np.float32), np.zeros(3, np.float32))
    folder = write_by_hand(
        tmp_path, "classification", head, "image", backbone=name, weights=weights
    )
    return Classifier(folder, explains=True)


@pytest.mark.slow
def test_a_plain_answer_waits_for_no_heat_map(small: Classifier, bundled: Path) -> None:
    picture = (bundled / "data" / "raw" / "shapes" / "disc" / "0.png").read_bytes()
    with (
        TestClient(application(small, Limits()), base_url=OWN) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        client.post("/predict", content=picture)
        asked = [
            pool.submit(client.post, "/predict?heat_map=true", content=picture) for _ in range(8)
        ]
        wait_for(lambda: b"headstart_waiting 8.0" in client.get("/metrics").content)
        done = sum(one.done() for one in asked)
        assert client.post("/predict", content=picture).status_code == 200
        assert sum(one.done() for one in asked) <= done + 1
        assert {one.result().status_code for one in asked} == {200}


# Browsers


EVIL = """<!doctype html><title>evil</title>"""
TRY = """async where => {
  const tried = {};
  for (const [path, options] of [
    ["/training/0", {}], ["/metrics", {}], ["/about", {}], ["/", {}],
    ["/training/0", {mode: "no-cors"}], ["/predict", {method: "POST", body: "a", mode: "no-cors"}],
    ["/predict", {method: "POST", body: new FormData()}]]) {
    const name = `${options.mode || "cors"} ${options.method || "GET"} ${path}`;
    try {
      const reply = await fetch(where + path, options);
      tried[name] = `${reply.type} ${reply.status} ${(await reply.text()).length > 200}`;
    } catch (error) { tried[name] = error.name; }
  }
  tried.picture = await new Promise(done => {
    const picture = new Image();
    picture.onload = () => done(picture.naturalWidth);
    picture.onerror = () => done("error");
    picture.src = where + "/training/0";
  });
  return tried;
}"""


@contextmanager
def elsewhere() -> Iterator[int]:
    """A server of somebody else; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(EVIL.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def deceived() -> Iterator[Browser]:
    """Chromium, for which two names lead to this machine."""
    if not CHROMIUM:
        pytest.skip("needs Debian's package chromium")
    names = "MAP evil.example 127.0.0.1, MAP model.example 127.0.0.1"
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", f"--host-resolver-rules={names}"]
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield found
        found.close()


def new_page(browser: Browser) -> Page:
    page = browser.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    return page


@pytest.mark.slow
def test_no_page_of_anybody_else_reads_a_thing(pictures: Classifier, deceived: Browser) -> None:
    page = new_page(deceived)
    with served(pictures) as address, elsewhere() as port:
        for there in (f"http://evil.example:{port}", f"http://localhost:{port}"):
            page.goto(there)
            tried = page.evaluate(TRY, address)
            assert set(tried.values()) <= {"TypeError", "opaque 0 false", "error"}, tried
        counted = httpx.get(f"{address}/metrics").text
        assert "headstart_seconds_count 0.0" in counted  # no request for an answer came in
    # Once its page is there, evil.example leads to this server: then all is its own origin.
    with elsewhere() as port:
        rebound = f"http://evil.example:{port}"
        page.goto(rebound)
    with served(pictures, port=port) as address:
        tried = page.evaluate(TRY, rebound)
        assert {"basic 421 false", "error"} >= set(tried.values()) - {"opaque 0 false"}, tried
        assert tried["cors GET /training/0"] == "basic 421 false"
        assert "headstart_seconds_count 0.0" in httpx.get(f"{address}/metrics").text
        page.goto(address)
        page.locator("#about", has_text="2 classes").wait_for()
        assert not page.is_visible("#enter")
    page.close()


@pytest.mark.slow
def test_the_page_asks_for_the_token_once(
    pictures: Classifier, bundled: Path, deceived: Browser
) -> None:
    page = new_page(deceived)
    door = Door(frozenset({"model.example"}), SECRET)
    with served(pictures, None, door) as address:
        page.goto(address.replace("127.0.0.1", "model.example"))
        page.fill("#token", "wrong")
        page.press("#token", "Enter")
        page.locator("#state", has_text="This is not the token.").wait_for()
        page.fill("#token", SECRET)
        page.press("#token", "Enter")
        page.locator("#about", has_text="2 classes").wait_for()
        page.set_input_files("#file", bundled / "data" / "raw" / "shapes" / "disc" / "0.png")
        page.locator("#near img").nth(5).wait_for()
        page.reload()
        page.locator("#about", has_text="2 classes").wait_for()
        assert not page.is_visible("#enter")
    page.close()

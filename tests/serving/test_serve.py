"""`headstart serve` over real HTTP: answers, limits, floods, garbage, and its page in Chromium."""

import asyncio
import base64
import io
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.tasks import TASKS
from tests.conftest import ROOT, chromium

PATIENCE = 120  # seconds; it costs nothing where all is well, and a busy machine needs its time
HTTP = httpx.Client(timeout=PATIENCE)


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def gauge(address, name):
    figures = HTTP.get(f"{address}/metrics").text
    return int(float(re.search(rf"^headstart_{name} (\S+)", figures, re.MULTILINE)[1]))


def waiting(address):
    return gauge(address, "waiting")


def reading(address):
    return gauge(address, "reading")


@contextmanager
def serving(folder, *arguments):
    """A server in a process of its own; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "headstart", "serve", "bundle", "--port", str(port), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(address, process))
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE)[0]
    assert "Traceback" not in said, said


def answers(address, process):
    assert process.poll() is None, process.stdout.read()
    try:
        return HTTP.get(f"{address}/health").is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def address(bundled):
    with serving(bundled) as address:
        yield address


@pytest.fixture(scope="module")
def picture(bundled):
    return (bundled / "data" / "raw" / "shapes" / "disc" / "0.png").read_bytes()


def test_it_answers_as_evaluate_did(bundled, address):
    evaluated = pd.read_csv(bundled / "reports" / "predictions.csv")
    shares = evaluated.filter(like="p(").to_numpy()
    for row, wanted in zip(evaluated.itertuples(), shares, strict=True):
        body = (bundled / row.path).read_bytes()
        reply = HTTP.post(f"{address}/predict", content=body).raise_for_status().json()
        assert reply["best"] == row.predicted
        np.testing.assert_allclose(list(reply["probabilities"].values()), wanted, atol=1e-5)


def test_bytes_and_forms_are_answered_alike_and_explained(address, picture):
    asked = f"{address}/predict?heat_map=true&neighbours=3"
    raw = HTTP.post(asked, content=picture, headers={"Content-Type": "image/png"}).json()
    form = HTTP.post(asked, files={"file": ("a.png", picture)}).json()
    assert raw == form
    assert raw["best"] == "disc"
    assert len(raw["neighbours"]) == 3
    kind, _, data = raw["heat_map"].partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (224, 224)
    small = HTTP.get(f"{address}/training/{raw['neighbours'][0]['number']}")
    assert max(Image.open(io.BytesIO(small.content)).size) <= 160


EMPTY_FILE = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n\r\n--x--\r\n'
)


@pytest.mark.parametrize(
    ("content", "kind", "status", "said"),
    [
        (b"", "image/png", 422, "empty"),
        (b"\x89PNG\r\n\x1a\n cut short", "image/png", 422, "damaged|known format"),
        (b"<!doctype html>", "application/octet-stream", 422, "web page"),
        (b"{}", "application/json", 415, "is not accepted"),
        (b"no form", "multipart/form-data", 400, "form"),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x", 400, "form"),
        (EMPTY_FILE, "multipart/form-data; boundary=x", 422, "^the file is empty$"),
        (b"x" * 20_000_001, "image/png", 413, "20 MB"),
    ],
)
def test_what_is_no_picture_is_told_why(address, content, kind, status, said):
    reply = HTTP.post(f"{address}/predict", content=content, headers={"Content-Type": kind})
    assert reply.status_code == status, reply.text
    assert re.search(said, reply.json()["detail"])


def test_a_body_of_unknown_length_is_cut_off(address):
    def endless():
        for _ in range(30):
            yield bytes(1_000_000)

    try:
        status = HTTP.post(f"{address}/predict", content=endless()).status_code
    except httpx.WriteError:  # it hung up before all was sent
        status = 413
    assert status == 413
    wait_for(lambda: reading(address) == 0)


def test_a_sender_that_hangs_up_leaves_nothing_behind(address, picture):
    for _ in range(3):
        with half_sent(address):
            wait_for(lambda: reading(address) == 1)
        wait_for(lambda: reading(address) == 0)
    reply = HTTP.post(f"{address}/predict", content=picture)
    assert (reply.status_code, reply.json()["best"]) == (200, "disc")
    assert waiting(address) == 0


def half_sent(address):
    """A connection over which a part of a picture came."""
    host, port = address.removeprefix("http://").split(":")
    line = socket.create_connection((host, int(port)))
    line.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\nabc")
    return line


def test_a_thousand_half_sent_headers_stop_nobody(address):
    host, port = address.removeprefix("http://").split(":")
    with ExitStack() as lines:
        for _ in range(1050):
            line = lines.enter_context(socket.create_connection((host, int(port))))
            line.sendall(b"GET /health HTTP/1.1\r\nHost: local")
        statuses = [httpx.get(f"{address}/health", timeout=PATIENCE).status_code for _ in range(8)]
    assert statuses == [200] * 8


def test_half_sent_bodies_hold_no_place(address, picture):
    with ExitStack() as lines:
        for _ in range(140):
            lines.enter_context(half_sent(address))
        wait_for(lambda: reading(address) >= 128)
        assert HTTP.post(f"{address}/predict", content=picture).status_code == 200
        assert waiting(address) == 0
    wait_for(lambda: reading(address) == 0)


def test_it_tells_of_its_health_its_figures_and_its_interface(address, picture):
    before = HTTP.get(f"{address}/metrics").text
    HTTP.post(f"{address}/predict", content=picture)
    HTTP.post(f"{address}/predict", content=b"nothing")
    after = HTTP.get(f"{address}/metrics").text

    def count(text, status):
        found = re.search(rf'headstart_answers_total{{status="{status}"}} (\S+)', text)
        return float(found[1]) if found else 0

    assert count(after, 200) == count(before, 200) + 1
    assert count(after, 422) == count(before, 422) + 1
    assert HTTP.get(f"{address}/health").json() == {"status": "ok"}
    about = HTTP.get(f"{address}/about").json()
    assert (about["classes"], about["weights"]) == (["disc", "square"], "pretrained")
    described = HTTP.get(f"{address}/openapi.json").json()
    paths = {"/predict", "/health", "/about", "/metrics", "/training/{number}"}
    assert paths == set(described["paths"])


def test_a_flood_is_answered_or_refused_and_then_it_is_as_before(bundled, picture):
    async def flood(address):
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(limits=limits, timeout=PATIENCE) as client:
            asked = (client.post(f"{address}/predict", content=picture) for _ in range(200))
            return await asyncio.gather(*asked)

    with serving(bundled, "--waiting", "8", "--seconds", str(PATIENCE)) as address:
        replies = asyncio.run(flood(address))
        statuses = [reply.status_code for reply in replies]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 8
        refused = replies[statuses.index(429)]
        assert refused.headers["retry-after"] == "1"
        assert "requests are waiting already" in refused.json()["detail"]
        wait_for(lambda: waiting(address) == 0)
        assert HTTP.post(f"{address}/predict", content=picture).status_code == 200


@pytest.mark.slow
def test_what_is_not_answered_in_time_is_told_so(bundled, picture):
    with serving(bundled, "--seconds", "0.2") as address:

        def slow():
            yield picture[:100]
            time.sleep(0.5)
            yield picture[100:]

        assert HTTP.post(f"{address}/predict", content=slow()).status_code == 408
        with ThreadPoolExecutor(60) as pool:
            statuses = set(pool.map(
                lambda _: HTTP.post(f"{address}/predict", content=picture).status_code,
                range(120),
            ))  # fmt: skip
        assert statuses <= {200, 408, 503}
        wait_for(lambda: waiting(address) == 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "is not a bundle"),
        (["bundle", "--waiting", "0"], "should be above 0"),
        (["bundle", "--port", "70000"], "--port is 70000; it should be from 0 to 65535"),
        (["bundle", "--host", "::"], "needs a token (--token-file FILE, or the variable"),
    ],
)
def test_a_mistake_is_one_line(bundled, arguments, said):
    done = subprocess.run(
        [sys.executable, "-m", "headstart", "serve", *arguments],
        cwd=bundled, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode in (2, 3)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_nothing_that_the_interface_allows_or_forbids_is_an_error_of_the_server(
    bundled, by_hand, tmp_path, task
):
    bundle = bundled / "bundle" if task == "classification" else by_hand(task)
    with serving(bundle.parent) as address:
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json",
                "--checks",
                "not_a_server_error,response_schema_conformance,content_type_conformance",
                "--max-examples", "30", "--seed", "1", "--no-color",
            ],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.slow
def test_truncated_and_changed_pictures_are_never_an_error_of_the_server(address):
    chance = np.random.default_rng(0)
    whole = Image.fromarray(chance.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    statuses = set()
    with httpx.Client(timeout=PATIENCE) as client:
        for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"):
            file = io.BytesIO()
            whole.save(file, kind)
            data = file.getvalue()
            for _ in range(40):
                piece = bytearray(data[: chance.integers(1, len(data) + 1)])
                for place in chance.integers(0, len(piece), 5):
                    piece[place] = chance.integers(256)
                statuses.add(client.post(f"{address}/predict", content=bytes(piece)).status_code)
    assert statuses <= {200, 422}


SIZES = {"desktop": (1200, 850), "phone": (390, 844)}


ONE_WORD, SEVERAL = "Donaudampfschifffahrtsgesellschaftskapitän"[:40], "great " * 6 + "disc"
TEXT_BOXES = """selector => [...document.querySelectorAll(selector)].map(element => {
  const range = document.createRange();
  range.selectNodeContents(element);
  const {left, top, right, bottom} = range.getBoundingClientRect();
  return [left, top, right, bottom];
})"""


def with_long_names(route):
    reply = route.fetch()
    text = reply.text().replace('"square"', f'"{ONE_WORD}"').replace('"disc"', f'"{SEVERAL}"')
    route.fulfill(response=reply, body=text)


def overlap(one, other):
    """Whether two boxes of left, top, right, bottom share more than an edge."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return across > 0.5 and down > 0.5


@pytest.fixture(scope="module")
def browser():
    """One for all tests from here on: no test behind them may run an event loop."""
    yield from chromium()


@pytest.mark.parametrize("name", ["desktop", pytest.param("phone", marks=pytest.mark.slow)])
def test_the_page_shows_classes_heat_map_and_neighbours(bundled, address, browser, tmp_path, name):
    width, height = SIZES[name]
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"<html>")
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(1000 * PATIENCE)
    elsewhere, problems = [], []
    page.on("request", lambda r: elsewhere.append(r.url) if address not in r.url else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    page.locator("#about", has_text="2 classes").wait_for()  # its policy forbids waiting by script
    page.set_input_files("#file", bad)
    page.locator("#state", has_text="web page").wait_for()
    assert not page.is_visible("#answer")
    page.set_input_files("#file", bundled / "data" / "raw" / "shapes" / "disc" / "0.png")
    page.locator("#near img").nth(5).wait_for()
    page.wait_for_load_state("networkidle")
    assert page.inner_text("#classes li:first-child").startswith("disc")
    assert page.evaluate("document.querySelector('#map img').naturalWidth") == 224
    assert page.locator("#near li").count() == page.locator("#near img").count() == 6
    assert page.locator("#example img").count() == 1
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert problems == []
    assert [url for url in elsewhere if not url.startswith("blob:")] == []
    if folder := os.environ.get("HEADSTART_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"serve_{name}.png"), full_page=True)

    page.route("**/predict*", with_long_names)
    page.set_input_files("#file", bundled / "data" / "raw" / "shapes" / "square" / "1.png")
    page.locator("#classes", has_text=ONE_WORD).wait_for()
    for selector in ("#near li", "#classes span"):
        boxes = page.evaluate(TEXT_BOXES, selector)
        overlapping = [(a, b) for a, b in itertools.combinations(boxes, 2) if overlap(a, b)]
        assert overlapping == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


@contextmanager
def told(browser, address, width, task, names, replies):
    """The page of a bundle of this task; answers come from the test, in this order."""
    page = browser.new_page(viewport={"width": width, "height": 850})
    page.set_default_timeout(1000 * PATIENCE)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    about = HTTP.get(f"{address}/about").json() | {
        "task": task,
        "nouns": [TASKS[task].noun, TASKS[task].nouns],
        "answers": TASKS[task].answers,
        "classes": list(names),
        "coverage": 0.9,
    }
    left = iter(replies)
    page.route("**/about", lambda route: route.fulfill(json=about))
    page.route("**/training/*", lambda route: route.fulfill(status=404))
    page.route("**/predict?*", lambda route: route.fulfill(json=next(left)))
    page.goto(address)
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.evaluate(TEXT_BOXES, "#near li, #classes span")
    assert [(a, b) for a, b in itertools.combinations(boxes, 2) if overlap(a, b)] == []
    assert problems == []
    page.close()


def lines(page, selector):
    return [" ".join(text.split()) for text in page.locator(selector).all_inner_texts()]


@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_shows_several_labels_against_their_thresholds(address, browser, width, picture):
    shares = {"brick": 0.25, "moss": 0.75, ONE_WORD: 0.5} | {f"other {i}": 0.2 for i in range(10)}
    none = {
        "labels": [],
        "probabilities": shares,
        "thresholds": dict.fromkeys(shares, 0.9) | {"moss": 0.6},
        "heat_map": "data:image/png;base64," + base64.b64encode(picture).decode(),
        "neighbours": [
            {"path": label, "label": label, "cosine": 1, "number": 0}
            for label in ("brick|moss", "")
        ],
    }
    replies = [none | {"labels": ["brick", "moss"]}, none]
    example = {"name": "one", "mimeType": "image/png", "buffer": picture}
    with told(browser, address, width, "multilabel", shares, replies) as page:
        page.locator("#about", has_text="13 labels").wait_for()
        page.set_input_files("#file", example)
        page.locator("#note", has_text="A line marks the threshold").wait_for()
        assert page.inner_text("#said") == "Labels"
        assert lines(page, "#classes li")[:3] == [
            "moss 75.0 %",
            f"{ONE_WORD} 50.0 %",
            "brick 25.0 %",
        ]
        assert lines(page, "#classes .found") == ["moss 75.0 %", "brick 25.0 %"]
        assert page.locator("#classes i").first.get_attribute("style") == "left: 60%;"
        assert page.inner_text("#heat figcaption") == "A lighter place is more evidence for moss."
        assert lines(page, "#near li") == ["brick, moss likeness 1.00", "no label likeness 1.00"]
        page.set_input_files("#file", example | {"name": "two"})
        page.locator("#note", has_text="No label reaches its threshold").wait_for()
        assert (page.locator("#classes .found").count(), len(lines(page, "#classes li"))) == (0, 10)


@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_shows_numbers(address, browser, width, picture):
    numbers = {"age": 74.512345, ONE_WORD: 1234567.0, SEVERAL: -0.0000125}
    near = {"path": "a", "label": "age=70, disc=1", "cosine": 1, "number": 0}
    heat_map = "data:text/html;base64," + base64.b64encode(b"<p>a <mark>word</mark></p>").decode()
    of_each = {name: [value - 1, value + 1] for name, value in numbers.items()}
    reply = {"numbers": numbers, "intervals": of_each, "neighbours": [near], "heat_map": heat_map}
    one = reply | {"numbers": {"age": 3}, "intervals": {"age": [2.5, 123456.7]}}
    with told(browser, address, width, "regression", numbers, [reply, one]) as page:
        page.locator("#about", has_text="3 targets").wait_for()
        page.set_input_files("#file", {"name": "one", "mimeType": "", "buffer": picture})
        page.locator("#near", has_text="age=70, disc=1").wait_for()
        assert page.inner_text("#said") == "Targets"
        said = ["age 74.512", f"{ONE_WORD} 1234567", f"{SEVERAL} -0.0000125"]
        assert lines(page, "#classes li") == said
        assert page.inner_text("#heat figcaption") == "A word of more colour raises age more."
        promise = "With a probability of 90 % or more"
        found = page.inner_text("#likely")
        assert found.startswith(f"{promise} each: age from 73.512 to 75.512, {ONE_WORD} from 12345")
        page.set_input_files("#file", {"name": "two", "mimeType": "", "buffer": picture})
        page.locator("#likely", has_text=f"{promise} it is from 2.5 to 123457.").wait_for()
        assert (
            page.inner_text("#heat figcaption") == "A word of more colour raises the number more."
        )


def test_a_class_has_the_name_of_what_every_object_of_the_page_has(address, browser, picture):
    shares = {"constructor": 0.75, "toString": 0.25}
    reply = {"best": "constructor", "probabilities": shares, "neighbours": [], "heat_map": None}
    with told(browser, address, 1200, "classification", shares, [reply]) as page:
        page.locator("#about", has_text="2 classes").wait_for()
        page.set_input_files("#file", {"name": "one", "mimeType": "image/png", "buffer": picture})
        page.locator("#classes li").nth(1).wait_for()
        assert lines(page, "#classes li") == ["constructor 75.0 %", "toString 25.0 %"]
        assert page.locator("#classes i").count() == 0  # the mark of a threshold


def test_the_page_shows_sounds_and_texts_too(address, browser, tmp_path):
    """As a bundle of another kind of example would send them; answers come from the test."""
    near = [{"path": f"{i}", "label": "disc", "cosine": 1, "number": i} for i in range(3)]
    answer = {"best": "disc", "probability": 1, "probabilities": {"disc": 1}, "heat_map": None}
    sound = {"content_type": "audio/wav", "body": b"RIFF"}
    text = {"content_type": "text/plain", "body": b"<b>a text</b>"}
    shown = {"0": sound, "1": text, "2": {"status": 404}}

    def training(route):
        route.fulfill(**shown[route.request.url.rpartition("/")[2]])

    page = browser.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.route("**/predict?*", lambda route: route.fulfill(json=answer | {"neighbours": near}))
    page.route("**/training/*", training)
    about = HTTP.get(f"{address}/about").json() | {"weights": "random"}
    page.route("**/about", lambda route: route.fulfill(json=about))
    page.goto(address)
    page.locator("#about", has_text="with random weights, trained on nothing").wait_for()
    notes = tmp_path / "notes.txt"
    notes.write_text("<i>what was sent</i>")
    page.set_input_files("#file", notes)
    page.locator("#example pre", has_text="<i>what was sent</i>").wait_for()
    page.locator("#near li:nth-child(1) audio[controls][src^='blob:']").wait_for()
    page.locator("#near li:nth-child(2) pre", has_text="<b>a text</b>").wait_for()
    page.locator("#near li:nth-child(3) .place").wait_for(state="detached")
    assert page.locator("#near li").all_inner_texts()[2].split() == ["disc", "likeness", "1.00"]
    assert page.inner_text("#noheat") == "This backbone has no heat maps."
    assert not page.is_visible("#heat")
    page.close()


def test_the_page_says_that_the_class_need_not_be_the_most_probable_one(address, browser, picture):
    reply = {
        "best": "moss",
        "probability": 0.25,
        "probabilities": {"brick": 0.75, "moss": 0.25},
        "thresholds": {"brick": 0.9, "moss": 0.1},
        "heat_map": "data:image/png;base64," + base64.b64encode(picture).decode(),
        "neighbours": [],
    }
    plain = reply | {"best": "brick", "probability": 0.75, "thresholds": None}
    example = {"name": "one", "mimeType": "image/png", "buffer": picture}
    names = ["brick", "moss"]
    with told(browser, address, 390, "classification", names, [reply, plain]) as page:
        page.set_input_files("#file", example)
        page.locator("#note", has_text="Training weighted the classes").wait_for()
        assert lines(page, "#classes .found") == ["moss 25.0 %"]
        assert page.inner_text("#heat figcaption") == "A lighter place is more evidence for moss."
        assert page.locator("#classes i").first.get_attribute("style") == "left: 90%;"
        page.set_input_files("#file", example | {"name": "two"})
        page.locator("#classes .found", has_text="brick").wait_for()
        assert page.inner_text("#note") == ""

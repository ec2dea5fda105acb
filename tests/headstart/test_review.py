"""`headstart review`: who may write corrections, what is written, and the page in a browser."""

import csv
import shutil
from pathlib import Path

import pandas as pd
import pytest
from starlette.testclient import TestClient

from headstart import loopback, review
from headstart.review import Desk, application
from pipeline import report
from pipeline.core.errors import DataError, ParamsError
from pipeline.core.paths import CHECKS, CORRECTIONS, MANIFEST, REPORT, SHEETS
from pipeline.tables import corrections
from pipeline.tables.corrections import Correction
from pipeline.tables.manifest import read_manifest
from tests.helpers.served import served

KEY = "a-secret-part"
DIGEST, OTHER = "0" * 64, "1" * 64
ROW = {"digest": DIGEST, "field": "label", "old": "ant", "new": "bee", "why": ""}
FILE = CORRECTIONS / "anna.csv"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    REPORT.parent.mkdir()
    REPORT.write_text("the page\n")
    return Desk("anna", {DIGEST, OTHER}, "classification")


@pytest.fixture
def client(desk):
    return TestClient(application(desk, KEY), base_url="http://127.0.0.1")


def values():
    return [(one.field, one.old, one.new) for one in corrections.read(FILE)]


def test_only_who_knows_the_address_gets_anything(client):
    for path in ("/", "/other/", "/other/corrections", f"/{KEY}x/", "/docs"):
        assert client.get(path).status_code == 404
        assert client.post(path, json=ROW).status_code in (404, 405)
    assert not CORRECTIONS.exists()
    page = client.get(f"/{KEY}/")
    assert page.text == "the page\n"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_no_page_of_anybody_else_writes_a_thing(client, headers):
    reply = client.post(f"/{KEY}/corrections", json=ROW, headers=headers)
    assert reply.status_code in (403, 421)
    assert not CORRECTIONS.exists()


@pytest.mark.parametrize(
    ("body", "type_", "status"),
    [
        (b"digest=1", "application/x-www-form-urlencoded", 415),
        (b"{}", "text/plain", 415),
        (b"{", "application/json", 400),
        (b"[" * 10_000, "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{}" + b" " * loopback.MOST_BYTES, "application/json", 413),
        (b"{}", "application/json", 422),
    ],
)
def test_other_bodies_are_refused(client, body, type_, status):
    reply = client.post(f"/{KEY}/corrections", content=body, headers={"content-type": type_})
    assert (reply.status_code, CORRECTIONS.exists()) == (status, False)
    assert reply.json()["detail"]


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "2" * 64},
        {"digest": "../x"},
        {"field": "path"},
        {"field": "exclude", "new": "maybe"},
        {"new": ""},
        {"new": "a\nb"},
        {"new": 5},
        {"why": "x" * 3000},
    ],
)
def test_what_is_no_correction_is_not_written(client, change):
    assert client.post(f"/{KEY}/corrections", json=ROW | change).status_code == 422
    assert not CORRECTIONS.exists()


def test_thumbnails_beside_the_report_are_sent_and_nothing_else(client):
    SHEETS.mkdir()
    (SHEETS / "0f.svg").write_text("<svg/>")
    (SHEETS / "other.svg").touch()
    reply = client.get(f"/{KEY}/report/0f.svg")
    assert (reply.text, reply.headers["content-type"]) == ("<svg/>", "image/svg+xml")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    for name in ("other.svg", "00.svg", "..%2Freport.html"):
        assert client.get(f"/{KEY}/report/{name}").status_code == 404
    assert client.get("/other/report/0f.svg").status_code == 404


def test_without_a_report_the_page_says_when_to_reload(client):
    REPORT.unlink()  # as DVC does before it runs the stage
    reply = client.get(f"/{KEY}/")
    assert reply.status_code == 503
    assert reply.json()["detail"] == (
        "reports/report.html cannot be read (No such file or directory): reload when the run has"
        " ended"
    )


def test_examples_that_came_since_the_start_can_be_corrected(desk):
    MANIFEST.parent.mkdir()
    with pytest.raises(DataError, match="no example has this digest"):
        desk.put(ROW | {"digest": "2" * 64})
    columns = {"path": "", "label": "", "split": "train"}
    pd.DataFrame({"digest": [DIGEST, "2" * 64], **columns}).to_parquet(MANIFEST)
    desk.put(ROW | {"digest": "2" * 64})
    assert values() == [("label", "ant", "bee")]


def test_a_second_thought_takes_the_place_of_the_first(desk):
    desk.put(ROW)
    desk.put(ROW | {"new": "=wasp()"})
    assert values() == [("label", "ant", "=wasp()")]
    desk.put(ROW | {"old": "=wasp()", "new": "fly"})  # seen after a run that applied the first
    assert values() == [("label", "ant", "fly")]
    desk.put(ROW | {"field": "exclude", "old": "", "new": "yes"})
    desk.put(ROW | {"new": None})
    assert values() == [("exclude", "", "yes")]


@pytest.mark.parametrize(
    ("task", "field", "old", "typed", "seen"),
    [
        ("multilabel", "label", "cat", "dog|cat", "cat|dog"),
        ("multilabel", "target:cat", "0", "1.0", "1"),
        ("regression", "label", "3", "12.50", "12.5"),
        ("regression", "target:age", "3", "12.50", "12.5"),
        ("classification", "label", "ant", "red  bee", "red bee"),
        ("classification", "group", "a", "hive  3", "hive 3"),
    ],
)
def test_a_second_thought_keeps_the_sources_value_however_the_first_was_typed(
    desk, task, field, old, typed, seen
):
    """A run that applied the first shows it as the task writes it."""
    desk = Desk("anna", {DIGEST}, task)
    desk.put(ROW | {"field": field, "old": old, "new": typed})
    desk.put(ROW | {"field": field, "old": seen, "new": seen})
    assert values() == [(field, old, seen)]


def test_a_first_thought_that_cannot_be_learned_is_replaced(desk):
    desk = Desk("anna", {DIGEST}, "regression")
    desk.put(ROW | {"old": "3", "new": "many"})
    desk.put(ROW | {"old": "5", "new": "4"})
    assert values() == [("label", "5", "4")]


def test_a_damaged_file_stays_and_a_contradiction_is_said(desk, client):
    CORRECTIONS.mkdir()
    corrections.write(CORRECTIONS / "bert.csv", [Correction(DIGEST, "label", "ant", "fly")])
    reply = client.post(f"/{KEY}/corrections", json=ROW).json()
    assert reply["warning"].startswith("corrections/bert.csv says 'fly'")
    assert [row["new"] for row in reply["rows"]] == ["bee"]
    FILE.write_text("half")
    reply = client.post(f"/{KEY}/corrections", json=ROW)
    assert (reply.status_code, FILE.read_text()) == (422, "half")
    assert "corrections/anna.csv is not a table" in reply.json()["detail"]


def test_what_cannot_be_reviewed_is_a_line(desk):
    with pytest.raises(ParamsError, match="letters, digits"):
        review.run("../anna")
    with pytest.raises(DataError, match="names no examples: set report"):
        review.run("anna")
    REPORT.unlink()
    with pytest.raises(DataError, match="run `headstart repro` first"):
        review.run("anna")


# In a browser


@pytest.fixture
def reviewed(bundled, tmp_path, monkeypatch):
    """A report with two label issues and a pair; the paths of the four examples."""
    folder = tmp_path / "reviewed"
    shutil.copytree(bundled, folder, ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(folder)
    paths = read_manifest(MANIFEST)["path"].head(4).tolist()
    pair = {"path": paths[0], "split": "test", "label": "disc", "other_path": paths[1]}
    pair |= {"other_split": "train", "other_label": "square", "cosine": 0.98765}
    pd.DataFrame([pair]).to_csv(CHECKS / "near_duplicates.csv", index=False)
    suspect = {"path": paths[2:], "split": "train", "label": "disc", "suggested": "square"}
    suspect |= {"probability": 0.91, "given_probability": 0.02, "wrong": 0.64}
    pd.DataFrame(suspect).to_csv(CHECKS / "label_issues.csv", index=False)
    report.report()
    return paths


def correct(page, digests):
    """Relabel the first, confirm the second, exclude the third, and think again of the fourth."""
    cards = [page.locator(f'[data-digest="{digest}"]') for digest in digests]
    assert cards[3].get_by_label("new label").input_value() == "square"  # as suggested
    cards[0].get_by_label("new label").fill('wasp, "queen"')
    cards[0].get_by_text("Change").click()
    cards[1].get_by_text("Label is right").click()
    cards[2].get_by_text("Exclude").click()
    cards[3].get_by_text("Exclude").click()
    cards[3].get_by_text("Undo").click()
    page.locator(".footer b", has_text="3 corrections").wait_for()
    assert "→ wasp" in cards[0].locator("output").inner_text()
    assert cards[2].locator("output").inner_text() == "excluded"
    assert cards[3].locator("output").inner_text() == ""


def test_a_browser_corrects_and_a_file_exports_the_same(reviewed, browser):
    by_path = read_manifest(MANIFEST).set_index("path")
    digests = [by_path.loc[path, "digest"] for path in reviewed]
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    desk = Desk("anna", set(by_path["digest"]), "classification")
    with served(application(desk, KEY), KEY) as address:
        page.goto(address)
        correct(page, digests)
        page.reload()
        page.locator(".footer b", has_text="3 corrections in corrections/anna.csv").wait_for()
    rows = {one.digest: one for one in corrections.read(FILE)}
    labels = [by_path.loc[path, "label"] for path in reviewed]
    assert rows.keys() == set(digests[:3])
    assert rows[digests[0]][1:4] == ("label", labels[0], 'wasp, "queen"')
    assert rows[digests[1]][1:4] == ("label", labels[1], labels[1])
    assert rows[digests[2]][1:4] == ("exclude", "", "yes")

    page.goto(REPORT.resolve().as_uri())
    correct(page, digests)
    page.get_by_label("file name").fill("../anna")
    with page.expect_download() as download:
        page.get_by_text("Download").click()
    assert download.value.suggested_filename == "anna.csv"
    exported = Path(download.value.path()).read_text(encoding="utf-8")
    table = list(csv.DictReader(exported.splitlines()))
    assert {row["who"] for row in table} == {"anna"}
    assert exported == FILE.read_text()
    assert wrong == []
    page.close()

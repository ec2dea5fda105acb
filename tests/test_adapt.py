"""Examples of another domain without labels: what they change, which is `adapted/` alone."""

import hashlib
import importlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headstart
from flows import why
from pipeline import kinds
from pipeline.core import params
from pipeline.core.errors import DataError, ParamsError
from pipeline.core.paths import MANIFEST
from pipeline.heads.fit import class_weights, fit_heads
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split
from pipeline.tables.labels import LEAST_UNLABELLED
from pipeline.tables.manifest import read_manifest, write_manifest
from pipeline.transfer.adapting import Source, trained
from tests.conftest import Project

TABLE = Path("data/raw/items.parquet")
FIRST = ("ingest", "augment", "extract", "train", "evaluate", "bundle")
LIKE = [0.34, 0.33, 0.33]  # shares of the classes
COUNTS = {"train": 150, "val": 75, "test": 150, "target": 100}
ELSEWHERE = ("test", "target")


def run(*stages: str) -> None:
    for stage in stages:
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


def drawn(count: int, shares: list[float], seed: int) -> tuple[np.ndarray, list[str]]:
    """Vectors of three classes that overlap a little."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, size=count, p=shares)
    means = 2.2 * np.eye(3, 12)
    return means[labels] + random.normal(size=(count, 12)), [f"class {one}" for one in labels]


def write(shrunk: float, shares: list[float], labels: bool = False, **counts: int) -> None:
    """The table, whose test and target rows are nearer together, and in other shares.

    Target rows have no labels unless these are requested.
    """
    parts = []
    for seed, (split, usual) in enumerate(COUNTS.items()):
        other = split in ELSEWHERE
        vectors, names = drawn(counts.get(split, usual), shares if other else LIKE, seed)
        if other:
            vectors = shrunk * vectors + (1 - shrunk) * np.eye(12)[0]
        if split == "target" and not labels:
            names = [""] * len(names)
        keys = [f"{split} {number}" for number in range(len(names))]
        rows = {"key": keys, "vector": list(vectors.astype(np.float32)), "label": names}
        parts.append(pd.DataFrame(rows).assign(split=split))
    table = pa.Table.from_pandas(pd.concat(parts, ignore_index=True), preserve_index=False)
    pq.write_table(table, TABLE)


@pytest.fixture
def vectors(project: Project) -> Project:
    """A project of such a table."""
    project.set(
        **{
            "ingest.kind": "vector",
            "ingest.source": "parquet",
            "ingest.path": str(TABLE),
            "extract.backbone": "identity",
            "train.power": 1.0,
            "evaluate.bootstrap": 10,
        }
    )
    file = project.folder / "params.yaml"
    text = file.read_text()
    start, end = text.index("augment:"), text.index("extract:")
    file.write_text(text[:start] + "augment: {views: 0}\n" + text[end:])
    return project


def report() -> dict:
    return json.loads(Path("reports/adapt.json").read_text())


def digests() -> dict[str, str]:
    """The digest of every output but the table of target examples."""
    files = [
        file for top in ("data", "models", "reports", "bundle") for file in Path(top).rglob("*")
    ]
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file() and file.parts[1] not in ("raw", "target.parquet")
    }


@pytest.mark.slow
def test_examples_of_another_domain_change_no_byte_of_what_was_there(
    vectors: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors.set(**{"learning_curve.draws": 1, "rank.backbones": ["identity"]})
    stages = (*FIRST, "checks", "report", "learning_curve", "rank")
    write(0.3, LIKE, target=0)
    run(*stages)
    before = digests()
    assert (
        "375 of 375 rows accepted: 3 classes, 150 train, 75 val, 150 test\n"
        in capsys.readouterr().out
    )
    write(0.3, LIKE)
    run(*stages)
    assert "475 of 475 rows accepted: 3 classes, 150 train, 75 val, 150 test, 100 target\n" in (
        capsys.readouterr().out
    )
    after = digests()
    timings = "reports/rank_speed.csv"
    assert before | {timings: ""} == after | {timings: ""}
    target = pd.read_parquet("data/target.parquet")
    assert set(target["label"]) == {""}
    assert not set(target["digest"]) & set(pd.read_parquet("data/manifest.parquet")["digest"])


def test_labels_of_target_examples_are_not_looked_at_and_ingest_says_so(
    vectors: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write(0.3, LIKE, target=0)
    run("ingest")
    manifest = Path("data/manifest.parquet").read_bytes()
    write(0.3, LIKE)
    run("ingest")
    without = Path("data/target.parquet").read_bytes()
    assert "have labels" not in capsys.readouterr().out
    write(0.3, LIKE, labels=True)
    run("ingest")
    assert "100 of the 100 target vectors have labels, which are ignored" in (
        capsys.readouterr().out
    )
    assert Path("data/target.parquet").read_bytes() == without
    assert Path("data/manifest.parquet").read_bytes() == manifest  # what all other stages read


@pytest.mark.slow
def test_another_domain_gets_a_head_whose_bundle_answers_by_every_door(
    vectors: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors.set(**{"train.coverage": 0.9})
    write(0.3, LIKE)
    run(*FIRST)
    capsys.readouterr()
    run("adapt")
    said = capsys.readouterr().out
    assert "adapt: 0 target examples reused, 100 computed" in said
    assert "adapt: coral: predictions of the aligned head are more informative" in said
    assert "better" in said
    found = report()
    assert found["chosen"] == "coral"
    assert found["test"]["accuracy"]["answer"] == "better"
    table = pd.read_csv("reports/adapt.csv").set_index("method")
    assert table.index.tolist() == ["none", "coral"]
    assert table["chosen"].tolist() == ["no", "yes"]
    assert table.loc["coral", "test_accuracy"] > table.loc["none", "test_accuracy"] + 0.1
    lead = table.loc["coral", "gained"] - table.loc["coral", "lost"]
    assert lead == round(
        150 * (table.loc["coral", "test_accuracy"] - table.loc["none", "test_accuracy"])
    )

    manifest = pd.read_parquet("data/manifest.parquet").set_index("path")
    rows = pq.read_table(TABLE).to_pandas().query("split == 'test'")
    asked = np.stack(rows["vector"].tolist())
    told = headstart.load("adapted").predict(asked)
    right = np.mean([a.label == label for a, label in zip(told, rows["label"], strict=True)])
    assert right == pytest.approx(table.loc["coral", "test_accuracy"])
    assert manifest.loc[f"{TABLE}#{rows['key'].iloc[0]}", "label"] == rows["label"].iloc[0]
    session = onnxruntime.InferenceSession("adapted/model.onnx")
    name = session.get_inputs()[0].name
    shares = np.stack([session.run(None, {name: one})[0] for one in asked[:5]])
    wanted = [[one.probabilities[label] for label in sorted(one.probabilities)] for one in told[:5]]
    np.testing.assert_allclose(shares.reshape(5, 3), wanted, atol=1e-5)
    about = json.loads(Path("adapted/bundle.json").read_text())
    assert about["head"]["adapted"] == "coral"
    assert "another domain" in about["why_no_sets"]
    assert "sets" not in about
    # Examples like the aligned ones are not novel.
    assert np.mean([bool(one.unusual) for one in told]) < 0.15

    before = digests_of("adapted")
    run("adapt")
    assert "adapt: 100 target examples reused, 0 computed" in capsys.readouterr().out
    assert digests_of("adapted") == before


def digests_of(folder: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}


@pytest.mark.slow
def test_another_mix_of_classes_is_declined(vectors: Project) -> None:
    write(1.0, [0.9, 0.05, 0.05])
    run(*FIRST, "adapt")
    assert report()["chosen"] == "none"
    table = pd.read_csv("reports/adapt.csv").set_index("method")["test_accuracy"]
    assert table["none"] > table["coral"] + 0.1  # which would have done harm


@pytest.mark.slow
def test_more_examples_of_the_same_are_declined(
    vectors: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write(1.0, LIKE)
    run(*FIRST, "adapt")
    assert "adapt: none: predictions of the aligned head are not" in capsys.readouterr().out
    assert digests_of("adapted") == digests_of("bundle")
    assert report()["test"]["accuracy"]["before"] == report()["test"]["accuracy"]["after"]
    vectors.set(**{"adapt.method": "coral"})
    run("adapt")
    assert report()["chosen"] == "coral"
    assert report()["why"] == "adapt.method asks for it"
    manifest = read_manifest(MANIFEST)
    days = [f"day {number % 8}" for number in range(len(manifest))]
    write_manifest(manifest.assign(group=days), "vector", MANIFEST)
    run("adapt")
    assert "of 8 groups; p = " in report()["test"]["accuracy"]["found"]


def test_a_harmless_difference_is_declined(vectors: Project) -> None:
    write(1.0, LIKE)
    table = pq.read_table(TABLE).to_pandas()
    moved = np.zeros(12, np.float32)
    moved[11] = 1.5  # in which the classes do not differ
    other = table["split"].isin(ELSEWHERE)
    table.loc[other, "vector"] = table.loc[other, "vector"].map(lambda vector: vector + moved)
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), TABLE)
    run(*FIRST, "adapt")
    assert report()["chosen"] == "none"
    assert "not much more informative" in report()["why"]


@pytest.mark.parametrize("count", [0, LEAST_UNLABELLED - 1])
def test_too_few_examples_of_the_other_domain_end_ingest(vectors: Project, count: int) -> None:
    write(1.0, LIKE, target=count)
    run("ingest")  # the stage is not enabled
    vectors.set(**{"adapt.run": ["asked"]})
    with pytest.raises(
        DataError, match=rf"adapt needs 20 .* there are {count}: .*adapt\.run to \[\]"
    ):
        run("ingest")


def test_an_example_with_a_label_is_none_of_another_domain(vectors: Project) -> None:
    write(1.0, LIKE)
    table = pq.read_table(TABLE).to_pandas()
    again = table[table["split"] == "test"].head(3).assign(split="target", label="")
    both = pd.concat([table, again.assign(key=["a", "b", "c"])], ignore_index=True)
    twice = table[table["split"] == "target"].head(1).assign(key="d")
    whole = pd.concat([both, twice], ignore_index=True)
    pq.write_table(pa.Table.from_pandas(whole, preserve_index=False), TABLE)
    run("ingest")
    refused = pd.read_csv("data/refused.csv").set_index("path")["reason"]
    assert refused.to_dict() == {
        **{
            f"{TABLE}#{key}": f"the same vector as {TABLE}#test {place}"
            for place, key in enumerate("abc")
        },
        f"{TABLE}#target 0": f"the same vector as {TABLE}#d",
    }
    assert len(pd.read_parquet("data/target.parquet")) == 100
    assert len(pd.read_parquet("data/manifest.parquet")) == 375


def test_why_tells_of_no_target_example_among_those_with_labels(vectors: Project) -> None:
    write(1.0, LIKE, target=0)
    run("ingest")
    before = pd.read_parquet("data/manifest.parquet")
    write(1.0, LIKE)
    kind = kinds.named("vector")
    after = why.coming_manifest(params.load(kinds.schema), before, {str(TABLE)}, kind)
    assert after is not None
    assert why.example_changes(before, after) == why.Examples()
    assert after.manifest["digest"].tolist() == before["digest"].tolist()


def test_the_stage_and_its_examples_are_of_classification(vectors: Project) -> None:
    write(1.0, LIKE)
    vectors.set(**{"ingest.task": "multilabel"})
    with pytest.raises(
        DataError, match=r"has the split target, .* does not support ingest\.task multilabel"
    ):
        run("ingest")
    vectors.set(**{"adapt.run": ["asked"]})
    with pytest.raises(
        ParamsError, match=r"adapt.run is .*, which does not apply to ingest\.task multilabel"
    ):
        params.load(kinds.schema)


@pytest.mark.parametrize("old", ["prior_shift", "both"])
def test_a_method_that_was_removed_is_refused_in_one_line(vectors: Project, old: str) -> None:
    vectors.set(**{"adapt.method": old})
    with pytest.raises(ParamsError) as raised:
        params.load(kinds.schema)
    assert str(raised.value) == (
        f"params.yaml: adapt.method is '{old}'; was removed (docs/adapt.md): set auto or coral"
    )


def test_a_balanced_head_expects_the_shares_that_there_are() -> None:
    """And answers with its own classes."""
    random = np.random.default_rng(0)
    labels = (random.random(900) < 0.1).astype(np.int64)
    features = (random.standard_normal((900, 4)) + 1.5 * labels[:, None]).astype(np.float32)
    names = np.array([f"{number:064x}" for number in range(900)])
    every = Split(names, names, np.zeros(900, np.int32), labels, features)
    train, val = every.take(slice(600)), every.take(slice(600, None))
    schedule = Schedule(1, 1, 0, class_weights("balanced", train.labels, 2))
    hyperparameters = Hyperparameters("lbfgs", 0, 0.01, 0, 0, 0, 0)
    method = trained(Source(train, val, hyperparameters, schedule, "cpu", refit=False))
    shares = method.of_target(val.features)
    assert shares[:, 1].mean() == pytest.approx(val.labels.mean(), abs=0.02)
    (plain,) = fit_heads(train, val, [hyperparameters], schedule, "cpu")
    own = plain.head.logits(val.features).argmax(axis=1)
    assert (method.answered(shares) == own).all()
    assert own.sum() > 1.2 * (shares[:, 1] > 0.5).sum()

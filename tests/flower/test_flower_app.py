"""What sites and server of the Flower app compute and refuse, without Flower."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

from federated import examples, prepare, softmax
from federated.agreement import (
    Agreement,
    Offer,
    agreed,
    rounded_up,
    why_not_averaged,
    why_refused,
)
from federated.deal import deal, dealt
from federated.examples import Examples
from federated.loopback import Federation, settings_in
from federated.settings import Settings, description
from pipeline.core.errors import DataError, ParamsError, RunError
from pipeline.core.paths import FEATURES, MANIFEST
from pipeline.heads.fit import centre_and_scale, fit_heads
from pipeline.heads.head import Head, fit_temperature, load_head, probabilities, save_head
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule
from pipeline.tables.features import COUNTS, Split, read_splits
from pipeline.tables.manifest import TASK, read_manifest
from tests.conftest import ROOT, Project
from tests.flower.dealt_digits import MADE_BY, digits

USUAL = {
    "out": "head", "sites": 2, "min-sites": 2, "wait": 1.0, "rounds": 3, "round-timeout": 1.0,
    "local-epochs": 20, "batch-size": 32, "learning-rate": 4.0, "weight-decay": 0.003,
    "proximal-mu": 0.0, "secure": False,
}  # fmt: skip


def prepared(project: Project, *stages: str) -> Examples:
    for stage in stages:
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()
    prepare.write_features()
    return examples.read(Path())


@pytest.fixture
def vectors(project: Project) -> Project:
    found = load_digits()
    table = {
        "key": [f"item {number}" for number in range(300)],
        "vector": pa.array(found.data[:300].tolist(), pa.list_(pa.float32())),
        "label": [f"digit {target}" for target in found.target[:300]],
    }
    pq.write_table(pa.table(table), "data/raw/items.parquet")
    project.set(
        **{
            "ingest.kind": "vector",
            "ingest.source": "parquet",
            "ingest.path": "data/raw/items.parquet",
            "extract.backbone": "identity",
        }
    )
    file = project.folder / "params.yaml"
    text = file.read_text()
    augment, extract = text.index("augment:"), text.index("extract:")
    file.write_text(text[:augment] + "augment:\n  views: 0\n\n" + text[extract:])
    return project


def test_a_project_is_prepared_as_its_own_train_stage_reads_it(
    vectors: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = prepared(vectors, "ingest", "augment", "extract")
    manifest = read_manifest(MANIFEST)
    splits = read_splits(FEATURES, manifest, found.classes, ["train", "val"], 0.5)
    np.testing.assert_array_equal(found.train, splits["train"].features)
    np.testing.assert_array_equal(found.val_labels, splits["val"].labels)
    assert found.classes == sorted(set(manifest["label"]))
    assert found.made_by["backbone"] == "identity"
    assert found.made_by["dimension"] == "64"
    assert len(found.made_by["fingerprint"]) == 64

    monkeypatch.setattr("sys.argv", ["deal", "sites", "--sites", "3"])
    deal()
    parts = [examples.read(folder) for folder in sorted(Path("sites").iterdir())]
    assert len(parts) == 3
    assert sum(len(part.train) for part in parts) == len(found.train)
    assert {part.made_by["fingerprint"] for part in parts} == {found.made_by["fingerprint"]}
    monkeypatch.setattr("sys.argv", ["deal", "sites", "--sites", "1"])
    with pytest.raises(ParamsError, match="--sites has to be 2 or more"):
        deal()

    MANIFEST.write_bytes(MANIFEST.read_bytes() + b" ")
    with pytest.raises(DataError, match=r"manifest.parquet is another than .* run python -m"):
        examples.read(Path())
    examples.FILE.write_bytes(b"nothing")
    with pytest.raises(DataError, match="is damaged"):
        examples.read(Path())
    examples.FILE.unlink()
    with pytest.raises(DataError, match=r"is not there; run python -m federated.prepare"):
        examples.read(Path())


def test_what_leaves_no_trace_in_git_is_the_file_of_a_site() -> None:
    assert f"/{examples.FILE.name}" in (ROOT / "data" / ".gitignore").read_text().splitlines()


def test_sums_of_sites_give_the_centre_and_scale_of_all() -> None:
    whole = digits()
    parts = dealt(whole, 4, 0.3, 0)
    weights = [len(part.train) / len(whole.train) for part in parts]
    sums = [softmax.moments(part.train) for part in parts]
    mean = np.sum([w * m for w, (m, _) in zip(weights, sums, strict=True)], axis=0)
    square = sum(w * s for w, (_, s) in zip(weights, sums, strict=True))
    wanted_mean, wanted_scale = centre_and_scale(whole.train)
    np.testing.assert_allclose(mean, wanted_mean, atol=1e-5)
    assert softmax.scale_of(mean, square) == pytest.approx(wanted_scale, rel=1e-5)
    assert softmax.scale_of(np.ones(3), 1.0) == 1  # features that do not vary


def test_sgd_comes_to_the_head_of_lbfgs() -> None:
    whole = digits()
    mean, scale = centre_and_scale(whole.train)
    seen = (whole.train - mean) / scale
    start = np.zeros((10, 64), np.float32), np.zeros(10, np.float32)
    recipe = softmax.Recipe(epochs=2000, batch=400, rate=4.0, decay=0.1)
    weight, bias = softmax.trained(*start, seen, whole.train_labels, recipe, 0)
    head = softmax.in_raw_units(weight, bias, mean, float(scale))
    rows = Split(*(np.arange(len(seen)).astype(str),) * 2, np.zeros(len(seen), np.int32),
                 whole.train_labels, whole.train)  # fmt: skip
    none = Split(*(value[:0] for value in vars(rows).values()))
    wanted = Hyperparameters("lbfgs", 0, 0.1, 0, 0, 0, 0)
    (best,) = fit_heads(rows, none, [wanted], Schedule(1, 1, 0, np.ones(10, np.float32)), "cpu")
    assert best.head

    def objective(one: Head) -> float:
        given = probabilities(one.logits(whole.train))[np.arange(400), whole.train_labels]
        return float(-np.log(given).mean() + 0.05 * np.square(one.weight * scale).sum())

    # scikit-learn ends where the gradient is small, a little above the minimum.
    assert objective(head) == pytest.approx(objective(best.head), rel=1e-3)

    again = softmax.trained(*start, seen, whole.train_labels, recipe, 0)
    np.testing.assert_array_equal(weight, again[0])


def test_weights_of_a_site_with_two_examples_give_them_away() -> None:
    """docs/flower.md says so: they lie nearly along the difference of its vectors."""
    found = digits()
    seen, labels = found.train[:2] / 8, np.array([0, 1])
    start = np.zeros((2, 64), np.float32), np.zeros(2, np.float32)
    weight, _ = softmax.trained(*start, seen, labels, softmax.Recipe(20, 2, 1.0, 0.003), 0)
    away = seen[0] - seen[1]
    cosine = weight[0] @ away / (np.linalg.norm(weight[0]) * np.linalg.norm(away))
    assert cosine > 0.98


def test_fedprox_stays_near_the_head_that_came() -> None:
    part = dealt(digits(), 3, 0.3, 0)[0]
    start = np.zeros((10, 64), np.float32), np.zeros(10, np.float32)
    far = []
    for proximal in (0.0, 0.1, 1.0):
        recipe = softmax.Recipe(20, 32, 1.0, 0.0, proximal)
        weight, _ = softmax.trained(*start, part.train / 8, part.train_labels, recipe, 0)
        far.append(float(np.abs(weight).sum()))
    assert far[0] > far[1] > far[2] > 0


def test_what_sites_tell_of_a_head_adds_up_to_what_all_say() -> None:
    whole = digits()
    random = np.random.default_rng(0)
    head = Head(random.normal(size=(10, 64)).astype(np.float32) / 20, np.zeros(10, np.float32))
    parts = dealt(whole, 3, 100.0, 0)
    rows = sum(len(part.train) for part in parts)
    shares = np.zeros(3 + len(softmax.TEMPERATURES))
    for part in parts:
        place = np.array([whole.classes.index(name) for name in part.classes])
        sums = softmax.told(head.weight, head.bias, part.val, place[part.val_labels])
        shares += np.append(sums, 1) / rows  # each part's share, weighed by its rows
    found = softmax.judged(shares, 3)
    assert found is not None
    logits = head.logits(whole.val)
    assert found.examples == len(whole.val)
    assert found.accuracy == pytest.approx((logits.argmax(axis=1) == whole.val_labels).mean())
    best = np.clip(fit_temperature(logits, whole.val_labels), 0.2, 5)
    assert found.temperature == pytest.approx(best, rel=0.05)
    assert softmax.judged(np.append(np.zeros(2 + len(softmax.TEMPERATURES)), 0.1), 3) is None


def offer(name: str, *classes: str, **other: str) -> Offer:
    return Offer(name, classes or ("ant", "bee"), 64, MADE_BY | other)


def test_sites_agree_on_the_classes_of_all() -> None:
    found = agreed([offer("a", "ant", "bee"), offer("b", "bee", "cat")])
    assert found == Agreement(("ant", "bee", "cat"), MADE_BY, 64)
    assert why_refused(offer("b"), found, {"a"}) == ""


def test_a_site_that_differs_is_named_with_what_differs() -> None:
    offers = [offer("a"), offer("b"), offer("c", fingerprint="other")]
    found = agreed(offers)
    assert [why_refused(one, found, set()) for one in offers] == [
        "", "", "it has fingerprint other instead of abc"
    ]  # fmt: skip
    for name in examples.ALIKE:
        strange = replace(offer("d"), made_by=MADE_BY | {name: "7"})
        assert why_refused(strange, found, set()).startswith(f"it has {name} 7 instead of ")
    assert why_refused(offer("a"), found, {"a"}) == "another site has this name"
    late = why_refused(offer("d", "ant", "wasp"), found, set())
    assert late == "it came with classes that were not agreed on: wasp"
    assert "more than the largest" in why_refused(replace(offer("d"), at_most=128), found, set())
    assert "protocol 2" in why_refused(replace(offer("d"), protocol=2), found, set())
    with pytest.raises(DataError, match=r"b has power 1.0 instead of 0.5 at a, and as many sites"):
        agreed([offer("a"), offer("b", power="1.0")])
    with pytest.raises(DataError, match="no site"):
        agreed([])


def test_numbers_that_would_spoil_the_average_are_refused() -> None:
    good = {"weight": np.ones((2, 3)), "bias": np.ones(2)}
    shapes = {name: array.shape for name, array in good.items()}
    assert why_not_averaged(good, shapes) == ""
    for bad in (np.nan, np.inf):
        assert "not finite" in why_not_averaged(good | {"bias": np.array([1, bad])}, shapes)
    assert "another shape" in why_not_averaged(good | {"bias": np.ones(3)}, shapes)
    assert "another shape" in why_not_averaged({"weight": good["weight"]}, shapes)


def test_the_number_of_rows_is_told_as_a_power_of_two() -> None:
    assert [rounded_up(rows) for rows in (1, 2, 3, 64, 65)] == [1, 2, 4, 64, 128]


def test_the_head_is_one_that_headstart_reads(tmp_path: Path) -> None:
    head = Head(np.ones((2, 3), np.float32), np.zeros(2, np.float32))
    figures = softmax.Judged(12, 0.75, 0.5, 0.9)
    agreement = agreed([offer("a"), offer("b")])
    about = description(agreement, Settings.of(USUAL), head, figures, 3)
    save_head(head, about, tmp_path / "head.safetensors", tmp_path / "head.json")
    read, told = load_head(tmp_path / "head.safetensors", tmp_path / "head.json")
    np.testing.assert_array_equal(read.weight, head.weight)
    assert (told["classes"], told["temperature"], told["power"]) == (["ant", "bee"], 0.9, 0.5)
    assert told["federated"]["strategy"] == "FedAvg"
    assert told["validation"] == {"pictures": 12, "loss": 0.5, "accuracy": 0.75}
    without = description(agreement, Settings.of(USUAL), head, None, 3)
    assert without["temperature"] == 1.0
    json.dumps(without, allow_nan=False)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"rounds": 0}, "rounds has to be 1 or more"),
        ({"learning-rate": 0.0}, "learning-rate has to be above 0"),
        ({"proximal-mu": -1.0}, "cannot be below 0"),
        ({"secure": True}, "secure=true needs min-sites of 3 or more"),
        ({"min-sites": 3}, "sites is 2, and has to be min-sites, 3, or more"),
        ({"secure": "no"}, "secure is 'no', and has to be true or false"),
        ({"rounds": 2.5}, "rounds is 2.5, and has to be a whole number"),
        ({"weight-decay": float("nan")}, "cannot be below 0"),
        ({"round": 3}, "there is no setting round"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, object], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        Settings.of(USUAL | setting)


def test_whoever_has_no_flower_is_told_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run make flower"):
        Federation(tmp_path, {}, python=tmp_path / "python")


def test_settings_are_read_as_flower_reads_them() -> None:
    words = ["rounds=5", "wait=2.5", "secure=true", "out=a folder"]
    assert settings_in(words) == {"rounds": 5, "wait": 2.5, "secure": True, "out": "a folder"}
    with pytest.raises(ParamsError, match="rounds is not NAME=VALUE"):
        settings_in(["rounds"])


def test_what_cannot_be_trained_across_sites_is_refused(vectors: Project) -> None:
    for stage in ("ingest", "augment", "extract"):
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()
    shards = sorted(FEATURES.iterdir())
    for shard in shards:
        held = pq.read_table(shard)
        pq.write_table(held.replace_schema_metadata({COUNTS: b"yes"}), shard)
    with pytest.raises(DataError, match="holds counts of terms"):
        prepare.write_features()
    manifest = pq.read_table(MANIFEST)
    notes = manifest.schema.metadata | {TASK: b"regression"}
    pq.write_table(manifest.replace_schema_metadata(notes), MANIFEST)
    with pytest.raises(DataError, match="is of regression"):
        prepare.write_features()


def test_examples_are_dealt_unevenly_and_none_is_lost() -> None:
    whole = digits()
    parts = dealt(whole, 5, 0.3, 1)
    assert sum(len(part.train) for part in parts) == len(whole.train)
    assert sum(len(part.val) for part in parts) == len(whole.val)
    assert {name for part in parts for name in part.classes} == set(whole.classes)
    for part in parts:
        assert len(part.classes) > 1
        assert set(part.val_labels) <= set(part.train_labels)
    with pytest.raises(DataError, match="ask for fewer"):
        dealt(whole, 300, 0.01, 0)

"""A joined head at a site: its metrics on the site's test examples, beside the site's own head."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import headstart
from headstart import cli
from pipeline.core.errors import DataError
from pipeline.core.paths import FEATURES, METRICS, PREDICTIONS
from pipeline.evaluate import evaluate
from pipeline.federated import join, measure, site
from pipeline.tables.features import write_shards
from pipeline.tables.manifest import write_manifest
from pipeline.train import train
from tests.federated.sites import Site

COUNTS = {
    "lima": {"ants": 40, "bees": 60},
    "oslo": {"bees": 60, "wasps": 40},
    "pune": {"ants": 40, "bees": 60, "moths": 40},  # which is not joined
}
BUNDLE = Path("../server/joined/bundle")


@pytest.fixture(scope="module")
def made(tmp_path_factory, exported):
    """Sites with a head of their own, and a server that joined lima and oslo."""
    folder = tmp_path_factory.mktemp("sites")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_STORE", str(exported.parent))
        for seed, (name, counts) in enumerate(COUNTS.items()):
            project = Site(folder / name, seed, counts)
            project.set(evaluate={"bootstrap": 200}, train={"coverage": None})
            with project.inside():
                Path("reports").mkdir()
                train()
                site.run(name)
        (folder / "server").mkdir()
        shutil.copy(folder / "lima" / "params.yaml", folder / "server")
        patch.chdir(folder / "server")
        join.run([folder / name / "site" / name for name in ("lima", "oslo")])
    return folder


@pytest.fixture
def sites(made, exported, tmp_path, monkeypatch):
    """A copy of the sites and the server; begins at lima."""
    monkeypatch.setenv("HEADSTART_STORE", str(exported.parent))
    shutil.copytree(made, tmp_path / "sites")
    monkeypatch.chdir(tmp_path / "sites" / "lima")
    return tmp_path / "sites"


def measured():
    return json.loads(measure.MEASURED.read_text())


def test_the_metrics_are_those_of_evaluate_and_of_the_bundle(sites, capsys):
    evaluate()
    capsys.readouterr()
    measure.run(BUNDLE)
    found, metrics = measured(), json.loads(METRICS.read_text())
    assert found["own"] == {name: metrics[name] for name in ("test", "interval")}
    own = pd.read_csv(PREDICTIONS)
    manifest = pd.read_parquet("data/manifest.parquet").set_index("path")
    features = pd.concat(map(pd.read_parquet, Path("data/features").glob("*.parquet")))
    of_test = features.set_index("digest").loc[manifest.loc[own["path"], "digest"], "feature"]
    answers = headstart.load(BUNDLE).predict(np.stack(of_test.tolist()))
    right = np.array([a.label for a in answers]) == own["label"]
    losses = [-np.log(a.probabilities[b]) for a, b in zip(answers, own["label"], strict=True)]
    joined, apart = found["joined"]["test"], found["difference"]
    assert (joined["pictures"], joined["accuracy"]) == (20, right.mean())
    assert joined["loss"] == pytest.approx(np.mean(losses), abs=1e-4)
    for name, one in apart.items():
        assert one["value"] == pytest.approx(joined[name] - metrics["test"][name], abs=2e-6)
        assert one["low"] < one["value"] < one["high"]
    assert list(apart) == ["accuracy", "loss"]
    assert found["of_missing_classes"] == found["predicted_as_foreign_classes"] == 0
    text = measure.MEASURED.read_text()
    assert not any(hidden in text for hidden in ("bees", *manifest.index, *manifest["digest"]))
    first, accuracy, loss, last = capsys.readouterr().out.splitlines()
    assert first.endswith("own head on 20 test examples, with 95 % intervals:")
    value, ends = joined["accuracy"], found["joined"]["interval"]["accuracy"]
    shown = f"{value:.4f} ({ends['low']:.4f} to {ends['high']:.4f}), own "
    assert accuracy.startswith(f"measure: accuracy {shown}")
    assert accuracy.endswith("): may be chance")
    assert loss.startswith("measure: loss ")
    assert last.startswith("measure: site/measured.json has these metrics")


def test_a_class_that_one_of_the_two_lacks_is_a_wrong_prediction(sites, monkeypatch, capsys):
    monkeypatch.chdir(sites / "pune")
    measure.run(BUNDLE)
    found, said = measured(), capsys.readouterr().out
    assert "does not have the classes moths, so it cannot be right about their 8 test" in said
    assert "own head is better" in said
    assert found["of_missing_classes"] == 8
    joined = found["joined"]["test"]
    assert joined["accuracy"] <= 20 / 28
    assert {"loss", "top_3_accuracy"} & {*joined, *found["joined"]["interval"]} == set()
    assert {"accuracy"} == set(found["difference"])
    # wasps, which pune does not have, are among the predictions
    foreign = found["predicted_as_foreign_classes"]
    assert (
        f"{foreign} predictions of the joined head are classes that only other sites have" in said
    )
    assert 0 < foreign <= 28 - 28 * joined["accuracy"]


def test_intervals_are_by_group_and_own_thresholds_are_kept(sites, capsys):
    measure.run(BUNDLE)
    alone = measured()["difference"]
    manifest = pd.read_parquet("data/manifest.parquet")
    manifest["group"] = [f"day {n % 4}" for n in range(len(manifest))]
    write_manifest(manifest, "vector", Path("data/manifest.parquet"))
    parameters = yaml.safe_load(Path("params.yaml").read_text())
    parameters["train"]["class_weights"] = "balanced"
    Path("params.yaml").write_text(yaml.safe_dump(parameters))
    train()
    evaluate()
    measure.run(BUNDLE)
    found, said = measured(), capsys.readouterr().out
    metrics = json.loads(METRICS.read_text())
    assert found["own"] == {name: metrics[name] for name in ("test", "interval")}
    assert found["joined"]["test"]["groups"] == 4
    assert "on 20 test examples of 4 groups, with" in said
    assert "measure: warning: the intervals are computed from only 4 groups" in said
    width, before = (
        one["accuracy"]["high"] - one["accuracy"]["low"] for one in (found["difference"], alone)
    )
    assert width > before


def other_task():
    manifest = pd.read_parquet("data/manifest.parquet")
    write_manifest(manifest, "vector", Path("data/manifest.parquet"), task="regression")


def other(**fields):
    """Another program writes the bundle."""
    file = BUNDLE / "bundle.json"
    about = json.loads(file.read_text())
    about["backbone"] |= fields
    file.write_text(json.dumps(about))


def more_features():
    rows = pd.concat(map(pd.read_parquet, FEATURES.glob("*.parquet")))
    wider = np.pad(np.stack(rows["feature"].tolist()), ((0, 0), (0, 1)))
    write_shards(FEATURES, [(rows["digest"].tolist(), rows["view"].tolist(), wider)])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda: shutil.rmtree(BUNDLE), "is not a bundle; "),
        (
            lambda: Path("models/head.json").unlink(),
            "models/head.json does not exist; run the train",
        ),
        (more_features, "takes 6 features, but data/features has 7"),
        (other_task, "is for classification, and data/manifest.parquet for regression"),
        (
            lambda: other(fingerprint="12" * 32, name="\x1b[31m"),
            r"is \x1b[31m (12121212), but this project has identity (",
        ),
    ],
)
def test_what_cannot_be_measured_is_a_line(harm, said, sites):
    harm()
    with pytest.raises(DataError) as error:
        measure.run(BUNDLE)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not measure.MEASURED.exists()


def test_the_command_needs_a_head_that_is_up_to_date(sites, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["headstart", "measure", str(BUNDLE)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 9
    assert capsys.readouterr().err.startswith("measure: error: DVC: ")
    assert not measure.MEASURED.exists()

"""The evaluate stage: its metrics, tables and plots, as people, DVC and spreadsheets read them."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats
from sklearn import metrics

from pipeline.core.errors import DataError, ParamsError
from pipeline.core.paths import (
    CLASSES,
    FEATURES,
    HEAD,
    HEAD_WEIGHTS,
    MANIFEST,
    METRICS,
    PLOTS,
    PREDICTIONS,
    REPEATS,
    SLICES,
)
from pipeline.evaluate import evaluate
from pipeline.evaluation import tables
from pipeline.heads.description import HeadDescription
from pipeline.heads.head import Head, save_head
from pipeline.tables.features import read_splits, write_shards
from pipeline.tables.manifest import SPLITS, read_manifest
from pipeline.tasks.classification.plots import draw_confusion
from pipeline.train import train
from tests.conftest import ROOT, enter_copy, project_in
from tests.evaluation.made import labelled, make, measured
from tests.test_train import COUNTS, make_features

PNG = PLOTS / "confusion_matrix.png"


@pytest.fixture(scope="module")
def evaluated_once(tmp_path_factory, exported):
    folder = tmp_path_factory.mktemp("evaluated")
    with project_in(folder, exported) as project:
        make_features(COUNTS)
        project.set(**{"train.epochs": 5, "train.device": "cpu", "evaluate.bootstrap": 200})
        train()
        evaluate()
    return folder


@pytest.fixture
def evaluated(evaluated_once, tmp_path, monkeypatch):
    """A copy of a project in which a head is trained and evaluated."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return enter_copy(evaluated_once, tmp_path / "project", monkeypatch)


def test_metrics_are_those_of_the_predictions(evaluated):
    reported = json.loads(METRICS.read_text())
    predictions = pd.read_csv(PREDICTIONS)
    assert len(predictions) == reported["test"]["pictures"] == 30
    label, predicted = predictions["label"], predictions["predicted"]
    shares = predictions[["p(ants)", "p(bees)", "p(wasps)"]].to_numpy()
    test = reported["test"]
    assert test["accuracy"] == pytest.approx(metrics.accuracy_score(label, predicted), abs=1e-5)
    assert test["loss"] == pytest.approx(metrics.log_loss(label, shares), abs=1e-4)
    assert test["macro_f1"] == pytest.approx(
        metrics.f1_score(label, predicted, average="macro"), abs=1e-5
    )
    assert set(reported["interval"]) == set(test) - {"pictures"}
    for name, ends in reported["interval"].items():
        assert ends["low"] <= ends["high"]
        if name != "calibration_error":  # resampling can only add to it, so it may lie below
            assert ends["low"] <= test[name] <= ends["high"]


def test_predictions_are_sorted_by_path_and_complete(evaluated):
    predictions = pd.read_csv(PREDICTIONS)
    manifest = pd.read_parquet(MANIFEST)
    wanted = manifest[manifest["split"] == "test"].sort_values("path")
    assert list(predictions.columns) == [
        "path", "label", "predicted", "probability", "correct", "p(ants)", "p(bees)", "p(wasps)"
    ]  # fmt: skip
    assert predictions["path"].tolist() == wanted["path"].tolist()
    assert predictions["label"].tolist() == wanted["label"].tolist()
    shares = predictions[["p(ants)", "p(bees)", "p(wasps)"]]
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(shares.max(axis=1), predictions["probability"])
    assert (predictions["correct"] == (predictions["label"] == predictions["predicted"])).all()


def test_classes_have_their_measures_with_intervals(evaluated):
    classes, predictions = pd.read_csv(CLASSES), pd.read_csv(PREDICTIONS)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        predictions["label"], predictions["predicted"]
    )
    assert classes["class"].tolist() == ["ants", "bees", "wasps"]
    assert classes["pictures"].tolist() == support.tolist()
    for name, wanted in (("precision", precision), ("recall", recall), ("f1", f1)):
        np.testing.assert_allclose(classes[name], wanted, atol=1e-5)
        assert (classes[f"{name}_low"] <= classes[name]).all()
        assert (classes[name] <= classes[f"{name}_high"]).all()


def test_plot_tables_hold_what_they_say(evaluated):
    predictions = pd.read_csv(PREDICTIONS)
    confusion = pd.read_csv(PLOTS / "confusion.csv")
    wanted = predictions.groupby(["label", "predicted"]).size()
    assert confusion.groupby(["actual", "predicted"]).size().tolist() == wanted.tolist()
    roc = pd.read_csv(PLOTS / "roc.csv")
    curve = roc[roc["class"] == "bees"]
    area = np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"])
    wanted = metrics.roc_auc_score(predictions["label"] == "bees", predictions["p(bees)"])
    assert area == pytest.approx(wanted, abs=1e-4)
    assert set(roc["class"]) == {"ants", "bees", "wasps", "(macro mean)"}
    recall = pd.read_csv(PLOTS / "precision_recall.csv")
    for _, curve in recall.groupby("class"):
        assert (np.diff(curve["recall"]) <= 0).all()
    reliability = pd.read_csv(PLOTS / "reliability.csv")
    assert reliability["pictures"].sum() == 30
    assert (reliability["low"] < reliability["confidence"]).all()
    assert (reliability["confidence"] <= reliability["high"]).all()
    gap = (reliability["confidence"] - reliability["accuracy"]).abs() * reliability["pictures"]
    error = json.loads(METRICS.read_text())["test"]["calibration_error"]
    assert gap.sum() / 30 == pytest.approx(error, abs=1e-4)


def test_two_runs_write_the_same_bytes(evaluated):
    files = [METRICS, PREDICTIONS, CLASSES, *sorted(PLOTS.iterdir())]
    before = [file.read_bytes() for file in files]
    evaluate()
    assert [file.read_bytes() for file in files] == before
    assert len(files) == 8


def test_the_seed_draws_other_resamples_and_nothing_else(evaluated):
    before, table = json.loads(METRICS.read_text()), PREDICTIONS.read_bytes()
    evaluated.set(**{"evaluate.seed": 1})
    evaluate()
    after = json.loads(METRICS.read_text())
    assert after["test"] == before["test"]
    assert after["interval"] != before["interval"]
    assert PREDICTIONS.read_bytes() == table


def test_slices_are_carried_to_the_predictions_and_change_no_figure(evaluated, capsys):
    before, plain = METRICS.read_bytes(), pd.read_csv(PREDICTIONS)
    assert SLICES.read_text().startswith("column,value,examples,accuracy,low,high,other_accuracy,")
    assert len(pd.read_csv(SLICES)) == 0
    manifest = pd.read_parquet(MANIFEST)
    manifest["slice:camera"] = ["A", "B"] * (len(manifest) // 2)
    manifest.to_parquet(MANIFEST)
    evaluate()
    assert METRICS.read_bytes() == before
    table = pd.read_csv(PREDICTIONS)
    assert table.columns[:6].tolist() == [*plain.columns[:5], "camera"]
    assert table.drop(columns="camera").equals(plain)
    of_path = dict(zip(manifest["path"], manifest["slice:camera"], strict=True))
    assert table["camera"].tolist() == [of_path[path] for path in table["path"]]
    by_camera = pd.read_csv(SLICES, index_col="value")
    accuracy = table.groupby("camera")["correct"].mean()
    assert by_camera["accuracy"].to_dict() == pytest.approx(accuracy.to_dict(), abs=1e-5)
    said = "evaluate: the worst slice is camera = "
    assert (said in capsys.readouterr().out) == (accuracy.nunique() > 1)


def test_repeats_are_written_beside_the_figures_and_change_none(evaluated, capsys):
    before = METRICS.read_bytes(), PREDICTIONS.read_bytes()
    assert REPEATS.read_text() == "measure,mean,low,high,repeats,given_split\n"
    evaluated.set(**{"evaluate.repeats": 6})
    evaluate()
    table = pd.read_csv(REPEATS, index_col="measure")
    assert (METRICS.read_bytes(), PREDICTIONS.read_bytes()) == before
    mean, low, high, repeats, given = table.loc["accuracy"]
    assert 0.4 < low < mean < high <= 1
    assert (repeats, given) == (6, True)  # these splits are nobody's draw
    said = f"evaluate: accuracy {mean:.4f} on average over 6 other splits, 95 % interval {low:.4f}"
    assert said in capsys.readouterr().out
    again = REPEATS.read_bytes()
    evaluate()
    assert REPEATS.read_bytes() == again
    evaluated.set(**{"evaluate.repeats": 1})
    with pytest.raises(ParamsError, match=r"evaluate\.repeats is 1; should be 0, or 2 or more"):
        evaluate()


def test_a_class_without_test_pictures_is_named_and_left_out(evaluated, capsys, recwarn):
    make_features(COUNTS | {"test": {"ants": 6, "bees": 6}})
    evaluate()
    assert "warning: there is no test example of wasps" in capsys.readouterr().out
    assert [str(warning.message) for warning in recwarn] == []
    with CLASSES.open(newline="") as stream:
        wasps = list(csv.DictReader(stream))[2]
    assert wasps["pictures"] == "0"
    assert (wasps["recall"], wasps["recall_low"], wasps["f1"]) == ("", "", "")
    assert "wasps" not in set(pd.read_csv(PLOTS / "roc.csv")["class"])


def test_no_test_picture_is_told_in_words(evaluated):
    make_features(COUNTS | {"test": {}})
    with pytest.raises(DataError, match=r"no test example.*ingest\.shares\.test"):
        evaluate()


def test_features_of_another_backbone_are_told_in_words(evaluated):
    shutil.rmtree(FEATURES)
    make_features(COUNTS, dimension=7)
    with pytest.raises(DataError, match=r"takes 12 features per example, .* has 7"):
        evaluate()


def test_only_pictures_of_one_class_can_be_measured(evaluated):
    make_features(COUNTS | {"test": {"ants": 4}})
    evaluate()
    assert json.loads(METRICS.read_text())["test"]["pictures"] == 4
    assert pd.read_csv(PLOTS / "roc.csv").columns.tolist()[0] == "class"


@pytest.mark.parametrize("classes", [2, 10, 50, pytest.param(100, marks=pytest.mark.slow)])
def test_the_confusion_matrix_can_be_looked_at(classes, tmp_path):
    generator = np.random.default_rng(0)
    labels = generator.integers(classes, size=20 * classes)
    predicted = np.where(generator.random(len(labels)) < 0.8, labels, labels[::-1])
    names = [f"class number {number}" for number in range(classes)]
    draw_confusion(labels, predicted, names, tmp_path / "confusion.png")
    picture = Image.open(tmp_path / "confusion.png")
    assert "Software" not in picture.info
    assert min(picture.size) >= 400
    assert max(picture.size) <= 2600
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_class_may_have_any_name(tmp_path):
    ones = np.array([0, 1, 2])
    draw_confusion(ones, ones, ["$x^$", "日本", "<b>\\frac{"], tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.width >= 400


def test_of_many_classes_the_whole_table_is_written_where_it_is_asked_for(evaluated, monkeypatch):
    monkeypatch.setattr(tables, "MANY", 2)
    whole = pd.read_csv(PREDICTIONS)
    evaluated.set(**{"evaluate.all_probabilities": True, "evaluate.top_k": 2})
    evaluate()
    short, every = pd.read_csv(PREDICTIONS), pd.read_parquet(PLOTS / tables.PROBABILITIES)
    same = ["path", "label", "predicted", "probability", "correct"]
    pd.testing.assert_frame_equal(short[same], whole[same])
    added = ["label_probability", "class_1", "probability_1", "class_2", "probability_2"]
    assert list(short.columns) == same + added
    names = ["p(ants)", "p(bees)", "p(wasps)"]
    np.testing.assert_allclose(every[names], whole[names], atol=1e-6)
    assert every["path"].tolist() == whole["path"].tolist()
    evaluated.set(**{"evaluate.all_probabilities": False})
    evaluate()
    assert not (PLOTS / tables.PROBABILITIES).exists()


@pytest.mark.parametrize("stage", [train, evaluate])
def test_too_little_memory_is_told_before_it_is_used_up(evaluated, monkeypatch, stage):
    monkeypatch.setattr("os.sysconf", lambda name: 1)
    with pytest.raises(DataError, match=r"of 3 classes needs about .* GB of memory, but this"):
        stage()


def dvc(*arguments):
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_dvc_shows_the_metrics_their_change_and_the_plots(evaluated):
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    shutil.copytree(ROOT / ".dvc" / "plots", Path(".dvc") / "plots", dirs_exist_ok=True)
    shown = json.loads(dvc("metrics", "show", "--json"))
    reported = json.loads(METRICS.read_text())
    assert shown[""]["data"][METRICS.as_posix()]["data"] == reported

    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "add", "-f", METRICS, "dvc.yaml", "params.yaml"], check=True)
    subprocess.run(["git", *identity, "commit", "-q", "-m", "measured"], check=True)
    changed = reported | {"test": reported["test"] | {"accuracy": 0.5}}
    METRICS.write_text(json.dumps(changed))
    change = json.loads(dvc("metrics", "diff", "--json"))[METRICS.as_posix()]
    assert change["test.accuracy"]["new"] == 0.5
    assert change["test.accuracy"]["old"] == reported["test"]["accuracy"]

    page = Path(dvc("plots", "show", "-o", "plots").strip().removeprefix("file://"))
    html = page.read_text()
    titles = ["Loss by epoch", "Accuracy by epoch", "Confusion", "ROC", "Precision and recall"]
    assert [title for title in titles if title not in html] == []
    assert "confusion_matrix.png" in html
    drawn = json.loads(dvc("plots", "show", "--json"))
    assert not drawn.get("errors")
    roc = drawn["data"]["ROC"][0]["content"]
    assert {point["class"] for point in roc["data"]["values"]} >= {"ants", "(macro mean)"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "drawn"),
    [("multilabel", {"ROC", "Precision and recall", "Reliability"}), ("regression", set())],
)
def test_dvc_draws_what_a_task_has_and_fails_at_nothing(project, task, drawn):
    make(task, ["height", "weight"], *(labelled if task == "multilabel" else measured)(outputs=2))
    evaluate()
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    shutil.copytree(ROOT / ".dvc" / "plots", Path(".dvc") / "plots", dirs_exist_ok=True)
    found = json.loads(dvc("plots", "show", "--json"))
    absent = {error["name"] for error in found["errors"]}
    assert {name for name, plots in found["data"].items() if plots} == drawn
    assert drawn.isdisjoint(absent)
    residuals = ("reports/plots/residuals.csv", "-x", "predicted", "-y", "residual")
    if task == "regression":
        assert "index.html" in dvc("plots", "show", *residuals, "-t", "scatter")
    shown = json.loads(dvc("metrics", "show", "--json"))
    assert shown[""]["data"][METRICS.as_posix()]["data"] == json.loads(METRICS.read_text())


def test_a_head_that_knows_nothing_is_measured_honestly(evaluated):
    classes = ["ants", "bees", "wasps"]
    nothing = Head(np.zeros((3, 12), np.float32), np.zeros(3, np.float32))
    save_head(nothing, HeadDescription(classes, 1.0), HEAD_WEIGHTS, HEAD)
    evaluate()
    test = json.loads(METRICS.read_text())["test"]
    assert test["loss"] == pytest.approx(np.log(3), abs=1e-5)
    assert test["balanced_accuracy"] == pytest.approx(1 / 3, abs=1e-5)


def test_examples_of_a_group_count_as_one(evaluated, capsys):
    capsys.readouterr()
    evaluate()
    alone, said = json.loads(METRICS.read_text()), capsys.readouterr().out
    assert "groups" not in alone["test"]
    assert "group" not in said
    manifest = pd.read_parquet(MANIFEST)
    test = (manifest["split"] == "test").to_numpy()
    of_test = dict(zip(pd.read_csv(PREDICTIONS)["path"], range(30), strict=True))
    right = dict(zip(*pd.read_csv(PREDICTIONS)[["path", "correct"]].to_numpy().T, strict=True))
    # Answers of a group are alike: all right, or all wrong but in the last.
    order = sorted(of_test, key=lambda path: (right[path], path))
    group = {path: f"patient {place // 3}" for place, path in enumerate(order)}
    manifest["group"] = [group.get(path, "") for path in manifest["path"]]
    assert (manifest["group"] != "").sum() == test.sum()
    manifest["slice:patient"] = manifest["group"]
    manifest.to_parquet(MANIFEST)
    evaluate()
    together, said = json.loads(METRICS.read_text()), capsys.readouterr().out
    assert together["test"] == alone["test"] | {"groups": 10}
    assert "on 30 test examples of 10 groups, 95 % interval" in said
    assert (
        "warning: the intervals are computed from only 10 groups, so they may be too narrow" in said
    )
    assert "evaluate: 10 slices were not tested: too few groups\n" in said
    assert pd.read_csv(SLICES)["p_value"].isna().all()
    for name in ("accuracy", "loss", "balanced_accuracy"):
        wide, narrow = (np.ptp([*of["interval"][name].values()]) for of in (together, alone))
        assert wide > 1.3 * narrow, name


def test_answers_of_one_group_have_no_interval_that_is_known(evaluated, capsys):
    manifest = pd.read_parquet(MANIFEST)
    manifest["group"] = np.where(manifest["split"] == "test", "one", "")
    manifest.to_parquet(MANIFEST)
    evaluate()
    reported = json.loads(METRICS.read_text())
    assert reported["interval"]["accuracy"] == {"low": 0, "high": 1}
    assert "loss" in reported["test"]
    assert "loss" not in reported["interval"]
    said = capsys.readouterr().out
    assert "warning: all test examples belong to one group" in said
    loss = reported["test"]["loss"]
    assert f"loss {loss:.4f} on 30 test examples of one group, no interval\n" in said


def test_all_right_is_no_certainty(project, capsys):
    make_features({split: {"ants": 12, "bees": 12} for split in ("train", "val", "test")})
    shards = read_splits(FEATURES, read_manifest(MANIFEST), ["ants", "bees"], SPLITS)
    digests = np.concatenate([split.digests[split.views == 0] for split in shards.values()])
    labels = np.concatenate([split.labels[split.views == 0] for split in shards.values()])
    apart, order = np.zeros((len(labels), 2), np.float32), np.argsort(digests)
    apart[range(len(labels)), labels] = 1
    write_shards(FEATURES, [(digests[order].tolist(), [0] * len(order), apart[order])])
    told_apart = Head(20 * np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    about = HeadDescription(["ants", "bees"], 1.0)
    save_head(told_apart, about, HEAD_WEIGHTS, HEAD)
    evaluate()
    said = capsys.readouterr().out
    assert "accuracy 1.0000 on 24 test examples, 95 % interval 0.8620 to 1.0000" in said
    ends = json.loads(METRICS.read_text())["interval"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert ends[name] == {"low": 0.862024, "high": 1.0}, name
    of_class = pd.read_csv(CLASSES)
    wanted = stats.binomtest(12, 12).proportion_ci(0.95, method="wilson").low
    for name in ("precision", "recall", "f1"):
        assert of_class[f"{name}_low"].tolist() == pytest.approx([wanted] * 2, abs=1e-5)
        assert of_class[f"{name}_high"].tolist() == [1, 1]

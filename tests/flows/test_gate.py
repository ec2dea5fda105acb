"""What the gate says of two results, and what becomes of them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from flows.gate import ANSWERS, KEPT, Gate, Guard
from pipeline.core.paths import MANIFEST, PARAMS, PREDICTIONS
from tests.conftest import ROOT

PLAN = {"train": {"lock": "dvc.lock", "uncached": []}}


def result(root: Path, right: int, of: int = 100) -> dict[str, Any]:
    """The files of a run whose model is right about so many; the metrics."""
    paths = [f"{number}.jpg" for number in range(of)]
    predicted = ["cat" if number < right else "dog" for number in range(of)]
    for file in (MANIFEST, PREDICTIONS):
        (root / file).parent.mkdir(exist_ok=True)
    table = pd.DataFrame({"path": paths, "label": "cat", "predicted": predicted})
    table["probability"] = 0.9
    table.to_csv(root / PREDICTIONS, index=False)
    digests = [f"{number:064x}" for number in range(of)]
    pd.DataFrame({"path": paths, "digest": digests}).to_parquet(root / MANIFEST)
    (root / PARAMS).write_text("evaluate: {}\n")
    return {"reports/metrics.json": {"test": {"accuracy": right / of, "other": right}}}


@pytest.mark.parametrize(
    ("before", "now", "said", "does"),
    [
        (80, 95, "better; test.accuracy is 0.9500 and was 0.8000 on the 100 test examples", "take"),
        (95, 80, "worse; test.accuracy is 0.8000 and was 0.9500 on the 100 test examples", "fail"),
        (90, 92, "cannot tell: about 470 more test examples would tell a difference of", "keep"),
    ],
)
def test_the_answer_decides_as_the_gate_says(
    tmp_path: Path, before: int, now: int, said: str, does: str
) -> None:
    guard = Guard(Gate(when_cannot_tell="keep"), tmp_path, PLAN, result(tmp_path, before))
    judged = guard.judge([], result(tmp_path, now))
    assert judged is not None
    assert judged.words.startswith(said)
    assert judged.does == does


def test_with_a_margin_only_the_figures_are_compared(tmp_path: Path) -> None:
    guard = Guard(Gate(margin=0.015), tmp_path, PLAN, result(tmp_path, 90))
    assert not (tmp_path / KEPT / ANSWERS).exists()
    assert guard.judge([], result(tmp_path, 89)) is None
    judged = guard.judge([], result(tmp_path, 88))
    assert judged is not None
    assert judged.does == "fail"
    assert judged.words == (
        "test.accuracy is 0.88 and was 0.9: worse by 0.02, which is more than the margin of 0.015"
    )


def test_what_the_answers_do_not_tell_is_compared_by_its_figures(tmp_path: Path) -> None:
    guard = Guard(Gate(metric="test.other"), tmp_path, PLAN, result(tmp_path, 90))
    judged = guard.judge([], result(tmp_path, 89))
    assert judged is not None
    assert "test.other is 89 and was 90: worse by 1" in judged.words
    (tmp_path / PREDICTIONS).unlink()
    gone = Guard(Gate(), tmp_path, PLAN, {}).judge([], result(tmp_path, 91))
    assert gone is not None  # what an earlier run had begun with is there
    assert gone.words.startswith("cannot tell")


def test_a_result_that_is_the_same_and_one_without_a_past_pass(tmp_path: Path) -> None:
    same = result(tmp_path, 90)
    gate = Gate(when_better="fail", when_worse="fail", when_cannot_tell="fail")
    assert Guard(gate, tmp_path / "new", PLAN, {}).judge(["train"], same) is None
    guard = Guard(gate, tmp_path, PLAN, same)
    assert guard.judge([], same) is None
    failed = guard.judge(["train"], same)
    assert failed is not None
    assert (failed.words, failed.does) == ("train failed", "fail")
    lost = guard.judge([], {"reports/metrics.json": {"test": {}}})
    assert lost is not None
    assert lost.words == "the metrics of this run have no test.accuracy"


def test_prefect_yaml_says_what_each_answer_does() -> None:
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    for deployment in declared:
        given = deployment["parameters"]["gate"]
        assert set(given) == set(Gate.model_fields) - {"better", "margin"}
        assert Gate(**given) == Gate()
    assert Gate(**json.loads('{"metric": "test.accuracy", "margin": 0.01}')).when_worse == "fail"


def of_numbers(root: Path, error: float, of: int = 100) -> dict[str, Any]:
    """The files of a run whose model is so far off; the metrics, with R² if it is known."""
    metrics = result(root, 0, of)["reports/metrics.json"]
    manifest = pd.read_parquet(root / MANIFEST)
    manifest["target:x"] = [float(number % 10) for number in range(of)]
    manifest.to_parquet(root / MANIFEST)
    table = pd.read_csv(root / PREDICTIONS)[["path", "label"]]
    wrong = [error * (-1) ** number * (1 + number % 3) / 2 for number in range(of)]
    table["predicted(x)"] = manifest["target:x"] + wrong
    table.to_csv(root / PREDICTIONS, index=False)
    metrics["test"] = {"mae": error, "rmse": error, "r2": 1 - error**2 / 8}
    return {"reports/metrics.json": metrics}


def test_without_a_metric_it_is_the_tasks_own(tmp_path: Path) -> None:
    guard = Guard(Gate(), tmp_path, PLAN, of_numbers(tmp_path, 1.0))
    judged = guard.judge([], of_numbers(tmp_path, 1.5))
    assert judged is not None
    assert judged.does == "fail"
    assert judged.words.startswith("worse; test.r2 is 0.6")
    several = {"reports/metrics.json": {"test": {"mean_average_precision": 0.8}}}
    assert Gate().metric_in(several) == "test.mean_average_precision"
    assert Gate().metric_in({}) == "test.accuracy"
    assert Gate(metric="test.mae").metric_in(several) == "test.mae"


@pytest.mark.parametrize(("now", "does"), [(0.5, "take"), (1.5, "fail")])
@pytest.mark.parametrize("margin", [None, 0.1])
def test_an_error_is_better_lower_unless_it_is_said(
    tmp_path: Path, now: float, does: str, margin: float | None
) -> None:
    gate = Gate(metric="test.mae", margin=margin)
    judged = Guard(gate, tmp_path, PLAN, of_numbers(tmp_path, 1.0)).judge(
        [], of_numbers(tmp_path, now)
    )
    assert (judged.does if judged else "take") == does
    assert not Gate(metric="test.mae", better="higher").lower_is_better("test.mae")
    assert Gate().lower_is_better("test.loss")
    assert not Gate().lower_is_better("test.of_somebody")


def test_models_of_two_tasks_are_not_compared(tmp_path: Path) -> None:
    gate = Gate(when_cannot_tell="keep")
    guard = Guard(gate, tmp_path, PLAN, result(tmp_path, 90))
    judged = guard.judge([], of_numbers(tmp_path, 1.0))
    assert judged == (
        "the task was classification and is regression now, so the two models are not compared",
        "keep",
    )

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

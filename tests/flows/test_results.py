"""What comes of a run: artifacts, experiments, and results that the gate turns down."""

import base64
import json
from typing import Any

import pytest
from toys import Toy

SCORE = """
import json, pathlib, yaml
score = yaml.safe_load(pathlib.Path("params.yaml").read_text())["train"]["score"]
pathlib.Path("model").write_text(f"model of {score}")
print("train: 1/2 things, 1.0 a second", flush=True)
print("train: 2/2 things, 1.0 a second", flush=True)
pathlib.Path("metrics.json").write_text(json.dumps({"test": {"accuracy": score}}))
from PIL import Image
Image.new("RGB", (4, 4), "orange").save("sheet.png")
"""


def trained(toy: Toy, score: float) -> Toy:
    """A pipeline whose one stage makes a model as good as params.yaml says."""
    (toy.root / "train.py").write_text(SCORE)
    (toy.root / "dvc.yaml").write_text(
        "stages:\n  train:\n    cmd: python train.py\n    deps: [train.py]\n"
        "    params: [train]\n    outs: [model, sheet.png]\n"
        "    metrics: [{metrics.json: {cache: false}}]\n"
    )
    score_is(toy, score)
    return toy


def score_is(toy: Toy, score: float) -> None:
    (toy.root / "params.yaml").write_text(f"train:\n  score: {score}  # how good\n  other: 1\n")


def gated(toy: Toy, **gate: Any) -> Any:
    return toy.flow("--gate", json.dumps(gate))


def test_artifacts_show_progress_outcome_metrics_and_pictures(toy: Toy) -> None:
    trained(toy, 0.5)
    toy.flow()
    score_is(toy, 0.75)
    run = toy.flow()
    artifacts = toy.artifacts(run)
    assert artifacts["train-progress"]["data"] == 100.0
    row = {"metric": "test.accuracy", "last run": 0.5, "this run": 0.75, "change": "+0.25"}
    assert json.loads(artifacts["toy-metrics"]["data"]) == [row]
    assert "| train |  | ran |" in artifacts["toy-outcome"]["data"]
    picture = base64.b64encode((toy.root / "sheet.png").read_bytes()).decode()
    assert picture in artifacts["toy-pictures"]["data"]
    assert "train: 1/2 things, 1.0 a second" in toy.logs(run, "train")


def test_overrides_become_an_experiment_and_leave_the_working_copy_alone(toy: Toy) -> None:
    trained(toy, 0.5)
    toy.flow()
    toy.commit()
    (toy.root / "notes.txt").write_text("not committed yet")
    before = {p: p.read_bytes() for p in toy.root.iterdir() if p.is_file()}
    run = toy.flow("--set", "train.score=0.875", "--name", "better")
    assert run.states() == {"train": "Completed"}
    assert {p: p.read_bytes() for p in toy.root.iterdir() if p.is_file()} == before
    assert toy.run("git", "status", "--porcelain") == "?? notes.txt\n"
    shown = json.loads(toy.run("dvc", "exp", "show", "--json"))
    (better,) = (e for rev in shown for e in rev["experiments"] or [])
    assert better["name"] == "better"
    metrics = better["revs"][0]["data"]["metrics"]["metrics.json"]["data"]
    assert metrics == {"test": {"accuracy": 0.875}}
    again = toy.flow("--set", "train.score=0.9", "--name", "better")
    assert "already" in again.state["message"]
    wrong = toy.flow("--set", "train.scare=1", "--name", "typo")
    assert wrong.state["type"] == "FAILED"
    assert "train.scare" in wrong.state["message"]
    toy.run("dvc", "exp", "apply", "better")
    assert (toy.root / "model").read_text() == "model of 0.875"


def test_a_worse_result_does_not_take_the_old_ones_place(toy: Toy) -> None:
    trained(toy, 0.75)
    assert gated(toy).state["name"] == "Completed"  # there was nothing to lose
    lock = (toy.root / "dvc.lock").read_text()
    score_is(toy, 0.5)
    run = gated(toy, margin=0.125)
    assert run.state["type"] == "FAILED"
    assert "test.accuracy is 0.5 and was 0.75" in run.state["message"]
    assert "kept" in toy.artifacts(run)["toy-gate"]["data"]
    kept = gated(toy, margin=0.125, when_worse="keep")
    assert (kept.state["type"], kept.state["name"]) == ("COMPLETED", "Kept")
    assert (toy.root / "model").read_text() == "model of 0.75"
    assert json.loads((toy.root / "metrics.json").read_text()) == {"test": {"accuracy": 0.75}}
    assert (toy.root / "dvc.lock").read_text() == lock
    assert gated(toy, margin=0.25).state["name"] == "Completed"
    assert (toy.root / "model").read_text() == "model of 0.5"


@pytest.mark.slow
def test_a_failed_run_leaves_the_gated_result(toy: Toy) -> None:
    trained(toy, 0.75)
    toy.flow()
    (toy.root / "train.py").write_text("raise SystemExit('no luck')")
    assert gated(toy).state["type"] == "FAILED"
    assert (toy.root / "model").read_text() == "model of 0.75"
    assert (toy.root / "metrics.json").exists()

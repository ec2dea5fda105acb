"""What comes of a run: artifacts, experiments, and results that the gate turns down."""

import argparse
import base64
import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from toys import PATIENCE, FlowRun, Toy, wait_for

from flows.dvc.claim import KEPT, Claim
from flows.dvc.experiment import copy_of
from flows.run import add_arguments, bring_up_to_date
from headstart import repro
from pipeline.core.errors import ExperimentError, ParamsError

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
    train = run.tasks["train"]["id"]
    wait_for(lambda: "train: 1/2 things, 1.0 a second" in toy.logs(train))


@pytest.mark.slow
def test_the_outcome_leads_to_the_page_among_the_outputs(toy: Toy) -> None:
    toy.stages(train={}, shown={"needs": ["train"]})
    graph = (toy.root / "dvc.yaml").read_text().replace("shown.out", "shown.html")
    (toy.root / "dvc.yaml").write_text(graph)
    stage = (toy.root / "stage.py").read_text()
    (toy.root / "stage.py").write_text(stage + "if name == 'shown': out.rename('shown.html')\n")
    page = toy.root / "shown.html"
    for run in (toy.flow(), toy.flow()):  # also where there is nothing to do
        assert f"[The report]({page.as_uri()}): `{page}`" in outcome_of(toy, run)
        assert run.output.splitlines()[-2] == f"Report: {page}"
    (toy.root / "params.yaml").write_text("wanted: 0")
    toy.commit()
    aside = toy.flow("--set", "wanted=1")
    assert "The report" not in outcome_of(toy, aside)
    assert "Report:" not in aside.output


def outcome_of(toy: Toy, run: FlowRun) -> str:
    return str(toy.artifacts(run)["toy-outcome"]["data"])


@pytest.mark.slow
def test_overrides_become_an_experiment_and_leave_the_working_copy_alone(toy: Toy) -> None:
    """Also in a subfolder of a git repository, as after `dvc init --subdir`."""
    (toy.root / ".git").rename(toy.root.parent / ".git")
    (toy.root.parent / ".gitignore").write_text(f"/*\n!/{toy.root.name}\n")
    trained(toy, 0.5)
    toy.flow()
    toy.commit()
    (toy.root / "notes.txt").write_text("not committed yet")
    before = {p: p.read_bytes() for p in toy.root.iterdir() if p.is_file()}
    # The gate that a deployment brings along is not asked, or this would not be saved.
    run = toy.flow("--set", "train.score=0.375", "--name", "worse", "--gate", "{}")
    assert run.states() == {"train": "Completed"}
    assert {p: p.read_bytes() for p in toy.root.iterdir() if p.is_file()} == before
    assert toy.run("git", "status", "--porcelain") == "?? toy/notes.txt\n"
    shown = json.loads(toy.run("dvc", "exp", "show", "--json"))
    (worse,) = (e for rev in shown for e in rev["experiments"] or [])
    assert worse["name"] == "worse"
    metrics = worse["revs"][0]["data"]["metrics"]["metrics.json"]["data"]
    assert metrics == {"test": {"accuracy": 0.375}}
    again = toy.flow("--set", "train.score=0.9", "--name", "worse")
    assert "already" in again.state["message"]
    params = (toy.root / "params.yaml").read_text()
    (toy.root / "params.yaml").write_text(params)  # written again, and nothing changed
    with pytest.raises(ParamsError, match=r"has no train\.scare; did you mean train\.score\? To"):
        bring_up_to_date({"overrides": ["+train.new=1", "train.scare=1"]}, print)
    wrong = toy.flow("--set", "~train.scare", "--name", "typo")  # of which Hydra complains
    assert wrong.state["type"] == "FAILED"
    assert "train.scare" in wrong.state["message"]
    toy.run("dvc", "exp", "apply", "worse")
    assert (toy.root / "model").read_text() == "model of 0.375"


def test_an_experiment_needs_a_commit(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    with (
        pytest.raises(ExperimentError, match="an experiment needs a git commit"),
        copy_of(tmp_path, "a"),
    ):
        pass


@pytest.mark.parametrize("name", ["a b", "a/b", "*", "..", ""])
def test_a_name_that_dvc_would_not_save_is_refused_before_any_work(
    tmp_path: Path, name: str
) -> None:
    with (
        pytest.raises(ExperimentError, match="cannot name an experiment"),
        copy_of(tmp_path, name),
    ):
        pass


def test_pictures_linked_in_from_elsewhere_are_in_the_copy(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (root / ".dvc", root / "data" / "raw", elsewhere):
        folder.mkdir(parents=True)
    (elsewhere / "1.jpg").write_text("a picture")
    (root / ".dvc" / ".gitignore").write_text("/tmp\n")  # noqa: S108 (of .dvc)
    (root / "data" / "raw" / "committed").symlink_to("../../../elsewhere")
    (root / "data" / "raw" / "inside").symlink_to("../../.dvc")
    somebody = ("-c", "user.name=t", "-c", "user.email=t@t")
    for command in (("init", "-q"), ("add", "."), (*somebody, "commit", "-qm", "as it is")):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "data" / "raw" / "relative").symlink_to("../../../elsewhere")
    (root / "data" / "raw" / "absolute").symlink_to(elsewhere)
    (root / "data" / "raw" / "nowhere").symlink_to("gone")
    (root / "data" / "raw" / "labels.csv").symlink_to(elsewhere / "1.jpg")
    with copy_of(root, "aside") as copy:
        for name in ("relative", "absolute", "committed"):
            assert (copy / "data" / "raw" / name).is_symlink()
            assert (copy / "data" / "raw" / name / "1.jpg").read_text() == "a picture"
        assert (copy / "data" / "raw" / "nowhere").is_symlink()
        assert (copy / "data" / "raw" / "labels.csv").read_text() == "a picture"
        assert (copy / "data" / "raw" / "inside").readlink() == Path("../../.dvc")
        status = ["git", "status", "--porcelain", "--untracked-files=no"]
        assert subprocess.run(status, cwd=copy, check=True, capture_output=True).stdout == b""
    subprocess.run(["git", "init", "-q", root / "data" / "nested"], check=True)
    (root / "data" / "nested" / "1.jpg").touch()
    with (
        pytest.raises(ExperimentError, match="data/nested/ is a git repository, which"),
        copy_of(root, "aside"),
    ):
        pass
    assert (elsewhere / "1.jpg").exists()  # the copy was deleted, not what it led to


def test_a_parameter_that_would_do_nothing_is_refused(toy: Toy) -> None:
    toy.stages(a={})
    toy.flow()  # so that nothing is to be done: a run that is usual would not start the flow
    for arguments, said in (
        (["--name", "better"], "name is for an experiment"),
        (["--remote", "store"], "remote has no effect without pull or push"),
    ):
        run = toy.flow(*arguments)
        assert (run.state["type"], run.code) == ("FAILED", 1)
        assert said in run.state["message"]
        assert run.tasks == {}


@pytest.mark.slow
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
    (toy.root / "train.py").write_text("raise SystemExit('no luck')")
    assert gated(toy).state["type"] == "FAILED"
    assert (toy.root / "model").read_text() == "model of 0.75"
    assert (toy.root / "metrics.json").exists()
    (toy.root / "train.py").write_text(SCORE)
    assert gated(toy, margin=0.25).state["name"] == "Completed"
    assert (toy.root / "model").read_text() == "model of 0.5"


@pytest.mark.slow
def test_what_a_killed_run_left_does_not_become_the_result_to_beat(toy: Toy) -> None:
    trained(toy, 0.75)
    gated(toy)
    score_is(toy, 0.5)
    declared = yaml.safe_load((toy.root / "dvc.yaml").read_text())
    late = {"cmd": "python stage.py late model", "deps": ["model"], "outs": ["late.out"]}
    declared["stages"]["late"] = late
    (toy.root / "dvc.yaml").write_text(yaml.safe_dump(declared))
    toy.tell("late", until=["go"])
    killed = toy.start("--gate", "{}")
    toy.pid("late")
    killed.kill()
    killed.wait(PATIENCE)
    assert (toy.root / "model").read_text() == "model of 0.5"
    (toy.root / "go").touch()
    assert "was 0.75: worse by 0.25" in gated(toy).state["message"]
    assert (toy.root / "model").read_text() == "model of 0.75"


@pytest.mark.parametrize(
    ("arguments", "code", "at_work", "keeps"),
    [
        ([], 0, False, False),
        (["--dry"], 0, False, True),
        ([], 255, False, True),
        ([], 0, True, True),  # it is the copy of the run with a gate that is at work
    ],
)
def test_repro_forgets_what_an_interrupted_run_with_a_gate_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    at_work: bool,
    keeps: bool,
) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "dvc.lock").touch()
    (tmp_path / KEPT).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.environ["PATH"])  # which `repro` changes
    monkeypatch.setattr("dvc.cli.main", lambda command: code)
    other = Claim(tmp_path, "refuse") if at_work else contextlib.nullcontext()
    with other, pytest.raises(SystemExit) as ended:
        repro.run(arguments)
    assert ended.value.code == code
    assert (tmp_path / KEPT).exists() == keeps


def test_an_override_that_is_none_is_refused_before_a_server_starts() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    asked = parser.parse_args(["--set", "train.seed=1", "--set", "~train.seed"])
    assert asked.overrides == ["train.seed=1", "~train.seed"]
    with pytest.raises(argparse.ArgumentError, match=r"'train\.seed' is not KEY=VALUE"):
        parser.parse_args(["--set", "train.seed"])

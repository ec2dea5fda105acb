"""The examples of other kinds and tasks: one command for sounds, and the stages for the others.

All examples run by the same script, and differ only in their `data.py` and `params.yaml`.
"""

import importlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from pipeline import kinds
from pipeline.core import params
from pipeline.core.errors import ParamsError
from pipeline.serving import predict
from tests.conftest import ROOT, Project, begin_store, project_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# The measure of the test examples, and its least value, which fewer examples reach too.
LEAST = {
    "vector": ("accuracy", 0.94),
    "text": ("accuracy", 0.8),
    "multilabel": ("mean_average_precision", 0.93),
    "regression": ("r2", 0.8),
}
PICTURES = 'PICTURES = {"train": 480, "val": 160, "test": 160}'
FEWER = {
    "audio": ("in enumerate(WAYS)", "in enumerate(WAYS[:2])"),
    "text": ('sorted(topic.glob("*.txt"))', 'sorted(topic.glob("*.txt"))[::3]'),
    "multilabel": (PICTURES, 'PICTURES = {"train": 240, "val": 80, "test": 80}'),
    "regression": (PICTURES, 'PICTURES = {"train": 120, "val": 40, "test": 40}'),
}
STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report")


def fewer(kind: str) -> str:
    """The text of the example's `data.py`, which makes fewer examples."""
    text = (ROOT / "examples" / kind / "data.py").read_text()
    whole, part = FEWER.get(kind, ("", ""))
    assert whole in text
    return text.replace(whole, part)


class Example:
    """The project that an example makes, with the code of a clone."""

    def __init__(self, kind: str, clone: Path, store: Path) -> None:
        self.kind, self.clone = kind, clone
        self.project = clone / "examples" / kind / "project"
        self.environment = os.environ | {
            "HEADSTART_STORE": str(store),
            "PYTHONPATH": str(clone),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self, *command: str) -> str:
        inside = self.project if self.project.exists() else self.clone
        done = subprocess.run(
            command, cwd=inside, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def example(self) -> str:
        return self.run(str(self.clone / "examples" / "run"), self.kind)

    def set(self, section: str, **values: object) -> None:
        file = self.project / "params.yaml"
        document = yaml.safe_load(file.read_text())
        document[section] |= values
        file.write_text(yaml.safe_dump(document, sort_keys=False))

    def add_ten(self) -> None:
        """Ten sounds that were not there, in training."""
        sounds = self.project / "data" / "raw" / "sounds"
        table = pd.read_csv(sounds / "labels.csv")
        rows = table.head(10).copy()
        for number, path in enumerate(rows["path"]):
            sound, rate = soundfile.read(sounds / path)
            soundfile.write(sounds / f"new_{number}.wav", sound * 0.5, rate)
        rows["path"] = [f"new_{number}.wav" for number in range(10)]
        pd.concat([table, rows]).to_csv(sounds / "labels.csv", index=False)


def test_an_example_runs_then_does_nothing_twice_and_ten_more_compute_their_views(
    tmp_path: Path,
    exported: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Optional stages run too."""
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "clone"], check=True)
    (tmp_path / "clone/examples/audio/data.py").write_text(fewer("audio"))
    example = Example("audio", tmp_path / "clone", begin_store(tmp_path, exported))
    said = example.example()
    assert said.splitlines()[-1] == f"Report: {example.project}/reports/report.html"
    assert "Traceback" not in said
    reports = example.project / "reports"
    assert json.loads((reports / "metrics.json").read_text())["test"]["accuracy"] > 0.97
    page = (reports / "report.html").read_text()
    assert "picture" not in re.sub("<script.*?</script>", "", page, flags=re.S)

    again = example.example()
    assert "Running stage" not in again
    assert "Data and pipelines are up to date." in again
    example.set("learning_curve", run=["asked"], draws=1)
    example.set("rank", run=["asked"], backbones=["speech_embedding"])
    example.add_ten()
    monkeypatch.chdir(example.project)
    monkeypatch.setenv("HEADSTART_STORE", example.environment["HEADSTART_STORE"])
    run("ingest", "augment", "extract", "learning_curve", "rank")
    assert "490 views by 2 networks: 960 reused, 20 computed" in capsys.readouterr().out
    assert len(pd.read_csv("reports/learning_curve.csv")) > 3
    assert pd.read_csv("reports/rank.csv")["backbone"].tolist() == ["speech_embedding"]
    example.set("finetune", run=["asked"])
    with pytest.raises(ParamsError, match="finetune"):
        params.check_file(kinds.schema)


def run(*stages: str) -> None:
    for stage in stages:
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


def make(kind: str, folder: Path) -> None:
    """Make the example's data in the working folder, with its parameters."""
    shutil.copy(ROOT / "examples" / kind / "params.yaml", "params.yaml")
    script = folder / "data.py"
    script.write_text(fewer(kind))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script)])
        runpy.run_path(str(script), run_name="__main__")


@pytest.fixture(scope="module", params=LEAST)
def example(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, exported: Path
) -> Iterator[str]:
    """The name of an example, all of whose stages ran in the working folder."""
    folder = tmp_path_factory.mktemp(request.param)
    with project_in(folder, exported):
        make(request.param, folder)
        run(*STAGES)
        yield request.param


def test_an_example_is_learnt(example: str) -> None:
    measure, least = LEAST[example]
    assert json.loads(Path("reports/metrics.json").read_text())["test"][measure] > least
    page = Path("reports/report.html").read_text()
    assert len(page) > 10_000
    if example == "vector":
        assert "picture" not in re.sub("<script.*?</script>", "", page, flags=re.S)


def test_its_bundle_answers_as_evaluate_did(example: str) -> None:
    predictions = pd.read_csv("reports/predictions.csv", keep_default_na=False)
    some = predictions.head(3)["path"].tolist()
    predict.run(Path("bundle"), some, csv=Path("out.csv"), neighbours=1)
    answers = pd.read_csv("out.csv", keep_default_na=False)
    assert answers["path"].tolist() == some
    assert (answers["error"] == "").all()

    if example == "vector":
        text = Path("params.yaml").read_text()
        Path("params.yaml").write_text(re.sub(r"(finetune:.*\n  run: )\[\]", r"\1[asked]", text))
        Path("dvc.yaml").write_text("stages: {}")
        with pytest.raises(ParamsError, match="finetune"):
            params.check_file(kinds.schema)


def test_the_page_of_adapting_tells_what_a_newcomer_sees(
    project: Project, tmp_path: Path, lite0: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "adapt.md").read_text()
    blocks = page.split("```console\n")[1:]
    commands = [line for block in blocks for line in block.partition("```")[0].splitlines()]
    words = "headstart predict adapted data/raw/surfaces/target"
    assert commands == ["make example KIND=adapt", "cd examples/adapt/project", words]

    make("adapt", tmp_path)
    run(*STAGES[:5], "bundle", "adapt")
    said = capsys.readouterr().out.splitlines()
    told = [line for block in page.split("```\n") for line in block.splitlines()]
    shown = [line for line in told if line.startswith(("ingest: 7", "evaluate: ", "adapt: "))]
    assert len(shown) == 4
    assert set(shown) <= set(said)
    found = json.loads(Path("reports/adapt.json").read_text())
    assert found["test"]["accuracy"]["answer"] == "better"
    predict.run(Path("adapted"), ["data/raw/surfaces/target"])
    answered = capsys.readouterr().out.splitlines()
    assert len([line for line in answered if "surfaces/target/" in line]) == 120


FLOWER = ROOT / ".venv-flower" / "bin" / "python"


@pytest.mark.skipif(not FLOWER.exists(), reason="no .venv-flower: make flower")
def test_sites_train_a_head_with_flower(tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "clone"], check=True)
    example = Example("vector", tmp_path / "clone", tmp_path / "store")
    example.example()
    flower = example.clone / "examples" / "flower"
    dealt = example.run(sys.executable, str(flower / "sites.py"))
    sites = sorted(str(file) for file in (example.project / "sites").glob("site-*.npz"))
    assert len(sites) == len(dealt.splitlines()) == 3

    said = example.run(str(FLOWER), str(flower / "loopback.py"), *sites, "--set", "rounds=2")
    assert "flower: the head of 10 classes is in " in said
    compared = example.run(sys.executable, str(flower / "compare.py"))
    accuracy = {line.split()[1]: float(line.split()[2]) for line in compared.splitlines()}
    assert accuracy["joined"] > 0.94
    assert accuracy["FedAvg"] > 0.9

    # A site whose features another backbone made would spoil the average.
    with np.load(sites[0]) as site:
        np.savez(sites[0], **(dict(site) | {"made_by": "another"}))
    done = subprocess.run(
        [str(FLOWER), str(flower / "loopback.py"), *sites],
        cwd=example.project, env=example.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "the sites' features were made differently" in done.stdout
    assert done.stderr.splitlines()[-1] == (
        "loopback: error: the run made no head; its log is above"
    )

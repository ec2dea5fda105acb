"""The examples of other kinds and tasks, as a newcomer runs them: one command, then ten more."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from tests.conftest import ROOT, begin_store, made_once

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# What the last stage but one says at least.
ACCURACY = {"vector": 0.94, "text": 0.8, "audio": 0.97}
# The same of other tasks: the measure, and its least value, which they reach with fewer
# pictures too.
TASKS = {"multilabel": ("mean_average_precision", 0.93), "regression": ("r2", 0.8)}
PICTURES = 'PICTURES = {"train": 480, "val": 160, "test": 160}'
FEWER = {
    "multilabel": 'PICTURES = {"train": 240, "val": 80, "test": 80}',
    "regression": 'PICTURES = {"train": 120, "val": 40, "test": 40}',
}


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


@pytest.fixture(scope="session")
def clone(shared: Path) -> Path:
    """A clone, in which each example makes a project of its own."""

    def make(folder: Path) -> None:
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
        for task, fewer in FEWER.items():
            script = folder / "examples" / task / "data.py"
            text = script.read_text()
            assert PICTURES in text
            script.write_text(text.replace(PICTURES, fewer))

    return made_once(shared / "clone", make)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Path:
    return begin_store(tmp_path_factory.mktemp("store"), exported)


@pytest.fixture(scope="module", params=ACCURACY)
def example(request: pytest.FixtureRequest, clone: Path, store: Path) -> Example:
    return Example(request.param, clone, store)


def test_an_example_runs(example: Example) -> None:
    said = example.example()
    assert said.splitlines()[-1] == f"Report: {example.project}/reports/report.html"
    assert "Traceback" not in said
    metrics = pd.read_json(example.project / "reports" / "metrics.json", typ="series")
    assert metrics["test"]["accuracy"] > ACCURACY[example.kind]
    page = (example.project / "reports" / "report.html").read_text()
    assert "picture" not in re.sub("<script.*?</script>", "", page, flags=re.S)  # some texts do


@pytest.mark.parametrize("example", ["audio"], indirect=True)
def test_it_does_nothing_twice_then_ten_more_compute_their_views_and_optional_stages_run(
    example: Example,
) -> None:
    again = example.example()
    assert "Running stage" not in again
    assert "Data and pipelines are up to date." in again
    document = yaml.safe_load((example.project / "params.yaml").read_text())
    views = document["augment"].get("views", 4)
    backbone = document["extract"]["backbone"]
    example.set("learning_curve", run=["asked"], draws=1)
    example.set("rank", run=["asked"], backbones=[backbone])
    example.add_ten()
    foretold = example.run(sys.executable, "-m", "headstart", "why")
    assert "ingest: would run:" in foretold
    assert " added: " in foretold
    said = example.example()
    (line,) = re.findall("^extract: .* views: .* reused.*", said, re.M)
    computed = int(line.partition(" reused, ")[2].split()[0])
    assert computed in range(10, 10 + 10 * views + 1)
    assert "10 computed" in line or views
    assert len(pd.read_csv(example.project / "reports" / "learning_curve.csv")) > 3
    assert pd.read_csv(example.project / "reports" / "rank.csv")["backbone"].tolist() == [backbone]


def test_the_other_doors_answer_or_say_why_not(example: Example) -> None:
    manifest = pd.read_parquet(example.project / "data" / "manifest.parquet")
    some = manifest[manifest["split"] == "train"]["path"].head(3).tolist()
    headstart = (sys.executable, "-m", "headstart")
    example.run(*headstart, "predict", "bundle", *some, "--csv", "out.csv", "--neighbours", "1")
    answers = pd.read_csv(example.project / "out.csv")
    assert answers["path"].tolist() == some
    assert answers["error"].isna().all()

    refused = "from_scratch" if example.kind == "text" else "finetune"
    example.set(refused, run=["asked"])
    done = subprocess.run(
        [*headstart, "check"],
        cwd=example.project,
        env=example.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert refused in done.stderr


@pytest.fixture(scope="module", params=TASKS)
def of_task(request: pytest.FixtureRequest, clone: Path, store: Path) -> Example:
    return Example(request.param, clone, store)


def test_an_example_of_a_task_runs(of_task: Example) -> None:
    said = of_task.example()
    assert said.splitlines()[-1] == f"Report: {of_task.project}/reports/report.html"
    assert "Traceback" not in said
    reports = of_task.project / "reports"
    measure, least = TASKS[of_task.kind]
    metrics = pd.read_json(reports / "metrics.json", typ="series")
    assert metrics["test"][measure] > least
    assert (reports / "report.html").stat().st_size > 10_000


def test_what_an_example_of_a_task_predicts_is_what_evaluate_told(of_task: Example) -> None:
    told = pd.read_csv(of_task.project / "reports" / "predictions.csv", keep_default_na=False)
    some = told.head(3)["path"].tolist()
    headstart = (sys.executable, "-m", "headstart")
    of_task.run(*headstart, "predict", "bundle", *some, "--csv", "out.csv")
    answers = pd.read_csv(of_task.project / "out.csv", keep_default_na=False)
    assert answers["path"].tolist() == some
    assert (answers["error"] == "").all()


def test_the_page_of_adapting_tells_what_a_newcomer_sees(clone: Path, store: Path) -> None:
    of_domains = Example("adapt", clone, store)
    page = (ROOT / "docs" / "adapt.md").read_text()
    blocks = page.split("```console\n")[1:]
    commands = [line for block in blocks for line in block.partition("```")[0].splitlines()]
    predict = "headstart predict adapted data/raw/surfaces/target"
    assert commands == ["make example KIND=adapt", "cd examples/adapt/project", predict]

    said = of_domains.example()  # what make does, but for the packages
    found = json.loads((of_domains.project / "reports" / "adapt.json").read_text())
    told = [line for block in page.split("```\n") for line in block.splitlines()]
    shown = [line for line in told if line.startswith(("ingest: 7", "evaluate: ", "adapt: "))]
    assert len(shown) == 4
    assert set(shown) <= set(said.splitlines())
    assert found["test"]["accuracy"]["answer"] == "better"
    words = predict.split()
    answered = of_domains.run(sys.executable, "-m", *words)
    assert len([line for line in answered.splitlines() if "surfaces/target/" in line]) == 120


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

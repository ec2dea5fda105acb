"""A kind of one's own is a file in plugins/: a toy goes the whole way, and no other file changes.

The same file is a kind of the repository as a folder of pipeline/kinds/ and a line.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline import kinds
from pipeline.core.errors import ParamsError
from tests.conftest import PLAIN, ROOT, begin_store
from tests.flows.toys import free_port, wait_for
from tests.helpers.repository import Repository

TOY = Path(__file__).parent / "grid" / "__init__.py"


@pytest.mark.parametrize("name", [name for name in kinds.KINDS if name != "plugin"])
def test_each_kind_answers_all_that_is_asked(name):
    asked = {*kinds.Kind.__annotations__, *vars(kinds.Kind)}
    kind = kinds.named(name)
    lacking = {one for one in asked if not (one.startswith("_") or hasattr(kind, one))}
    assert lacking <= {"reading", "unread"}


def write_grids(folder):
    """Grids with a bright row or a bright column, a class each, and one that is no grid."""
    random = np.random.default_rng(0)
    for number in range(60):
        label = ("row", "column")[number % 2]
        grid = random.integers(0, 5, (8, 8))
        grid[random.integers(8)] = 9
        text = "\n".join("".join(map(str, line)) for line in (grid if number % 2 == 0 else grid.T))
        file = folder / label / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "row" / "odd.txt").write_text("12\n345")


@pytest.fixture(scope="module")
def clone(tmp_path_factory, exported, dvc_template):
    """A project with the toy in it, after its first `dvc repro`."""
    folder = tmp_path_factory.mktemp("grids")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_STORE", str(begin_store(folder, exported)))
        made = Repository(folder / "repository", dvc_template)
        shutil.copy(TOY, made.folder / "plugins" / "kind.py")
        parameters = yaml.safe_load((made.folder / "params.yaml").read_text())
        parameters["ingest"] |= {"kind": "plugin", "source": "folder", "path": "data/raw/grids"}
        parameters["augment"] = {"views": 1, "turned": 0.0}
        parameters["evaluate"]["bootstrap"] = 10
        (made.folder / "params.yaml").write_text(yaml.safe_dump(parameters))
        made.set(**PLAIN)  # with the network's feature maps
        write_grids(made.folder / "data" / "raw" / "grids")
        made.run("dvc", "add", "--quiet", "data/raw/grids")
        made.repro()
        yield made


@pytest.mark.slow
def test_every_stage_takes_it(clone):
    manifest = pd.read_parquet(clone.folder / "data" / "manifest.parquet")
    assert {"rows", "across"} <= set(manifest.columns)
    assert len(manifest) == 60
    refused = pd.read_csv(clone.folder / "data" / "refused.csv")
    assert refused["reason"].tolist() == ["its rows are not of one length"]
    plan = pd.read_parquet(clone.folder / "data" / "plan.parquet")
    assert set(plan.columns) == {"digest", "view", "turned"}
    metrics = json.loads((clone.folder / "reports" / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.8
    checks = json.loads((clone.folder / "reports" / "checks.json").read_text())
    assert checks["near_duplicates"] == 0


@pytest.mark.slow
def test_the_report_speaks_of_it_and_shows_it(clone):
    page = (clone.folder / "reports" / "report.html").read_text()
    assert "60 grids" in page
    assert "picture" not in page


@pytest.mark.slow
def test_predict_answers_and_refuses(clone):
    clone.headstart(
        *("predict", "bundle", "data/raw/grids/column/1.txt", "data/raw/grids/row/odd.txt"),
        *("--jsonl", "out.jsonl", "--heat-maps", "heat", "--neighbours", "1"),
    )
    lines = (clone.folder / "out.jsonl").read_text().splitlines()
    answered, refused = (json.loads(line) for line in lines)
    assert answered["class"] == "column"
    assert answered["neighbours"][0]["path"].startswith("data/raw/grids/")
    assert (clone.folder / answered["heat_map"]).read_text().count("\n") > 2
    assert refused["error"] == "its rows are not of one length"


@pytest.mark.slow
def test_serve_answers(clone):
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "headstart", "serve", "bundle", "--port", str(port)],
        cwd=clone.folder,
        env=clone.environment,
    )
    address = f"http://127.0.0.1:{port}"

    def is_up():
        try:
            return httpx.get(f"{address}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_for(is_up)
        assert httpx.get(f"{address}/about").json()["accepts"] == ["text/plain"]
        grid = (clone.folder / "data" / "raw" / "grids" / "row" / "0.txt").read_bytes()
        plain = {"Content-Type": "text/plain"}
        asked = f"{address}/predict?neighbours=1&heat_map=true"
        reply = httpx.post(asked, content=grid, headers=plain).json()
        assert reply["best"] == "row"
        assert reply["heat_map"].startswith("data:text/plain;base64,")
        near = httpx.get(f"{address}/training/{reply['neighbours'][0]['number']}")
        assert near.headers["content-type"].startswith("text/plain")
        refused = httpx.post(asked, content=b"no grid", headers=plain)
        assert refused.status_code == 422
        other = httpx.post(asked, content=grid, headers={"Content-Type": "image/png"})
        assert other.status_code == 415
        assert other.json()["detail"].startswith("image/png is not accepted")
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_why_speaks_of_it(clone):
    assert "ingest: up to date" in clone.headstart("why")
    (clone.folder / "data" / "raw" / "grids" / "row" / "new.txt").write_text("9999\n1111\n")
    with (clone.folder / "plugins" / "kind.py").open("a") as file:
        file.write("# a word more\n")
    said = clone.headstart("why")
    assert "plugins modified" in said
    assert "train: runs if the output of extract or ingest changes" in said
    assert "1 grid added: data/raw/grids/row/new.txt" in said


def test_a_kind_of_the_repository_is_a_folder_and_a_line(tmp_path):
    code = tmp_path / "pipeline"
    shutil.copytree(ROOT / "pipeline", code, ignore=shutil.ignore_patterns("__pycache__"))
    (code / "kinds" / "grid").mkdir()
    shutil.copy(TOY, code / "kinds" / "grid")
    door = code / "kinds" / "__init__.py"
    line = '    "image",\n'
    assert door.read_text().count(line) == 1
    door.write_text(door.read_text().replace(line, line + '    "grid",\n'))
    asked = "from pipeline import kinds; print(kinds.named('grid').nouns, kinds.schema('grid')())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    told = subprocess.run(
        [sys.executable, "-c", asked], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert told.stdout == "grids views=4 seed=0 turned=0.5\n", told.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "plugins/kind.py does not exist; write it, with an object KIND"),
        ("kind = 1", "plugins/kind.py has no 'KIND'"),
        ("class KIND: noun = 'x'", "KIND of plugins/kind.py has no nouns, most_bytes, columns,"),
        ("KIND = 1 / 0", "plugins/kind.py, line 1: ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_no_kind_is_a_line(tmp_path, monkeypatch, code, words):
    monkeypatch.chdir(tmp_path)
    if code:
        Path("plugins").mkdir()
        Path("plugins/kind.py").write_text(code)
    with pytest.raises(ParamsError) as caught:
        kinds.named("plugin")
    assert str(caught.value).startswith(f"ingest.kind plugin: {words}")

"""The whole pipeline in a real DVC repository: what runs again, and that the bytes are the same."""

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from flows import why
from pipeline.core.errors import RunError
from tests.conftest import PLAIN, SMALL, begin_store
from tests.helpers.repository import Repository

pytestmark = pytest.mark.slow
STAGES = ["ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report"]


@pytest.fixture(scope="module")
def repository(
    tmp_path_factory: pytest.TempPathFactory, small_backbone: Path, dvc_template: Path
) -> Iterator[Repository]:
    folder = tmp_path_factory.mktemp("repro")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_STORE", str(begin_store(folder, small_backbone.parent)))
        yield Repository(folder / "repository", dvc_template)


@pytest.fixture(scope="module")
def done(repository: Repository, draw_shapes: Callable[..., None]) -> Repository:
    """The repository after its first run on pictures of its own."""
    draw_shapes(range(60), repository.folder)
    repository.run("dvc", "add", "-q", "data/raw/shapes")
    repository.set(
        **PLAIN,
        **SMALL,
        **{
            "ingest.source": "folder",
            "ingest.path": "data/raw/shapes",
            "augment.views": 1,
            "train.epochs": 5,
            "evaluate.bootstrap": 50,
        },
    )
    assert repository.repro() == STAGES
    return repository


def test_a_second_run_runs_nothing(done: Repository) -> None:
    assert "Running" not in done.run("dvc", "repro")


def test_on_the_way_back_extract_runs_and_computes_nothing(done: Repository) -> None:
    before = yaml.safe_load((done.folder / "params.yaml").read_text())["augment"]["rotate"]
    done.set(**{"augment.rotate": 25})
    assert done.repro("extract") == ["augment", "extract"]
    done.set(**{"augment.rotate": before})
    shown = done.headstart("repro")
    assert re.findall(r"Running stage '(\w+)'", shown) == ["extract"]  # its outputs persist
    assert " 0 computed" in shown


def test_a_changed_batch_size_and_a_changed_comment_change_no_output(done: Repository) -> None:
    done.set(**{"extract.batch_size": 8})
    done.edit("pipeline/evaluate.py", '"""', '"""Changed. ')
    # Nothing after them runs but the report, which lists changed parameters.
    assert done.repro() == ["extract", "evaluate", "report"]


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("heads/head.py", ["train", "evaluate", "checks", "bundle", "report"]),
        ("quality/drift.py", ["checks"]),
        ("backbones/engines/__init__.py", ["extract", "bundle"]),
        ("sources/splits.py", ["ingest"]),
        ("evaluation/metrics.py", ["evaluate", "report"]),
        ("core/params/schema.py", []),
        (
            "examples/files.py",
            ["ingest", "augment", "extract", "evaluate", "checks", "bundle", "report"],
        ),
        ("kinds/__init__.py", ["ingest", "augment", "extract", "checks", "bundle", "report"]),
        ("kinds/audio/decode.py", []),  # another kind than this project's
        ("store/vectors.py", []),  # a cache
    ],
)
def test_a_changed_line_is_why_the_stages_of_its_room_would_run(
    done: Repository, file: str, stages: list[str]
) -> None:
    code = done.folder / "pipeline" / file
    before = code.read_text()
    done.edit(f"pipeline/{file}", '"""', '"""Changed. ')
    would = [line.partition(":")[0] for line in done.why() if " modified" in line]
    code.write_text(before)
    assert would == stages


def test_of_changed_bytes_and_a_changed_label_only_the_bytes_are_computed(
    done: Repository, draw_picture: Callable[..., Image.Image]
) -> None:
    raw = done.folder / "data" / "raw" / "shapes"
    draw_picture(1000).save(raw / "disc" / "0.png")
    (raw / "disc" / "2.png").rename(raw / "square" / "2.png")
    shown = done.headstart("repro", "train")
    ran = re.findall(r"Running stage '(\w+)'", shown)
    assert (ran[0], ran[-1]) == ("ingest", "train")
    manifest = pd.read_parquet(done.folder / "data" / "manifest.parquet").set_index("path")
    assert manifest.loc["data/raw/shapes/square/2.png", "label"] == "square"
    changed = manifest.loc["data/raw/shapes/disc/0.png", "split"]
    assert f" {2 if changed == 'train' else 1} computed" in shown  # the original, and a view of it


def test_why_foretells_what_a_run_then_does(
    done: Repository, draw_picture: Callable[..., Image.Image]
) -> None:
    done.repro()
    up_to_date = [f"{stage}: up to date" for stage in STAGES]
    assert done.why() == up_to_date
    assert done.run(sys.executable, "-m", "headstart", "why").splitlines() == up_to_date

    raw = done.folder / "data" / "raw" / "shapes"
    for i in range(2000, 2005):
        draw_picture(i).save(raw / "disc" / f"{i}.png")
    (raw / "disc" / "4.png").rename(raw / "square" / "4.png")
    (raw / "disc" / "6.png").rename(raw / "disc" / "6 again.png")
    (raw / "disc" / "8.png").unlink()
    done.set(**{"augment.hflip": 0.25})
    done.edit("pipeline/evaluation/metrics.py", '"""', '"""Changed. ')
    before = done.outputs()
    said = "\n".join(done.why())
    answer = json.loads(done.headstart("why", "--json"))
    assert done.outputs() == before
    with contextlib.chdir(done.folder), pytest.raises(RunError, match=r"^ingest is out of date \("):
        why.stop_if_stale("train")
    disc = "data/raw/shapes/disc"
    assert answer["examples"] == {
        "added": [f"{disc}/{i}.png" for i in range(2000, 2005)],
        "changed": [],
        "removed": [f"{disc}/8.png"],
        "renamed": [
            {
                **{"path": f"{disc}/6 again.png", "old": f"{disc}/6.png", "by": ""},
                "new": f"{disc}/6 again.png",
            }
        ],
        "relabelled": [
            {"path": "data/raw/shapes/square/4.png", "old": "disc", "new": "square", "by": ""}
        ],
        **{name: [] for name in ("resplit", "excluded", "confirmed", "unconfirmed")},
    }
    runs = {stage["name"]: stage["runs"] for stage in answer["stages"]}
    assert [*runs] == STAGES
    assert (runs["ingest"], runs["train"]) == ("yes", "maybe")
    augment = answer["stages"][STAGES.index("augment")]
    assert augment["parameters"] == [{"name": "augment.hflip", "old": 0.5, "new": 0.25}]
    views = answer["views"]
    assert views["total"] == views["computed"] + views["reused"]
    assert "5 pictures added: data/raw/shapes/disc/2000.png" in said
    assert "1 picture removed: data/raw/shapes/disc/8.png" in said
    assert "1 picture renamed: data/raw/shapes/disc/6 again.png" in said
    assert "1 picture relabelled: data/raw/shapes/square/4.png (disc → square)" in said
    assert "augment: would run: augment.hflip 0.5 → 0.25" in said
    assert "train: runs if the output of" in said
    assert "pipeline/evaluation modified" in said
    assert f"{views['computed']} views would be computed, {views['reused']} reused" in said

    shown = done.headstart("repro")
    assert f"{views['reused']} reused, {views['computed']} computed" in shown
    assert done.why() == up_to_date


def test_switching_back_and_forth_runs_nothing(done: Repository) -> None:
    done.repro()
    done.run("git", "add", "-A")
    done.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "before")
    done.run("git", "checkout", "-qb", "other")
    done.set(**{"train.weight_decay": 1.0})
    assert done.repro() == ["train", "evaluate", "bundle", "report"]
    done.run("git", "add", "-A")
    done.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "after")
    done.run("git", "checkout", "-q", "-")
    done.run("dvc", "checkout", "-q")
    assert done.repro() == []
    done.run("git", "checkout", "-q", "-")
    assert done.repro() == []  # without `dvc checkout`


def test_an_optional_stage_comes_and_goes_with_its_parameter(done: Repository) -> None:
    done.repro()
    done.set(**{"learning_curve.run": ["asked"], "learning_curve.draws": 2})
    assert done.why()[-1] == "learning_curve@asked: would run: it has never run here"
    assert done.repro() == ["learning_curve@asked"]
    assert done.repro() == []
    done.run("dvc", "plots", "show", "--out", "plots")
    assert "Learning curve" in (done.folder / "plots" / "index.html").read_text()
    done.set(**{"learning_curve.run": []})
    assert done.repro() == []
    assert done.why() == [f"{stage}: up to date" for stage in STAGES]
    # DVC deletes nothing of a stage that is gone.
    for left in (done.folder / "reports").glob("learning_curve.*"):
        left.unlink()


def test_dvc_with_gto_finds_the_bundle(done: Repository, tmp_path: Path) -> None:
    done.repro()
    done.run("git", "add", "-A")
    name = ("-c", "user.name=t", "-c", "user.email=t@t")
    done.run("git", *name, "commit", "-qm", "with a bundle")
    done.run("git", *name, "tag", "-a", "classifier@v1.0.0", "-m", "the first one")
    asked = ("dvc", "artifacts", "get", str(done.folder), "classifier", "--rev", "v1.0.0")
    done.run(*asked, "--out", str(tmp_path / "got"))
    got = {file.name: file.read_bytes() for file in (tmp_path / "got").iterdir()}
    assert got == {file.name: file.read_bytes() for file in (done.folder / "bundle").iterdir()}

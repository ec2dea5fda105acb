"""The check of a project before a run, which is remembered."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from flows.dvc.project import CHECKED, RWLOCK, check_project
from pipeline.core import params
from pipeline.core.errors import ParamsError, RunError
from tests.conftest import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in (".dvc/tmp", "plugins", "corrections", "map", "data/weights", "data/raw"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/raw/surfaces.csv").touch()
    return tmp_path


def test_a_check_that_passed_is_made_again_if_anything_that_it_reads_changed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    check_file = params.check_file
    monkeypatch.setattr(params, "check_file", lambda *a: made.append(1) or check_file(*a))
    check_project(project)
    check_project(project)
    assert len(made) == 1
    settings = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(settings.replace("seed: 0", "sead: 0", 1))
    for _ in range(2):  # a check that failed is not remembered
        with pytest.raises(ParamsError, match="sead"):
            check_project(project)
    (project / "params.yaml").write_text(settings)
    check_project(project)
    assert len(made) == 3
    (project / "plugins" / "kind.py").touch()
    check_project(project)
    assert len(made) == 4
    (project / CHECKED).write_text("{")
    check_project(project)
    assert len(made) == 5
    (project / "data/weights").rmdir()
    with pytest.raises(ParamsError, match="weights"):
        check_project(project)


@pytest.mark.parametrize("path", [".", "data"])
def test_examples_are_not_where_their_table_is_written(project: Path, path: str) -> None:
    file = project / "params.yaml"
    file.write_text(file.read_text().replace("path: data/raw/surfaces.csv", f"path: {path}"))
    with pytest.raises(ParamsError, match=f"ingest.path in params.yaml is {path}, in which"):
        check_project(project)


def test_what_a_killed_dvc_left_of_its_notes_is_deleted(project: Path) -> None:
    for whole in (True, False):
        (project / RWLOCK).write_text("{}" if whole else "")
        check_project(project)
        assert (project / RWLOCK).exists() == whole


def test_no_network_is_trained_on_sounds(project: Path) -> None:
    settings = yaml.safe_load((project / "params.yaml").read_text())
    settings["augment"], settings["finetune"]["run"] = {"views": 0}, ["asked"]
    settings["ingest"]["kind"], settings["train"]["layers"] = "audio", "last"
    (project / "params.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ParamsError, match=r"but sounds give several: set finetune\.run and"):
        check_project(project)


def test_nothing_runs_without_a_pipeline(project: Path) -> None:
    (project / "dvc.yaml").unlink()
    with pytest.raises(RunError, match=r"dvc\.yaml does not exist: run `git checkout dvc.yaml` if"):
        check_project(project)


def test_git_may_track_an_output_only_if_dvc_does_not_keep_it(project: Path) -> None:
    graph = project / "dvc.yaml"
    text = graph.read_text()
    own = "stages:\n  own: {cmd: 'true', outs: [{own.csv: {cache: CACHE}}]}\n"
    graph.write_text(text.replace("stages:\n", own.replace("CACHE", "false"), 1))
    (project / "own.csv").touch()
    for command in (["init", "-q"], ["add", "own.csv"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    check_project(project)
    checked = json.loads((project / CHECKED).read_bytes())
    checked.pop("cached")  # an older version remembered the check
    (project / CHECKED).write_text(json.dumps(checked))
    check_project(project)
    graph.write_text(text.replace("stages:\n", own.replace("CACHE", "true"), 1))
    with pytest.raises(RunError, match=r"git rm -r --cached own\.csv`, then commit"):
        check_project(project)


def test_git_lists_no_file_if_dvc_keeps_none(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: {own: {cmd: headstart run own}}\n")
    for command in (["init", "-q"], ["add", "params.yaml"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    check_project(project)

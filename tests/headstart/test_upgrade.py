"""`headstart upgrade`: an older project in the form of this version, and what will run again."""

import contextlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from flows.dvc.project import check_project
from headstart import graph, parameters, shipped, upgrade
from headstart.init import run as init
from pipeline.core import lock
from pipeline.core.errors import HeadstartError, LockError, RunError
from tests.conftest import ROOT

HERE = lock.installed()
OPENCV = f"opencv-python-headless 4.0 → {HERE.kinds['image']['opencv-python-headless']}"
GRAPH = graph.generated((ROOT / "dvc.yaml").read_text())


def git(*command):
    mine = ("-c", "user.name=t", "-c", "user.email=t@t")
    return subprocess.run(
        ("git", *mine, *command), check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project that an earlier version made, committed; not to be changed."""
    folder = tmp_path_factory.mktemp("made") / "project"
    init(folder)
    old = replace(
        HERE,
        headstart="0.1.9",
        rooms=HERE.rooms | {"heads": {**HERE.rooms["heads"], "code": "0"}},
        kinds=HERE.kinds | {"image": {**HERE.kinds["image"], "opencv-python-headless": "4.0"}},
    )
    (folder / "data/raw/pictures").mkdir()
    with contextlib.chdir(folder):
        old.write()
        commit()
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "project", symlinks=True))
    return Path.cwd()


def commit():
    git("add", "-A")
    git("commit", "-qm", "as it is", "--allow-empty")


def upgraded(capsys):
    """What upgrade prints."""
    capsys.readouterr()
    upgrade.run()
    return [line.removeprefix("upgrade: ") for line in capsys.readouterr().out.splitlines()]


def refused():
    """The one line of an error, after which no file differs from what it was."""
    before = git("status", "--short"), git("diff")
    with pytest.raises(HeadstartError) as error:
        upgrade.run()
    assert (git("status", "--short"), git("diff")) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_it_says_which_stages_will_run_again_and_why(project, capsys):
    with pytest.raises(LockError, match=r"made with Headstart 0\.1\.9, .*`headstart upgrade`"):
        check_project(project)
    assert upgraded(capsys) == [
        f"wrote headstart.lock for Headstart {HERE.headstart}",
        f"will run again: ingest, augment, extract: {OPENCV}",
        f"will run again: train, evaluate: code of heads changed (0.1.9 → {HERE.headstart})",
        f"will run again: checks, bundle, report: code of heads changed (0.1.9 → {HERE.headstart});"
        f" {OPENCV}",
        "a later stage runs if one of its inputs changes; commit, then run `headstart repro`",
    ]
    check_project(project)
    assert upgraded(capsys) == [f"this project is already at Headstart {HERE.headstart}"]


def test_what_the_user_added_stays(project, capsys):
    mine = """\
  # Sends it.
  mail:
    cmd: headstart run report # mine
    params: [train.mine, {headstart.lock: [rooms.mine]}]

"""
    text = GRAPH.replace("  # Reads no model", f"{mine}  # Mine too.\n  # Reads no model")
    text = text.replace("rooms.sources, ", "").replace(
        "plots:\n  - Loss", "plots:\n  - Mine:\n  - Loss"
    )
    Path("dvc.yaml").write_text(
        text.replace("\n  best:\n", "\n  was:\n").replace("run best", "run was")
    )
    Path("requirements.txt").write_text(
        "flask # mine\nheadstart[s3] == 0.1.9\nNumPy==1.0 # old\nscikit_image==1\n"
    )
    commit()
    printed = upgraded(capsys)
    gone = "the stage was is removed, because Headstart has no stage of this name"
    assert f"dvc.yaml: {gone}" in printed
    assert f"will run again: ingest: {OPENCV}; its entry in dvc.yaml changed" in printed
    now = Path("dvc.yaml").read_text()
    assert mine in now
    assert "  # Mine too.\n  # Reads no model, so it runs beside train.\n  checks:\n" in now
    document = yaml.safe_load(now)
    wanted = yaml.safe_load(GRAPH)
    assert document["stages"].pop("mail")["params"][0] == "train.mine"
    check_project(project)  # that there is no such parameter is for DVC to say
    assert document["plots"].pop(0) == {"Mine": None}
    assert document == wanted
    assert list(document["stages"]) == list(wanted["stages"])
    pins = Path("requirements.txt").read_text().splitlines()
    numpy = HERE.rooms["heads"]["numpy"]
    assert pins[:3] == ["flask # mine", f"headstart[s3]=={HERE.headstart}", f"NumPy=={numpy} # old"]
    assert [pin[:15] for pin in pins if pin.startswith("scikit")] == ["scikit_image==0"]
    assert f"pillow=={HERE.kinds['image']['pillow']}" in pins


def test_a_newer_version_may_bring_a_stage_and_a_template(project, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "shipped"
    shutil.copytree(shipped.folder() / ".dvc/plots", folder / ".dvc/plots")
    shutil.copytree(shipped.folder() / "examples", folder / "examples")
    shutil.copy(shipped.folder() / "params.yaml", folder)
    text = (shipped.folder() / "dvc.yaml").read_text()
    stage = (
        "  drift:\n    cmd: python -m pipeline.drift\n    params: [train]\n    deps: [models]\n\n"
    )
    text = text.replace("  train:\n", stage + "  train:\n").replace(
        "deps: [data/features, ", "deps: ["
    )
    (folder / "dvc.yaml").write_text(text)
    (folder / ".dvc/plots/new.json").write_text("{}")
    monkeypatch.setattr(shipped, "folder", lambda: folder)
    printed = upgraded(capsys)
    assert "will run again: drift: it is new" in printed
    assert [line for line in printed if "its entry in dvc.yaml changed" in line]
    assert list(yaml.safe_load(Path("dvc.yaml").read_text())["stages"])[:4] == [
        "ingest",
        "augment",
        "extract",
        "drift",
    ]
    assert Path(".dvc/plots/new.json").read_text() == "{}"


OLD = """\
# mine
ingest: {kind: image, source: folder}
augment: # of pictures
  views: 2

evaluate:
  confidence: 0.9   # mine
  coverage: 0.8     # of the sets

few:
  run: [asked]
checks:
  suspect_margin: 0.4  # high
"""


def test_old_names_are_renamed_and_missing_sections_added_with_comments():
    text, changes = parameters.renewed(OLD, ["train", "extract.backbone", "learning_curve.run"])
    assert text.startswith(OLD[: OLD.index("  coverage")])
    document = yaml.safe_load(text)
    assert document["evaluate"] == {"confidence": 0.9}
    assert document["train"]["coverage"] == 0.8
    assert document["checks"] == {"label_issue_margin": 0.4}
    assert document["learning_curve"] == {"run": ["asked"]}
    assert document["extract"]["backbone"] == "efficientnet_lite0"
    assert "  label_issue_margin: 0.4  # high\n" in text
    assert "# sgd, momentum, adam, adamw, lbfgs, ridge" in text
    assert changes == [
        "few is learning_curve now",
        "train is added with its defaults",
        "extract is added with its defaults",
        "checks.suspect_margin is checks.label_issue_margin now",
        "evaluate.coverage is train.coverage now",
    ]
    assert parameters.renewed(text, ["train", "extract.backbone"]) == (text, [])


def test_a_file_keeps_its_line_ends_its_comments_and_its_mode(project, capsys):
    file = Path("params.yaml")
    text = file.read_text().replace("  label_issue_margin:", "# mine\n\n  suspect_margin:")
    file.write_text(text, newline="\r\n")
    file.chmod(0o600)
    commit()
    assert "params.yaml: checks.suspect_margin is checks.label_issue_margin now" in upgraded(capsys)
    data = file.read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n")
    assert b"# mine\r\n\r\n" in data
    assert file.stat().st_mode & 0o777 == 0o600


def test_after_an_error_on_the_way_no_file_is_changed(project, monkeypatch):
    text = Path("params.yaml").read_text().replace("label_issue_margin", "suspect_margin")
    Path("params.yaml").write_text(text)
    shutil.rmtree(".dvc/plots")
    Path(".dvc/plots").touch()  # nothing can be written there
    commit()
    before = git("status", "--short", "--ignored"), git("diff")
    with pytest.raises(OSError, match="plots"):
        upgrade.run()
    assert (git("status", "--short", "--ignored"), git("diff")) == before


def test_what_is_added_changes_no_output():
    """It has the defaults that a project ran with, not what a new project starts with."""
    text, _ = parameters.renewed("ingest:\n  kind: text\n", ["train", "augment", "rank"])
    document = yaml.safe_load(text)
    assert document["train"]["coverage"] is None
    assert document["train"]["weight_decay"] == 0.003
    assert document["augment"] == {"views": 0, "seed": 0}
    assert len(document["rank"]["backbones"]) == 4


def test_what_it_cannot_do_is_refused_before_anything_is_written(project):
    Path("requirements.txt").write_text("")
    assert refused().startswith("commit requirements.txt first, so that `git diff` shows")
    git("checkout", "-q", "requirements.txt")

    replace(HERE, headstart="99.0").write()
    assert "made with Headstart 99.0, but" in refused()
    HERE.write()

    for name, text, words in (
        ("dvc.yaml", "stages: [", "dvc.yaml is not readable YAML"),
        ("dvc.yaml", "a: b", "dvc.yaml has no stages, or has an empty one"),
        ("dvc.yaml", f"{GRAPH}  \n# caf\xe9", "dvc.yaml is not in UTF-8"),
        ("dvc.yaml", GRAPH.replace("\n  train:", "\n  mine:\n  train:"), "has an empty one"),
        ("params.yaml", "ingest:\n\tkind: image\n", "params.yaml is not readable YAML"),
        ("params.yaml", "", "params.yaml must hold the sections"),
        ("params.yaml", "ingest: image\n", "ingest is 'image'; it should be a section"),
        ("params.yaml", "ingest:\n  kind: video\n", "ingest.kind is 'video'; it should be"),
        (
            "dvc.yaml",
            "stages: {best: {cmd: mine}}",
            "your stage best in dvc.yaml has the same name",
        ),
        ("dvc.yaml", "stages: {a: {cmd: mine}, b: {cmd: mine}}", "does not have the layout"),
        ("params.yaml", "ingest: {}\nevaluate: {coverage: 0.9}\n", "does not have the layout"),
    ):
        Path(name).write_text(text, encoding="latin-1")
        commit()
        assert words in refused()
        git("reset", "--quiet", "--hard", "HEAD~")
    git("rm", "-q", "headstart.lock", "dvc.yaml")
    commit()
    assert "has no headstart.lock: `headstart init` makes a project" in refused()


def test_an_edited_file_that_stays_as_it_is_may_be_uncommitted(project, capsys):
    with Path("params.yaml").open("a") as stream:
        stream.write("# edited\n")
    assert upgraded(capsys)[0] == f"wrote headstart.lock for Headstart {HERE.headstart}"
    Path("dvc.yaml").write_text(f"{GRAPH}# edited\n")
    assert "is already at Headstart" in upgraded(capsys)[0]


def test_a_damaged_or_missing_lock_is_mended(project, capsys):
    Path("headstart.lock").write_text("<<<<<<< HEAD\n")
    assert upgraded(capsys)[-1].startswith("headstart.lock was damaged; `headstart why` shows")
    check_project(project)
    Path("headstart.lock").unlink()
    with pytest.raises(LockError, match=r"headstart\.lock is missing: run `git checkout"):
        check_project(project)
    assert upgraded(capsys)[-1].startswith("headstart.lock was missing; `headstart why` shows")
    check_project(project)


def test_without_git_it_says_so(project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        with pytest.raises(HeadstartError, match="needs git, which is not installed"):
            upgrade.run()
    shutil.rmtree(".git")
    with pytest.raises(HeadstartError, match="not a git repository"):
        upgrade.run()


@pytest.mark.parametrize(("folder", "stage"), [("corrections", "ingest"), ("map", "checks")])
def test_a_folder_that_a_stage_reads_comes_with_an_upgrade_and_repro_says_so(
    project, capsys, folder, stage
):
    upgraded(capsys)
    shutil.rmtree(folder)
    commit()
    line = f"the folder {folder}, which {stage} reads, is missing: run `headstart upgrade`"
    with pytest.raises(RunError, match=line):
        check_project(project)
    assert f"wrote {folder}/README.md for Headstart" in upgraded(capsys)[0]
    check_project(project)
    Path(folder, "README.md").rename(f"{folder}/anna.csv")
    assert upgraded(capsys) == [f"this project is already at Headstart {HERE.headstart}"]

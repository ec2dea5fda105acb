"""`headstart.lock`: what it holds, and which difference from what is installed is refused."""

import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core import lock
from pipeline.core.errors import LockError
from pipeline.core.lock import Lock
from pipeline.core.paths import LOCK, PARAMS

HERE = lock.installed()
AT = "this project was made with Headstart"
PINS = "run `pip install -r requirements.txt`"


def other(entries, name, **values):
    return {**entries, name: {**entries[name], **values}}


def test_an_entry_has_the_libraries_that_its_files_import():
    libraries = {"numpy", "onnx", "onnxruntime", "pandas", "pyarrow"}
    assert HERE.rooms["quality"].keys() == {"code", *libraries}
    assert {"tokenizers", "pillow"} < HERE.kinds["text"].keys()
    assert HERE.kinds["plugin"].keys() == {"code"}
    assert not {"core", "store", "kinds"} & HERE.rooms.keys()


def test_what_is_written_is_read_again(tmp_path):
    # YAML takes the first for a number, and the second too.
    written = replace(HERE, headstart="1.10", stages={**HERE.stages, "train": "12345e678901"})
    written.write(tmp_path / LOCK)
    assert Lock.read(tmp_path / LOCK) == written


def test_a_digest_changes_with_a_name_and_with_bytes(tmp_path, monkeypatch):
    folder = tmp_path / "pipeline"
    shutil.copytree(Path(lock.__file__).parents[1], folder)
    monkeypatch.setattr(lock, "__file__", str(folder / "core" / "lock.py"))
    assert lock.installed() == HERE
    (folder / "heads" / "__pycache__").mkdir(exist_ok=True)
    (folder / "heads" / "__pycache__" / "fit.pyc").write_bytes(b"compiled")
    (folder / "core" / "paths.py").write_text("")
    (folder / "store" / "vectors.py").write_text("")
    assert lock.installed() == HERE
    (folder / "heads" / "fit.py").rename(folder / "heads" / "fitted.py")
    (folder / "tasks" / "classification" / "page.html").write_text("other")
    (folder / "train.py").write_text("import soxr")
    (folder / "kinds" / "__init__.py").write_text("")
    now = lock.installed()
    assert {name for name in HERE.rooms if now.rooms[name] != HERE.rooms[name]} == {
        "heads",
        "tasks",
    }
    assert {name for name in HERE.stages if now.stages[name] != HERE.stages[name]} == {"train"}
    assert {name for name in HERE.kinds if now.kinds[name] != HERE.kinds[name]} == {"door"}


@pytest.mark.parametrize(
    ("made", "refused"),
    [
        (HERE, ""),
        (replace(HERE, headstart="0.0.1"), ""),  # of another version, whose code is the same
        (
            replace(HERE, headstart="9.10.0"),
            f"{AT} 9.10.0, but {HERE.headstart} is installed: {PINS}",
        ),
        (
            replace(HERE, headstart="0.0.1", rooms=other(HERE.rooms, "heads", code="0")),
            f"{AT} 0.0.1, but {HERE.headstart} is installed: run `headstart upgrade`, or install"
            f" 0.0.1 ({PINS})",
        ),
        (
            replace(HERE, rooms=other(HERE.rooms, "heads", code="0")),
            f"the installed code of Headstart {HERE.headstart} differs from headstart.lock"
            " (code of heads): run `headstart upgrade`",
        ),
        (
            replace(HERE, stages=dict.fromkeys(HERE.stages, "0")),
            f"the installed code of Headstart {HERE.headstart} differs from headstart.lock"
            f" (code of adapt, augment, best and {len(HERE.stages) - 3} more): run"
            " `headstart upgrade`",
        ),
        (
            replace(HERE, kinds=other(HERE.kinds, "image", pillow="1.0.0")),
            f"pillow {HERE.kinds['image']['pillow']} is installed, and headstart.lock has 1.0.0:"
            f" {PINS}, or `headstart upgrade`",
        ),
        (
            replace(HERE, rooms=other(HERE.rooms, "heads", soxr="1.0.0")),
            f"soxr is not installed, and headstart.lock has 1.0.0: {PINS}, or `headstart upgrade`",
        ),
        (replace(HERE, kinds=other(HERE.kinds, "text", code="0", tokenizers="0")), ""),
    ],
    ids=[
        "same",
        "same code",
        "older",
        "newer",
        "edited",
        "many",
        "library",
        "missing",
        "other kind",
    ],
)
def test_only_what_decides_a_projects_results_is_compared(made, refused, tmp_path):
    made.write(tmp_path / LOCK)
    (tmp_path / PARAMS).write_text("ingest: {kind: image}\n")
    with pytest.raises(LockError) if refused else nullcontext() as error:
        lock.check(tmp_path)
    assert not refused or str(error.value) == refused


@pytest.mark.parametrize(
    "content", ["", "x: [", "headstart: 1", "\xff", HERE.text().replace('"', "").replace("a", "1")]
)
def test_an_edited_file_is_refused_in_one_line(content, tmp_path):
    (tmp_path / LOCK).write_text(content, encoding="latin-1")
    with pytest.raises(LockError, match=r"headstart\.lock .*: run `headstart upgrade`") as refused:
        lock.check(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_folder_without_the_file_is_not_compared(tmp_path):
    lock.check(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    lock.check(tmp_path)
    (tmp_path / "dvc.yaml").write_text("params: [{headstart.lock: [stages.train]}]\n")
    with pytest.raises(LockError, match=r"is missing: run `git checkout headstart\.lock`, or"):
        lock.check(tmp_path)

"""The flow over a folder that grows asks once about each picture."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows import growing
from pipeline.core.errors import ParamsError
from tests.conftest import ROOT


@pytest.fixture
def inbox(bundled: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    arrive(bundled, folder, "disc/0.png", "square/1.png")
    return folder


def arrive(bundled: Path, folder: Path, *names: str) -> None:
    for name in names:
        shutil.copy2(bundled / "data" / "raw" / "shapes" / name, folder / Path(name).name)


def look(bundle: Path, folder: Path, answers: Path) -> tuple[int, int]:
    with answers.open("a+", encoding="utf-8") as lines:
        return growing.answer_new(bundle, folder, lines)


@pytest.mark.slow
def test_each_content_is_asked_about_once(bundled: Path, inbox: Path, tmp_path: Path) -> None:
    bundle, answers = bundled / "bundle", tmp_path / "answers.jsonl"
    assert look(bundle, inbox, answers) == (2, 0)
    assert look(bundle, inbox, answers) == (0, 0)
    arrive(bundled, inbox, "disc/2.png")
    shutil.copy(inbox / "0.png", inbox / "copy.png")
    shutil.copy(inbox / "2.png", inbox / "again.png")
    assert look(bundle, inbox, answers) == (1, 2)
    assert look(bundle, inbox, answers) == (0, 0)
    (inbox / "1.png").write_bytes(b"half of a pict")  # another content under an old name
    assert look(bundle, inbox, answers) == (1, 0)
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(rows) == 6
    said = {Path(row["path"]).name: row for row in rows}
    assert (said["0.png"]["class"], said["copy.png"]["class"]) == ("disc", "disc")
    assert said["again.png"]["digest"] == said["2.png"]["digest"]
    assert said["1.png"]["error"].startswith("not a picture")

    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    (other / "bundle.json").write_text((bundle / "bundle.json").read_text() + "\n")
    assert look(other, inbox, answers) == (3, 2)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(bundled: Path, inbox: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    look(bundled / "bundle", inbox, answers)
    whole = answers.read_bytes()
    answers.write_bytes(whole[:-40])
    assert look(bundled / "bundle", inbox, answers) == (1, 0)
    assert answers.read_bytes() == whole


def test_a_line_that_was_cut_inside_a_character_is_written_again(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    seen = growing.Seen("ü\u2028.png", 1, 2)
    line = {**seen._asdict(), "class": "Tür", "digest": "a", "bundle": "b"}
    whole = json.dumps(line, ensure_ascii=False).encode() + b"\n"
    answers.write_bytes(whole + whole[: whole.index("ü".encode()) + 1])
    with answers.open("a+", encoding="utf-8") as lines:
        assert growing._remembered(lines, "b", ["class"]) == ({seen}, {"a": {"class": "Tür"}})
        print("the next ü", file=lines)
    assert answers.read_bytes() == whole + "the next ü\n".encode()


def test_any_name_is_remembered(bundled: Path, tmp_path: Path) -> None:
    folder, answers = tmp_path / "inbox", tmp_path / "answers.jsonl"
    folder.mkdir()
    shapes = bundled / "data" / "raw" / "shapes"
    names = [os.fsdecode(b"\xff.png"), "two\u2028lines\x85.png"]
    shutil.copy(shapes / "disc" / "0.png", folder / names[0])
    shutil.copy(shapes / "square" / "1.png", folder / names[1])
    (folder / os.fsdecode(b"empty\xff")).touch()
    assert look(bundled / "bundle", folder, answers) == (3, 0)
    assert look(bundled / "bundle", folder, answers) == (0, 0)
    rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").split("\n")[:-1]]
    said = {Path(row["path"]).name: row["class"] or row["error"] for row in rows}
    assert said == {"\\udcff.png": "disc", names[1]: "square", "empty\\udcff": "empty file"}


def test_links_that_lead_to_no_file_get_no_line(bundled: Path, tmp_path: Path) -> None:
    folder, answers = tmp_path / "inbox", tmp_path / "answers.jsonl"
    folder.mkdir()
    (folder / "done").symlink_to(tmp_path)
    (folder / "nowhere").symlink_to(tmp_path / "gone")
    (folder / "itself").symlink_to("itself")
    assert look(bundled / "bundle", folder, answers) == (0, 0)


def test_a_folder_that_is_not_there_is_named(bundled: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="inbocks is not a folder"):
        look(bundled / "bundle", tmp_path / "inbocks", tmp_path / "answers.jsonl")


@pytest.mark.slow
def test_as_a_flow(bundled: Path, inbox: Path, tmp_path: Path, server: str, password: str) -> None:
    answers = tmp_path / "answers.jsonl"
    command = [sys.executable, "-m", "flows.predict", bundled / "bundle", inbox]
    environment = {**os.environ, "PREFECT_API_URL": server, "PYTHONPATH": str(ROOT)}
    environment["PREFECT_API_AUTH_STRING"] = password

    def run() -> str:
        done = subprocess.run(
            [*command, "--answers", answers],
            env=environment, cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert "2 files predicted, 0 copies" in run()
    assert "Cached" in run()
    with answers.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "Busy" in run()

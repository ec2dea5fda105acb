"""What a look at the data sees, and what it does where it cannot."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from toys import wait_for

from flows import watch
from flows.dvc.pool import Pool

# A stage that reads the data, as the project's own graph does.
GRAPH = "stages: {a: {cmd: 'cat data/raw/* > a', deps: [data/raw], outs: [a]}}"


@pytest.fixture
def copy(tmp_path: Path, dvc_template: Path) -> Path:
    """A working copy with data."""
    root = tmp_path / "copy"
    shutil.copytree(dvc_template, root, symlinks=True)
    (root / "data" / "raw").mkdir(parents=True)
    (root / "data" / "raw" / "one").write_text("1")
    (root / "dvc.yaml").write_text(GRAPH)
    return root


def seen(path: Path) -> list[str]:
    return [line.split()[0] for line in watch.signature(path)]


def test_folders_linked_into_data_are_looked_at_and_no_circle_is_walked(tmp_path: Path) -> None:
    elsewhere, real = tmp_path / "elsewhere", tmp_path / "real"
    for picture in (elsewhere / "ant" / "1.jpg", real / "sub" / "2.jpg"):
        picture.parent.mkdir(parents=True)
        picture.touch()
    data = tmp_path / "raw"  # which may be a link itself
    data.symlink_to(real)
    (data / "mine").symlink_to(elsewhere)
    (data / "sub" / "deeper").symlink_to(elsewhere / "ant")
    for name in ("up", "back"):
        (elsewhere / "ant" / name).symlink_to(elsewhere)
        (data / "sub" / name).symlink_to(real)
    (data / "3.jpg").symlink_to(data / "sub" / "2.jpg")  # as DVC makes them
    (data / "all").symlink_to(data)
    names = ["3.jpg", "mine/ant/1.jpg", "sub/2.jpg", "sub/deeper/1.jpg"]
    assert seen(data) == [str(data / name) for name in names]


def test_what_cannot_be_looked_at_is_said_and_looked_at_again(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path("data/raw")
    gone = copy / data / "gone.dvc"  # it was there when the folder was listed
    gone.symlink_to(copy / "nowhere")
    end, started = threading.Event(), threading.Event()
    looking = threading.Thread(target=watch.watch, args=(copy, [data], 0.05, started.set, end))
    looking.start()
    said = []

    def has_said(words: str) -> bool:
        said.append(capsys.readouterr().out)
        return words in "".join(said)

    try:
        wait_for(lambda: has_said("gone.dvc'; looking again\n"))
        assert not (copy / watch.SEEN).exists()
        gone.unlink()
        wait_for((copy / watch.SEEN).exists)
        assert started.is_set()  # nothing was run here yet
    finally:
        end.set()
        looking.join()


def test_what_the_first_looks_ever_see_is_asked_about(copy: Path) -> None:
    data = Path("data/raw")
    subprocess.run([Path(sys.executable).with_name("dvc"), "repro", "-q"], cwd=copy, check=True)
    started: list[str] = []
    with Pool(copy) as pool:
        for change in ("none", "between the first two", "before the first"):
            (copy / watch.SEEN).unlink(missing_ok=True)
            looking = watch.Watch(copy, [data], pool)
            for look in ("before the first", "between the first two", "later", "at last"):
                if look == change:
                    (copy / data / look).write_text("new")
                looking.look(lambda of=change: started.append(of))  # type: ignore[misc]
    assert started == ["between the first two", "before the first"]

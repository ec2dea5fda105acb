"""What a look at the data sees, and what it does where it cannot."""

import threading
from pathlib import Path

import pytest
from toys import wait_for

from flows import watch


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
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "raw"
    data.mkdir()
    gone = data / "gone.dvc"  # it was there when the folder was listed
    gone.symlink_to(tmp_path / "nowhere")
    end = threading.Event()
    looking = threading.Thread(target=watch.watch, args=(tmp_path, [data], 0.05, print, end))
    looking.start()
    said = []

    def has_said(words: str) -> bool:
        said.append(capsys.readouterr().out)
        return words in "".join(said)

    try:
        wait_for(lambda: has_said("gone.dvc'; looking again\n"))
        assert not (tmp_path / watch.SEEN).exists()
        gone.unlink()
        wait_for((tmp_path / watch.SEEN).exists)
    finally:
        end.set()
        looking.join()

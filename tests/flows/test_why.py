"""Which files of the examples' folder are new or changed, as `headstart why` sees it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree

from flows import why


def listing(**digests: str) -> Tree:
    tree = Tree()
    for name, digest in digests.items():
        tree.add((name, "1.png"), None, HashInfo("md5", digest))
    return tree


def touched(path: str, before: Any, now: Any) -> set[str] | None:
    dep: Any = SimpleNamespace(def_path=path, get_obj=lambda: before)
    return why.touched_files(why.Folder(dep, now))


@pytest.mark.parametrize("path", ["data/raw/x", "data/raw/x/", "./data/raw/x"])
def test_a_path_that_is_written_in_another_way_hides_no_change(path: str) -> None:
    before, now = listing(daisy="1", rose="2"), listing(daisy="1", rose="3", tulip="4")
    assert touched(path, before, now) == {"data/raw/x/rose/1.png", "data/raw/x/tulip/1.png"}


def test_nor_does_the_path_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").touch()
    assert touched("./rows.csv", None, None) == {"rows.csv"}
    assert why.touched_files(None) is None

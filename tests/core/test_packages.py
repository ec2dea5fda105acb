"""Which extra is installed, and the line that says what installs one."""

from pathlib import Path

import pytest

from pipeline.core import packages
from pipeline.core.errors import MissingSetError


def test_a_set_that_is_here_is_needed_without_a_word():
    assert not packages.missing("pipeline")
    packages.need("pipeline", "extract")


def test_of_a_set_that_is_not_here_one_line_says_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])  # a clone
    monkeypatch.setitem(packages.SETS, "torch", ("no_such_module",))
    assert packages.missing("torch")
    with pytest.raises(MissingSetError) as refused:
        packages.need("torch", "finetune")
    assert str(refused.value) == (
        "finetune needs PyTorch, which is not installed: run `make setup EXTRAS=torch`"
    )
    assert refused.value.set_name == "torch"
    assert packages.how_to_install("pipeline") == "run `make setup`"
    monkeypatch.chdir(tmp_path)  # a project, though this is the clone's code
    assert packages.how_to_install("torch") == "run `headstart install torch`"


def test_half_a_set_is_missing_and_the_rest_is_named(monkeypatch):
    monkeypatch.setitem(packages.SETS, "pipeline", ("numpy", "no_such_module"))
    with pytest.raises(MissingSetError, match=r"packages \(no_such_module\), which are not"):
        packages.need("pipeline", "ingest")


def test_a_folder_of_the_name_is_no_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "no_such_module").mkdir()
    monkeypatch.setitem(packages.SETS, "torch", ("no_such_module",))
    assert packages.missing("torch")

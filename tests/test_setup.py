"""What a person sees of `make setup`, with Pythons, a pip and a uv that only pretend."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.core.packages import SETS
from tests.conftest import ROOT

# Pretends to be a Python of some version; its venv is a folder with a copy of itself.
PYTHON = """#!/bin/bash
version=VERSION
case "$1 $2" in
    "-c "*print*) echo $version.1;;
    "-c "*) [[ $version =~ ^3\\.1[1-4]$ ]];;
    "-m venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python;;
    "-m pip") shift 2; . ./pip;;
esac
"""
PIP = """
case "$*" in
    *--version*) exit 0;;
    *--editable*) echo "Installing collected packages: headstart"; exit 0;;
esac
echo "Collecting package-1==1.0 (from -r pipeline.lock (line 1))"
echo "Installing collected packages: package-1, package-2"
if [ -e broken ]; then cat broken >&2; exit 2; fi
"""
UV = """#!/bin/bash
case "$1 $2" in
    "cache dir") echo /proc/no-folder;;
    "pip install") echo "$*" >> asked; if [ -e broken ]; then cat broken >&2; exit 2; fi;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    clone = tmp_path / "größe und mehr"
    clone.mkdir()
    shutil.copy(ROOT / "Makefile", clone)
    (clone / "requirements").mkdir()
    shutil.copy(ROOT / "requirements" / "install", clone / "requirements")
    for name in ("pipeline", "torch", "dev"):
        (clone / "requirements" / f"{name}.lock").write_text("one==1.0\ntwo==1.0\n")
    (clone / "pyproject.toml").touch()
    (clone / "pip").write_text(PIP)
    (clone / "bin").mkdir()
    # No Python and no uv but those that a test asks for.
    tools = "awk bash cat cp df dirname grep ls make mkdir rm sleep tail tee touch uname wc"
    for tool in tools.split():
        (clone / "bin" / tool).symlink_to(str(shutil.which(tool)))
    return clone


def has(clone: Path, *versions: str, uv: bool = False) -> None:
    for version in versions:
        file = clone / "bin" / f"python{version}"
        file.write_text(PYTHON.replace("VERSION", version))
        file.chmod(0o755)
    if versions:
        shutil.copy(clone / "bin" / f"python{versions[0]}", clone / "bin" / "python3")
    if uv:
        (clone / "bin" / "uv").write_text(UV)
        (clone / "bin" / "uv").chmod(0o755)


def setup(clone: Path, *more: str) -> subprocess.CompletedProcess[str]:
    # `make test` passes variables to a make below it; this one is to be like a person's.
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFL", "PYTHON"))}
    return subprocess.run(
        ["make", "setup", "GPU=", *more],
        cwd=clone, env=plain | {"PATH": str(clone / "bin")}, capture_output=True, text=True,
    )  # fmt: skip


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if not line.startswith("make")]


# Pretends to download for more than a second, then to unpack for more than one.
SLOW = """
echo "Collecting package-1==1.0 (from -r pipeline.lock (line 1))"
echo "  Downloading package_1-1.0-py3-none-any.whl (888.0 MB)"
sleep 1.5
mkdir -p .venv/lib/python3.13/site-packages/package_1-1.0.dist-info
echo "Installing collected packages: package-1, package-2"
sleep 1.5
"""


def test_a_line_now_and_then_shows_what_pip_does(clone: Path) -> None:
    has(clone, "3.13")
    script = clone / "requirements" / "install"
    script.write_text(script.read_text().replace("every=15", "every=1"))
    (clone / "pip").write_text(PIP.partition('echo "C')[0] + SLOW)
    lines = [re.sub(r"\d+ s:", "n s:", line) for line in setup(clone).stdout.splitlines()]
    # On a busy machine, pip's first lines may take a second, so that one of them is shown too.
    shown = [line for line in dict.fromkeys(lines) if not line.startswith("setup: n s: Collecting")]
    assert shown == [
        "setup: a new .venv with Python 3.13.1",
        "setup: pip installs 2 packages (pipeline) into .venv",
        "setup: n s: Downloading package_1-1.0-py3-none-any.whl (888.0 MB)",
        "setup: n s: unpacking, 1 so far",
    ]


def test_the_newest_python_is_taken_and_nothing_is_done_twice(clone: Path) -> None:
    has(clone, "3.11", "3.13", "3.9")
    done = setup(clone)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "setup: a new .venv with Python 3.13.1",
        "setup: pip installs 2 packages (pipeline) into .venv",
    ]
    assert "nothing to be done" in setup(clone).stdout.lower()
    more = setup(clone, "EXTRAS=torch").stdout
    assert "(torch)" in more
    assert "(pipeline)" not in more
    assert "new .venv" not in more


def test_uv_installs_where_it_is_found(clone: Path) -> None:
    has(clone, "3.12", uv=True)
    done = setup(clone)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [
        "setup: uv installs 2 packages (pipeline) into .venv",
    ]
    packages, itself = (clone / "asked").read_text().splitlines()
    assert "--require-hashes --requirement requirements/pipeline.lock" in packages
    assert "--no-cache" in packages  # its folder cannot be written to, as in a read-only home
    assert itself.endswith("--editable .")


@pytest.mark.parametrize("uv", [False, True])
@pytest.mark.parametrize(
    ("printed", "line"),
    [
        ("ERROR: [Errno 28] No space left on device", "the disk is full ("),
        ("error: Failed to fetch: `x`\n  Caused by: dns error", "the network failed; run it again"),
        ("Max retries exceeded: Connection refused", "the network failed; run it again"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM", "a package is not the one that req"),
        (
            "ERROR: No matching distribution found for one==1.0",
            "a package of requirements/pipeline",
        ),
    ],
)
def test_a_known_cause_is_one_line(clone: Path, uv: bool, printed: str, line: str) -> None:
    has(clone, "3.12", uv=uv)
    (clone / "broken").write_text(printed + "\n")
    done = setup(clone)
    assert done.returncode == 2
    (only,) = said(done)
    assert only.startswith(f"setup: error: {line}")
    assert not (clone / ".venv" / "sets" / "pipeline").exists()
    (clone / "broken").unlink()
    assert setup(clone).returncode == 0


def test_of_another_cause_the_end_of_the_log_and_its_path_are_told(clone: Path) -> None:
    has(clone, "3.12")
    (clone / "broken").write_text("ERROR: the moon is full\n")
    told = said(setup(clone))
    assert told[-2:] == [
        "ERROR: the moon is full",
        "setup: error: pip failed; all that it said is in .venv/setup.log",
    ]


def test_another_python_is_refused_before_anything_is_made(clone: Path) -> None:
    has(clone, "3.10", "3.15")
    assert said(setup(clone)) == [
        "setup: error: no Python 3.11 to 3.14 is on the PATH (python3 is 3.10.1); install one, or"
        " set PYTHON=/path/to/python3.13"
    ]
    assert said(setup(clone, "PYTHON=python3.15")) == [
        "setup: error: PYTHON=python3.15 is 3.15.1, and Headstart needs Python 3.11 to 3.14"
    ]
    assert not (clone / ".venv").exists()


def test_the_sets_are_cut_from_one_resolution() -> None:
    """So that no version, and no byte, depends on which sets are installed."""
    pinned = {
        file.stem: {line.split()[0] for line in file.read_text().splitlines() if "==" in line}
        for file in (ROOT / "requirements").glob("*.lock")
        if file.stem not in ("flower", "site")  # of environments of their own
    }
    examples = {"example-audio", "example-text"}  # what they make their data from, and nothing else
    assert set(pinned) == {*SETS, "dev"} | examples
    for name, packages in pinned.items():
        assert packages <= pinned["dev"], name
        assert name in examples or pinned["base"] <= packages, name
    heavy = (
        "torch",
        "nvidia-",
        "triton",
        "openvino",
        "timm",
        "onnxscript",
        "sentence-transformers",
    )
    for name in SETS.keys() - {"torch", "openvino", "transformers"}:
        assert not [one for one in pinned[name] if one.startswith(heavy)]

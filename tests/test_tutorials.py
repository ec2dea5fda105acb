"""The tutorials run as they are written, and print what they show.

The commands of a page run in one shell. The title of a block of `python` is the file that the page
asks to save. A block of `text` shows lines that the commands printed, in this order; `…` stands
for anything.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.core.paths import BUNDLE, CHECKS_COUNTS, HEAD_WEIGHTS, METRICS, PREDICTIONS
from tests.conftest import ROOT, begin_store

BLOCK = re.compile(
    r'^(?P<above>[^\n]*)\n```(?P<form>\w+)(?: title="(?P<file>[^"]+)")?\n(?P<body>.*?)^```$',
    re.M | re.S,
)
PAGES = ROOT / "docs/tutorials"
# Pages that go on with the project of the page before them are run together.
TOURS = [("first_run.md",), ("own_pictures.md", "nightly.md"), ("own_texts.md",), ("hospitals.md",)]
ANSWERS = (BUNDLE / "model.onnx", HEAD_WEIGHTS, METRICS, PREDICTIONS)
# Another version of Python, by pyenv or on the PATH.
OTHER_PYTHON = [
    *(Path.home() / ".pyenv/versions").glob("3.13.*/bin/python"),
    *filter(None, [shutil.which("python3.13")]),
][:1]


def script(page: str) -> str:
    """The page's commands, and its files; `=== N` is printed before the N-th block of commands."""
    lines = ["set -eu"]
    for number, block in enumerate(BLOCK.finditer((PAGES / page).read_text(encoding="utf-8"))):
        if block["above"].startswith("<!-- not run: "):
            continue
        if block["form"] == "bash":
            lines += [f"echo '=== {number}'", block["body"]]
        elif block["file"]:
            lines += [f"cat > {block['file']} <<'END'", block["body"] + "END"]
    return "\n".join(lines)


def shown(page: str) -> list[str]:
    """The lines that the page says are printed."""
    blocks = BLOCK.finditer((PAGES / page).read_text(encoding="utf-8"))
    return [line for one in blocks if one["form"] == "text" for line in one["body"].splitlines()]


def unsaid(page: str, folder: Path, store: Path, code: Path = ROOT) -> list[str]:
    """Run the page's commands in the folder, with the code of a clone.

    Returns the lines that the page shows and that were not printed, from the first one on, with
    the output that is left.
    """
    environment = os.environ | {
        "HEADSTART_STORE": str(store),
        "PYTHONPATH": str(code),
        "PYTHON": sys.executable,  # for `make setup`, which otherwise takes the newest
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GIT_AUTHOR_NAME": "reader",
        "GIT_AUTHOR_EMAIL": "reader@localhost",
        "GIT_COMMITTER_NAME": "reader",
        "GIT_COMMITTER_EMAIL": "reader@localhost",
    }
    ended = subprocess.run(
        ["bash", "-c", script(page)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    rest, lines = ended.stdout, shown(page)
    if ended.returncode:
        return [f"{page}: exit code {ended.returncode}", rest[-4000:]]
    for number, line in enumerate(lines):
        wanted = re.compile(".*".join(map(re.escape, line.split("…"))))
        found = wanted.search(rest)
        if not found:
            return [*lines[number:], rest[-4000:]]
        rest = rest[found.end() :]
    return []


def answers(clone: Path) -> dict[Path, str]:
    """The digests of what a run of the default set has learnt and answered."""
    return {path: sha256((clone / path).read_bytes()).hexdigest() for path in ANSWERS}


def run_on(python: Path, clone: Path, store: Path) -> None:
    """The stages of these answers in a new clone, with its own packages, which have no PyTorch."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    environment = os.environ | {"HEADSTART_STORE": str(store), "PYTHONPATH": str(clone)}
    repro = [str(clone / ".venv/bin/headstart"), "repro", "evaluate", "bundle"]
    for command in (["make", "setup", f"PYTHON={python}"], repro):
        subprocess.run(command, cwd=clone, env=environment, capture_output=True, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("pages", TOURS, ids=lambda pages: pages[0])
def test_a_tutorial_runs_and_prints_what_it_shows(
    pages: tuple[str, ...], tmp_path: Path, lite0: Path
) -> None:
    folder, store, code = tmp_path, begin_store(tmp_path, lite0.parent), ROOT
    if pages == ("first_run.md",):  # it begins in a clone
        folder = code = tmp_path / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(code)], check=True)
    for page in pages:
        assert unsaid(page, folder, store, code) == []
    if pages == ("first_run.md",):  # the default set is learnt, and leaves something to confuse
        measured = json.loads((code / METRICS).read_text())["test"]
        assert measured["pictures"] == 128
        assert 0.9 <= measured["accuracy"] < 1
        assert set(json.loads((code / CHECKS_COUNTS).read_text()).values()) == {0}
        for python in OTHER_PYTHON:
            run_on(python, tmp_path / "other", tmp_path / "new store")
            assert answers(tmp_path / "other") == answers(code)


def test_every_tutorial_is_run() -> None:
    run = {page for pages in TOURS for page in pages}
    assert {page.name for page in PAGES.glob("*.md")} == run
    assert all(shown(page) for page in run)

"""The tutorials run as they are written, and print what they show.

The commands of a page run in one shell. The title of a block of `python` is the file that the page
asks to save. A block of `text` shows lines that the commands printed, in this order; `…` stands
for anything.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, begin_store

BLOCK = re.compile(
    r'^(?P<above>[^\n]*)\n```(?P<form>\w+)(?: title="(?P<file>[^"]+)")?\n(?P<body>.*?)^```$',
    re.M | re.S,
)
PAGES = ROOT / "docs/tutorials"


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


def run(page: str, folder: Path, store: Path, code: Path = ROOT) -> None:
    """Run the page's commands in the folder, with the code of a clone."""
    environment = os.environ | {
        "HEADSTART_STORE": str(store),
        "PYTHONPATH": str(code),
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
    assert ended.returncode == 0, ended.stdout[-3000:]
    rest = ended.stdout
    for line in shown(page):
        wanted = re.compile(".*".join(map(re.escape, line.split("…"))))
        found = wanted.search(rest)
        assert found, f"{page}: {line!r} is not in what is left of the output:\n{rest[-4000:]}"
        rest = rest[found.end() :]


@pytest.mark.slow
def test_the_tutorials_run_and_print_what_they_show(tmp_path: Path, lite0: Path) -> None:
    store, clone = begin_store(tmp_path, lite0.parent), tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    run("first_run.md", clone, store, code=clone)
    for page in ("own_pictures.md", "nightly.md", "own_texts.md", "hospitals.md"):
        run(page, tmp_path, store)

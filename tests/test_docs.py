"""The Python examples of README.md and docs/ run as they are written.

Those of a page run in order, as one program, in a folder that has a trained `bundle` and pictures
in `photos`; `sys.argv` names the bundle and a picture. One that cannot run has a comment above it:
`<!-- not run: the reason -->`. A comment behind a `print` says what it prints.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT, begin_store

EXAMPLE = re.compile(r"^(?P<above>[^\n]*)\n```(?:python|py)\n(?P<code>.*?)^```$", re.M | re.S)
PRINTS = re.compile(r"^ *print\(.*\)  # (.+)$", re.M)  # "…" stands for anything
NOT_RUN = re.compile(r"^<!-- not run: \S.* -->$")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples(page: Path) -> list[tuple[int, str]]:
    """The line that each example to be run starts at, and its code."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, found.start("code")), found["code"])
        for found in EXAMPLE.finditer(text)
        if not NOT_RUN.match(found["above"])
    ]


@pytest.mark.parametrize("page", [p.name for p in PAGES if examples(p)])
def test_the_examples_of_a_page_run_and_print_what_their_comments_say(
    page: str,
    bundled: Path,
    lite0: Path,
    draw_picture: Callable[..., Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_STORE", str(begin_store(tmp_path, lite0.parent)))
    Path("bundle").symlink_to(bundled / "bundle")
    Path("photos").mkdir()
    for number, name in enumerate(("one", "two", "three", "four")):
        draw_picture(number, square=bool(number % 2)).save(f"photos/{name}.png")
    Path("photos/notes.txt").write_text("not a picture")
    monkeypatch.setattr(sys, "argv", ["example.py", "bundle", "photos/one.png"])
    path = ROOT / "README.md" if page == "README.md" else ROOT / "docs" / page
    names: dict[str, object] = {"__name__": "__main__"}
    for line, code in examples(path):
        # With the page's own line numbers in a traceback.
        exec(compile("\n" * line + code, str(path), "exec"), names)  # noqa: S102
        printed = capsys.readouterr().out.splitlines()
        for line in PRINTS.findall(code):
            wanted = re.compile(".*".join(map(re.escape, line.split("…"))))
            assert any(map(wanted.fullmatch, printed)), f"{page} prints {line!r}, not {printed}"


def test_every_example_is_found() -> None:
    fences = sum(page.read_text().count("\n```py") for page in PAGES)
    skipped = sum(page.read_text().count("\n<!-- not run: ") for page in PAGES)
    assert sum(len(examples(page)) for page in PAGES) == fences - skipped
    assert fences > 8

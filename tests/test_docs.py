"""The Python examples of README.md and docs/ run as they are written.

Those of a page run in order, as one program, in a folder that has a trained `bundle` and pictures
in `photos`; `sys.argv` names the bundle and a picture. One that cannot run has a comment above it:
`<!-- not run: the reason -->`. A comment behind a `print` says what it prints.
"""

import re
import runpy
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pipeline import kinds
from pipeline.core import params
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


@pytest.mark.parametrize("kind", ["text", "vector"])
def test_the_parameters_of_a_kind_fit_into_the_file_of_a_clone(kind: str, tmp_path: Path) -> None:
    page = (ROOT / f"docs/{kind}.md").read_text(encoding="utf-8")
    block = re.search(r"```yaml\n(ingest:\n  kind: .*?)```", page, re.S)
    assert block
    sections = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, values in yaml.safe_load(block[1]).items():
        # The page says to delete the other lines of `augment`.
        sections[name] = values if name == "augment" else sections[name] | values
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(sections), encoding="utf-8")
    assert params.load(kinds.schema, file).ingest.kind == kind


def test_the_page_of_commands_is_of_this_code() -> None:
    made = runpy.run_path(str(ROOT / "docs/make_commands.py"))["page"]() + "\n"
    assert (ROOT / "docs/commands.md").read_text(encoding="utf-8") == made, "run `make docs`"
    assert "|  |" not in made, "an argument has no help"


def test_the_site_has_every_page_once() -> None:
    site = tomllib.loads((ROOT / "docs/zensical.toml").read_text(encoding="utf-8"))["project"]
    listed = re.findall(r"[\w/]+\.md", str(site["nav"]))
    pages = [page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*.md")]
    beside = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
    assert sorted(listed) == sorted({*pages, *beside})


def test_the_page_of_outputs_has_every_output(bundled: Path) -> None:
    page = (ROOT / "docs/outputs.md").read_text(encoding="utf-8")
    written = [
        file
        for folder in ("data", "reports")
        for file in (bundled / folder).rglob("*")
        if file.suffix in (".csv", ".json", ".png", ".html", ".parquet")
        and "raw" not in file.parts
        and "features" not in file.parts
    ]
    assert len(written) > 20
    for file in written:
        name = file.relative_to(bundled).as_posix()
        assert f"`{name}`" in page, f"docs/outputs.md does not have {name}"
        if file.suffix == ".csv":
            (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` "))
            columns = file.read_text(encoding="utf-8-sig").splitlines()[0].split(",")
            for column in columns:
                base = re.sub(r"_(low|high)$", "", column)
                assert f"`{base}`" in row or column.startswith("p("), f"{name}: {column}"

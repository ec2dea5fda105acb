"""A source of one's own: its rows go through the checks of all others."""

from pathlib import Path

import pytest

from pipeline.core.errors import DataError, ParamsError
from pipeline.sources import find
from pipeline.sources.found import Found, Listing
from tests.conftest import Project
from tests.sources.test_sources import IMAGE, labelled, params, reasons, touch

ROOT = "data/raw/x"
OUTSIDE = f"path is not in {ROOT} or data/pictures, as seen from the project's root"


def found(rows: str) -> Listing:
    """What a function finds whose body is `rows`."""
    Path("plugins").mkdir(exist_ok=True)
    Path("plugins/mine.py").write_text(f"def rows(path):\n    {rows}\n")
    return find.listing(params("python:mine.rows", ROOT), IMAGE)


def test_rows_are_files_with_label_split_and_group(project: Project) -> None:
    touch(f"{ROOT}/b.png", f"{ROOT}/a.png", f"{ROOT}/deep/c.png", f"{ROOT}/d.png")
    listing = found(
        "yield path / 'b.png', ' a  label '; yield [str(path / 'a.png'), 'two', 'test', None]; "
        "yield path / 'deep' / 'c.png', 'two', None, 'of one'; yield path / 'd.png', '', 'target'"
    )
    assert listing.found == [
        Found(Path(ROOT, "a.png"), "two", "test"),
        Found(Path(ROOT, "b.png"), "a label"),
        Found(Path(ROOT, "d.png"), "", "target"),
        Found(Path(ROOT, "deep", "c.png"), "two", "", "of one"),
    ]
    assert listing.refused == []


def test_files_that_it_makes_are_in_data_pictures(project: Project) -> None:
    touch(f"{ROOT}/archive")
    listing = found(
        "from pathlib import Path; made = Path('data/pictures/1.png'); made.write_bytes(b'x'); "
        "return [(made, 'one')]"
    )
    assert labelled(listing) == {("data/pictures/1.png", "one", "")}


def test_a_row_that_cannot_be_an_example_is_refused_with_the_reason(
    project: Project, tmp_path: Path
) -> None:
    touch(f"{ROOT}/a.png", "data/raw/other/b.png", f"{ROOT}/.hidden.png")
    Path(ROOT, "out").symlink_to(tmp_path)
    (tmp_path / "c.png").touch()
    listing = found(
        "return [('data/raw/other/b.png', 'b'), (path / '..' / 'other' / 'b.png', 'b'), "
        "(path.resolve() / 'a.png', 'a'), (path / 'none.png', 'b'), (path / '.hidden.png', 'b'), "
        "(path / 'out' / 'c.png', 'b'), (path, 'b'), ('a.png', 'x'), "
        "(path / 'a.png', ''), (path / 'a.png', 'a', 'later')]"
    )
    assert listing.found == []
    why = reasons(listing)
    assert why.pop(f"{ROOT}/a.png") in (
        "no label",
        "split is 'later'; it should be train, val, test or target",
    )
    assert why == {
        "data/raw/other/b.png": OUTSIDE,
        f"{ROOT}/../other/b.png": OUTSIDE,
        str(Path(ROOT, "a.png").resolve()): OUTSIDE,
        f"{ROOT}/none.png": "cannot be read (No such file or directory)",
        f"{ROOT}/.hidden.png": "hidden or system file",
        f"{ROOT}/out/c.png": f"path leaves the folder {ROOT} through a link",
        ROOT: OUTSIDE,
        "a.png": OUTSIDE,
    }


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("return ['a.png']", "row 1 is 'a.png'; it should be (path, label), (path, label, split)"),
        ("return [('a.png', 'a', '', '', '')]", "row 1 is ('a.png', 'a', '', '', ''); it should"),
        ("return [(1, 'a')]", "row 1 has the path 1; it should be a path"),
        ("return [('a.png', 7)]", "row 1 has the label 7; it should be a string"),
        ("return [('a.png', None)]", "row 1 has the label None; it should be a string"),
        ("return [('a.png', 'a', 1)]", "row 1 has the split 1; it should be a string"),
        ("return None", "TypeError: 'NoneType' object is not iterable"),
        ("yield path / 'a.png', 'a'; 1 / 0", "plugins/mine.py, line 2: ZeroDivisionError: "),
        ("pass\n\nrows = None", "TypeError: 'NoneType' object is not callable"),
    ],
)
def test_what_is_no_row_is_a_line(project: Project, rows: str, words: str) -> None:
    touch(f"{ROOT}/a.png")
    with pytest.raises(ParamsError) as caught:
        found(rows)
    assert str(caught.value).startswith(f"ingest.source python:mine.rows: {words}")


def test_its_path_is_in_the_project_and_is_there(project: Project) -> None:
    with pytest.raises(DataError, match=r"ingest\.path data/raw/x does not exist"):
        found("return []")
    with pytest.raises(DataError, match=r"ingest\.path \.\./x leads out of the project"):
        find.listing(params("python:mine.rows", "../x"), IMAGE)

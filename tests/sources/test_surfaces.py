import csv
import hashlib
from collections import Counter, defaultdict
from importlib.metadata import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import DataError
from pipeline.sources.surfaces import COLUMNS, PATCH, PHOTOGRAPHS, cut, read_recipe
from pipeline.tables.manifest import SPLITS

RECIPE = Path(__file__).parents[2] / "data/raw/surfaces.csv"
HEADER = ",".join(COLUMNS)
BRICK = "brick,brick.png,train,0,0,512,192,8,3"


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return cut(RECIPE, tmp_path_factory.mktemp("surfaces"))


def write_recipe(folder, *rows, header=HEADER):
    path = folder / "recipe.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def files_under(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_class_has_about_40_patches_and_every_split(patches):
    by_class = defaultdict(Counter)
    for _, label, split in patches:
        by_class[label][split] += 1
    assert len(by_class) >= 10
    for label, splits in by_class.items():
        assert 36 <= splits.total() <= 44, label
        assert set(splits) == set(SPLITS), label
        assert splits["val"] >= 6, label
        assert splits["test"] >= 6, label


def test_every_patch_is_a_different_grey_square_in_its_place(patches):
    digests = set()
    for path, label, split in patches:
        assert path.parts[-3:-1] == (split, label)
        with Image.open(path) as patch:
            assert (patch.format, patch.mode, patch.size) == ("PNG", "L", (PATCH, PATCH))
            digests.add(hashlib.sha256(patch.tobytes()).digest())
    assert len(digests) == len(patches)


def test_no_box_of_the_recipe_shares_a_pixel_with_another():
    # Counts pixels one by one rather than trusting the comparison of corners in read_recipe.
    covers = {}
    with RECIPE.open(newline="") as file:
        for row in csv.DictReader(file):
            with Image.open(PHOTOGRAPHS / row["photograph"]) as photograph:
                shape = photograph.height, photograph.width
            cover = covers.setdefault(row["photograph"], np.zeros(shape, int))
            rows = slice(int(row["top"]), int(row["bottom"]))
            columns = slice(int(row["left"]), int(row["right"]))
            cover[rows, columns] += 1
    for photograph, cover in covers.items():
        assert cover.max() == 1, photograph


def test_no_patch_shares_a_pixel_with_another_split_or_label(patches):
    owners = {}
    photographs = {path.stem: path for path in PHOTOGRAPHS.iterdir() if path.suffix != ".npz"}
    grey = {}
    for path, label, split in patches:
        name, y, x = path.stem.rsplit("-", 2)
        if name not in grey:
            with Image.open(photographs[name]) as photograph:
                grey[name] = np.asarray(photograph.convert("L"))
            owners[name] = np.full(grey[name].shape, "", dtype=object)
        place = np.s_[int(y) : int(y) + PATCH, int(x) : int(x) + PATCH]
        # The name is true about where the patch was cut ...
        with Image.open(path) as patch:
            assert (np.asarray(patch) == grey[name][place]).all(), path
        # ... and nothing there belongs to another split or label.
        assert set(owners[name][place].flat) <= {"", f"{split} {label}"}, path
        owners[name][place] = f"{split} {label}"


def test_photographs_come_with_the_wheel():
    in_wheel = {Path(file.locate()).resolve() for file in files("scikit-image")}
    for region in read_recipe(RECIPE):
        assert (PHOTOGRAPHS / region.photograph).resolve() in in_wheel


def test_two_runs_give_the_same_bytes(tmp_path):
    first = cut(RECIPE, tmp_path / "first")
    second = cut(RECIPE, tmp_path / "second")
    written = files_under(tmp_path / "first")
    assert len(written) == len(first)
    assert written == files_under(tmp_path / "second")
    assert [patch[1:] for patch in first] == [patch[1:] for patch in second]


def test_patches_spread_from_edge_to_edge_of_their_box(tmp_path):
    recipe = write_recipe(tmp_path, "moon,moon.png,test,10,20,174,84,3,1")
    found = cut(recipe, tmp_path / "out")
    assert found == [
        (tmp_path / f"out/test/moon/moon-20-{x}.png", "moon", "test") for x in (10, 60, 110)
    ]


def test_an_added_row_adds_its_patches_and_changes_no_other(tmp_path):
    cut(write_recipe(tmp_path, BRICK), tmp_path / "before")
    cut(
        write_recipe(tmp_path, BRICK, "", "horse,horse.png,val,100,100,200,200,2,2"),
        tmp_path / "after",
    )
    before, after = files_under(tmp_path / "before"), files_under(tmp_path / "after")
    assert len(after) == len(before) + 4
    assert before.items() <= after.items()


def test_a_recipe_saved_by_a_spreadsheet_is_read(tmp_path):
    recipe = tmp_path / "recipe.csv"
    columns = list(reversed(COLUMNS))
    row = dict(zip(COLUMNS, BRICK.split(","), strict=True))
    lines = [", ".join(columns), ", ".join(row[column] for column in columns), "," * 8]
    recipe.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert len(cut(recipe, tmp_path / "out")) == 24


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ("brick,wall.png,train,0,0,64,64,1,1", "no photograph 'wall.png'"),
        ("brick,../data/brick.png,train,0,0,64,64,1,1", "no photograph"),
        ("moon,moon.png,train,0,0,513,64,1,1", "right is 513, outside moon.png"),
        ("moon,moon.png,train,0,449,64,513,1,1", "bottom is 513, outside moon.png"),
        ("moon,moon.png,train,-1,0,64,64,1,1", "left is '-1'"),
        ("moon,moon.png,train,0,0,63,64,1,1", "is smaller than a patch of 64 pixels"),
        ("moon,moon.png,train,0,64,64,0,1,1", "is smaller than a patch of 64 pixels"),
        ("moon,moon.png,train,0,0,66,64,4,1", "across is 4"),
        ("moon,moon.png,train,0,0,64,64,1,0", "down is 0"),
        ("moon,moon.png,train,0,0,64,6.4,1,1", "bottom is '6.4'"),
        ("moon,moon.png,train,0,0,64,,1,1", "bottom is ''"),
        ("moon,moon.png,holdout,0,0,64,64,1,1", "split is 'holdout'"),
        ("moon/far,moon.png,train,0,0,64,64,1,1", "label is 'moon/far'"),
        (",moon.png,train,0,0,64,64,1,1", "label is ''"),
        ("moon,moon.png,train,0,0,64,64,1", "has 8 cells"),
        ("moon,moon.png,train,0,0,64,64,1,1,1", "has 10 cells"),
        ("brick,brick.png,test,448,128,512,256,1,1", "overlaps that of brick (train)"),
        ("moon,brick.png,train,448,191,512,255,1,1", "overlaps that of brick (train)"),
    ],
)
def test_a_bad_row_is_one_line_with_its_place(tmp_path, row, wrong):
    recipe = write_recipe(tmp_path, BRICK, row)
    with pytest.raises(DataError) as caught:
        cut(recipe, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(f"{recipe} line 3")
    assert wrong in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_boxes_that_only_touch_are_not_overlapping(tmp_path):
    recipe = write_recipe(tmp_path, BRICK, "brick,brick.png,test,0,192,64,256,1,1")
    assert len(read_recipe(recipe)) == 2


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (HEADER.replace(",down", ""), ["brick,brick.png,train,0,0,512,192,8"]),
        (HEADER + ",note", [BRICK + ",old"]),
        (HEADER.replace("down", "donw"), [BRICK]),
    ],
)
def test_a_missing_or_unknown_column_is_named(tmp_path, header, rows):
    recipe = write_recipe(tmp_path, *rows, header=header)
    with pytest.raises(DataError, match=r"line 1: the columns are .* they must be label, "):
        cut(recipe, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (None, "cannot be read"),
        (b"", "the columns are missing"),
        (HEADER.encode(), "has no rows"),
        (HEADER.encode() + b"\n\xff\xfe", "not a CSV file in UTF-8"),
        (HEADER.encode() + b'\n"brick', "not a CSV file in UTF-8"),
    ],
)
def test_a_recipe_that_is_no_table_is_named(tmp_path, content, wrong):
    recipe = tmp_path / "recipe.csv"
    if content is not None:
        recipe.write_bytes(content)
    with pytest.raises(DataError, match=wrong) as caught:
        cut(recipe, tmp_path / "out")
    assert str(recipe) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_page_names_the_origin_of_every_label_and_photograph():
    table = {}
    for line in (RECIPE.parents[2] / "docs/surfaces.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[1].startswith("`"):
            table[cells[1].strip("`")] = set(cells[0].split(", "))
    used = defaultdict(set)
    for region in read_recipe(RECIPE):
        used[region.photograph].add(region.label)
    assert table == used

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFont

from pipeline import augment, kinds
from pipeline.core import params
from pipeline.core.errors import DataError
from pipeline.core.paths import CONTACT_SHEET, MANIFEST, PLAN
from pipeline.examples import files, lettering
from pipeline.kinds.image import preprocess, views
from pipeline.kinds.image.contact_sheet import GAP, SHEET, TILE, _words, contact_sheet
from pipeline.kinds.image.parameters import Augment
from pipeline.kinds.image.plan import draw, plan
from pipeline.kinds.image.views import View
from tests.conftest import Project

DIGESTS = [hashlib.sha256(bytes([i])).hexdigest() for i in range(200)]
DRAWN = {1: View(1.4992, 0.964506, True, False), 3: View(11.8788, 0.948526, False, True)}


def settings(**changes: float) -> Augment:
    base = {"views": 3, "rotate": 15.0, "scale": 0.1, "hflip": 0.5, "vflip": 0.1, "seed": 0}
    return Augment(**{**base, **changes})


def test_every_view_lies_in_its_ranges_and_fills_them() -> None:
    table = plan(DIGESTS, settings())
    assert len(table) == 600
    assert table["angle"].between(-15, 15).all()
    assert table["scale"].between(0.9, 1.1).all()
    assert table["angle"].min() < -14
    assert table["angle"].max() > 14
    assert 0.4 < table["hflip"].mean() < 0.6
    assert 0.05 < table["vflip"].mean() < 0.15


def test_a_view_depends_on_its_own_picture_alone() -> None:
    few, many = plan(DIGESTS[:5], settings()), plan(DIGESTS, settings(views=5))
    kept = many[many["digest"].isin(DIGESTS[:5]) & (many["view"] <= 3)].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, kept)


def test_the_views_of_a_picture_differ() -> None:
    table = plan(DIGESTS, settings())
    assert (table.groupby("digest")[["angle", "scale"]].nunique() == 3).all(axis=None)


def test_the_form_of_a_draw_is_fixed() -> None:
    """Another one would make every view again; the numbers are those of version 0.1."""
    assert {number: draw(DIGESTS[0], number, settings()) for number in DRAWN} == DRAWN


def test_another_range_for_one_thing_leaves_the_others() -> None:
    before, after = (plan(DIGESTS, settings(rotate=r)) for r in (15.0, 30.0))
    pd.testing.assert_frame_equal(before.drop(columns="angle"), after.drop(columns="angle"))
    np.testing.assert_allclose(after["angle"], 2 * before["angle"], atol=1e-3)


def test_the_seed_gives_other_views() -> None:
    first, second = (plan(DIGESTS, settings(seed=s)) for s in (0, 1))
    assert (first["angle"] != second["angle"]).mean() > 0.99


def test_no_views_make_an_empty_plan_of_the_same_columns() -> None:
    none, some = plan(DIGESTS, settings(views=0)), plan(DIGESTS, settings())
    assert len(none) == 0
    assert none.dtypes.to_dict() == some.dtypes.to_dict()


def test_the_stage_plans_training_pictures_only_and_draws_a_sheet(
    project: Project,
    draw_picture: Callable[..., Image.Image],
    capsys: pytest.CaptureFixture[str],
) -> None:
    CONTACT_SHEET.parent.rmdir()
    rows = []
    for i in range(6):
        path = Path(f"data/raw/{i}.png")
        draw_picture(i).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        label, split = ("disc", "ring")[i % 2], "train" if i < 4 else "test"
        rows.append((digest, str(path), label, split))
    manifest = pd.DataFrame(rows, columns=["digest", "path", "label", "split"])
    manifest.to_parquet(MANIFEST)

    augment.augment()

    said = "augment: planned 4 views of each of 4 training pictures\n"
    assert capsys.readouterr().out == said
    columns = ["digest", "view", "angle", "scale", "hflip", "vflip"]
    assert pq.read_schema(PLAN).names == columns  # and none for an index
    planned = pd.read_parquet(PLAN)
    training = set(manifest.loc[manifest["split"] == "train", "digest"])
    assert set(planned["digest"]) == training
    assert len(planned) == 4 * params.load(kinds.schema).augment.views
    sheet = Image.open(CONTACT_SHEET)
    assert sheet.width >= 5 * TILE
    assert sheet.height >= 4 * TILE
    first = CONTACT_SHEET.read_bytes()
    augment.augment()
    assert CONTACT_SHEET.read_bytes() == first


# The contact sheet


CAPTION = 18  # pixels beneath a tile


@pytest.fixture
def training(project: Project, draw_picture: Callable[..., Image.Image]) -> pd.DataFrame:
    """Ten pictures of one class and two of each of two others, in no order."""
    rows = []
    for i, label in enumerate([*["ant"] * 10, "bee", "bee", "a wasp", "a wasp"]):
        path = Path(f"data/raw/{i}.png")
        draw_picture(i).save(path)
        rows.append((files.digest(path.read_bytes()), str(path), label))
    table = pd.DataFrame(rows, columns=["digest", "path", "label"])
    return table.sample(frac=1, random_state=0)


def drawn_sheet(training: pd.DataFrame, number_of_views: int) -> Image.Image:
    table = plan(training["digest"].tolist(), settings(views=number_of_views, vflip=0.5))
    contact_sheet(training, table, Path("sheet.png"))
    return Image.open("sheet.png")


def tile(sheet: Image.Image, row: int, column: int) -> np.ndarray:
    """A tile, its caption and the gap that follow it."""
    side, gap = TILE, GAP
    left, top = gap + column * (side + gap), gap + row * (side + CAPTION + gap)
    return np.asarray(sheet)[top : top + side + CAPTION + gap, left : left + side + gap]


def test_without_a_manifest_it_names_the_stage_that_makes_one(project: Project) -> None:
    with pytest.raises(
        DataError, match=r"data/manifest.parquet does not exist; run the ingest stage"
    ):
        augment.augment()


def test_the_sheet_shows_as_many_classes_as_it_can_each_picture_with_its_views(
    training: pd.DataFrame,
) -> None:
    sheet = drawn_sheet(training, number_of_views=7)
    side, gap = TILE, GAP
    rows, columns = 12, 1 + 6
    assert sheet.size == (columns * (side + gap) + gap, rows * (side + CAPTION + gap) + gap)
    assert (np.asarray(sheet)[:gap] == 255).all()
    assert (np.asarray(sheet)[:, :gap] == 255).all()

    by_class = {label: sorted(part["digest"]) for label, part in training.groupby("label")}
    shown = [*by_class["a wasp"], *by_class["ant"][:8], *by_class["bee"]]
    paths = dict(zip(training["digest"], training["path"], strict=True))
    for row, digest in enumerate(shown):
        base = preprocess.base(Path(paths[digest]).read_bytes(), SHEET)
        for column in range(columns):
            view = draw(digest, column, settings(vflip=0.5)) if column else View()
            seen = tile(sheet, row, column)
            expected = preprocess.crop(views.apply(base, view), side)
            np.testing.assert_array_equal(seen[:side, :side], expected)
            assert seen[side : side + CAPTION, :side].min() < 100  # the caption
            assert (seen[side + CAPTION :] == 255).all()
            assert (seen[:, side:] == 255).all()


@pytest.mark.parametrize("count", [0, 14])
def test_a_sheet_without_views_has_one_column(training: pd.DataFrame, count: int) -> None:
    sheet = drawn_sheet(training.head(count), number_of_views=0)
    side, gap = TILE, GAP
    assert sheet.size == (side + 2 * gap, (12 if count else 1) * (side + CAPTION + gap) + gap)


def test_the_sheet_is_drawn_from_the_rows_of_the_pictures_that_it_shows(
    training: pd.DataFrame,
) -> None:
    shown = training.groupby("label").head(4)
    table = plan(training["digest"].tolist(), settings())
    contact_sheet(shown, table, Path("all.png"))
    of_shown = table[table["digest"].isin(shown["digest"])]
    contact_sheet(shown, of_shown, Path("shown.png"))
    assert Path("all.png").read_bytes() == Path("shown.png").read_bytes()


def test_a_caption_tells_the_view() -> None:
    assert _words(View(-4.6, 1.096, True, True)) == "-5° ×1.10 ↔ ↕"
    assert _words(View()) == "+0° ×1.00"


@pytest.mark.parametrize("label", ["W" * 60, "ill" * 40, "a rather long name of a class"])
def test_a_long_caption_is_cut_as_late_as_it_can_be(label: str) -> None:
    pen = ImageDraw.Draw(Image.new("RGB", (8, 8)))
    font = ImageFont.load_default(11)
    assert lettering.fitted("ant", pen, font, TILE) == "ant"
    fitted = lettering.fitted(label, pen, font, TILE)
    kept = fitted.removesuffix("…")
    assert label.startswith(kept)
    assert fitted == f"{kept}…"
    assert pen.textlength(fitted, font=font) <= TILE
    assert pen.textlength(label[: len(kept) + 1] + "…", font=font) > TILE

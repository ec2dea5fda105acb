import io

import numpy as np
import pytest
from PIL import Image

from pipeline.kinds import Preprocessing
from pipeline.kinds.image import preprocess, views
from pipeline.kinds.image.views import ORIGINAL, View

SMALL = Preprocessing(64, 56, "bicubic", (0.5,) * 3, (0.5,) * 3)


def encoded(picture, kind="PNG"):
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def bright_spot(row, column, side=65):
    picture = np.zeros((side, side, 3), np.uint8)
    picture[row - 1 : row + 2, column - 1 : column + 2] = 255
    return picture


def spot_of(picture):
    weights = picture[..., 0].astype(float)
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]]
    return (rows * weights).sum() / weights.sum(), (columns * weights).sum() / weights.sum()


@pytest.mark.parametrize(
    ("view", "row", "column"),
    [
        (ORIGINAL, 32, 52),
        (View(angle=90), 12, 32),  # counter-clockwise: from the right to the top
        (View(angle=-90), 52, 32),
        (View(scale=1.2), 32, 56),
        (View(scale=0.8), 32, 48),
        (View(hflip=True), 32, 12),
        (View(angle=90, vflip=True), 52, 32),
        (View(angle=90, scale=0.8, hflip=True), 16, 32),
    ],
)
def test_a_view_moves_a_spot_where_the_plan_says(view, row, column):
    moved = views.apply(bright_spot(32, 52), view)
    assert moved.shape == (65, 65, 3)
    assert spot_of(moved) == pytest.approx((row, column), abs=0.6)


def test_the_identity_changes_nothing(draw_picture):
    picture = np.asarray(draw_picture(0))
    np.testing.assert_array_equal(views.apply(picture, ORIGINAL), picture)


@pytest.mark.parametrize("size", [(80, 60), (60, 80), (20, 30), (64, 64), (2000, 40), (41, 3000)])
def test_a_base_has_its_shorter_side_and_its_shape(draw_picture, size):
    base = preprocess.base(encoded(draw_picture(1, *size)), SMALL)
    assert min(base.shape[:2]) == 64
    if max(size) < 3 * min(size):
        assert base.shape[1] / base.shape[0] == pytest.approx(size[0] / size[1], rel=0.03)
    assert preprocess.crop(base, SMALL.crop).shape == (56, 56, 3)


def test_a_panorama_is_cut_to_its_middle_without_being_squeezed(draw_picture):
    wide = draw_picture(2, 4000, 100)
    base = preprocess.base(encoded(wide), SMALL)
    middle = wide.crop((1950, 0, 2050, 100)).resize((64, 64), Image.Resampling.BICUBIC)
    difference = preprocess.crop(base, 56).astype(int) - np.asarray(middle)[4:60, 4:60]
    assert base.shape[1] <= 3 * 64
    assert np.abs(difference).mean() < 3


def test_a_large_jpeg_decoded_at_reduced_size_gives_nearly_the_same_pixels(draw_picture):
    photograph = draw_picture(3, 1600, 1200)
    reduced = preprocess.base(encoded(photograph, "JPEG"), SMALL)
    lossless = io.BytesIO()
    Image.open(io.BytesIO(encoded(photograph, "JPEG"))).save(lossless, "PNG")
    whole = preprocess.base(lossless.getvalue(), SMALL)
    assert np.abs(reduced.astype(int) - whole).mean() < 2

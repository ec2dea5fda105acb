import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pipeline import augment, params
from pipeline.params import AugmentParams
from pipeline.paths import CONTACT_SHEET, MANIFEST, PLAN
from pipeline.views import View
from tests.conftest import Project

DIGESTS = [hashlib.sha256(bytes([i])).hexdigest() for i in range(200)]
DRAWN = {1: View(1.4992, 0.964506, True, False), 3: View(11.8788, 0.948526, False, True)}


def settings(**changes: float) -> AugmentParams:
    base = {"views": 3, "rotate": 15.0, "scale": 0.1, "hflip": 0.5, "vflip": 0.1, "seed": 0}
    return AugmentParams(**{**base, **changes})


def test_every_view_lies_in_its_ranges_and_fills_them() -> None:
    table = augment.plan(DIGESTS, settings())
    assert len(table) == 600
    assert table["angle"].between(-15, 15).all()
    assert table["scale"].between(0.9, 1.1).all()
    assert table["angle"].min() < -14
    assert table["angle"].max() > 14
    assert 0.4 < table["hflip"].mean() < 0.6
    assert 0.05 < table["vflip"].mean() < 0.15


def test_a_view_depends_on_its_own_picture_alone() -> None:
    few, many = augment.plan(DIGESTS[:5], settings()), augment.plan(DIGESTS, settings(views=5))
    kept = many[many["digest"].isin(DIGESTS[:5]) & (many["view"] <= 3)].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, kept)


def test_the_views_of_a_picture_differ() -> None:
    table = augment.plan(DIGESTS, settings())
    assert (table.groupby("digest")[["angle", "scale"]].nunique() == 3).all(axis=None)


def test_the_form_of_a_draw_is_fixed() -> None:
    """Another one would make every view anew; the numbers are those of version 0.1."""
    assert {number: augment.draw(DIGESTS[0], number, settings()) for number in DRAWN} == DRAWN


def test_another_range_for_one_thing_leaves_the_others() -> None:
    before, after = (augment.plan(DIGESTS, settings(rotate=r)) for r in (15.0, 30.0))
    pd.testing.assert_frame_equal(before.drop(columns="angle"), after.drop(columns="angle"))
    np.testing.assert_allclose(after["angle"], 2 * before["angle"], atol=1e-3)


def test_the_seed_gives_other_views() -> None:
    first, second = (augment.plan(DIGESTS, settings(seed=s)) for s in (0, 1))
    assert (first["angle"] != second["angle"]).mean() > 0.99


def test_no_views_make_an_empty_plan_of_the_same_columns() -> None:
    none, some = augment.plan(DIGESTS, settings(views=0)), augment.plan(DIGESTS, settings())
    assert len(none) == 0
    assert none.dtypes.to_dict() == some.dtypes.to_dict()


def test_the_stage_plans_training_pictures_only_and_draws_a_sheet(
    project: Project, draw_picture: Callable[..., Image.Image]
) -> None:
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

    planned = pd.read_parquet(PLAN)
    training = set(manifest.loc[manifest["split"] == "train", "digest"])
    assert set(planned["digest"]) == training
    assert len(planned) == 4 * params.load().augment.views
    sheet = Image.open(CONTACT_SHEET)
    assert sheet.width >= 5 * augment.TILE
    assert sheet.height >= 4 * augment.TILE
    first = CONTACT_SHEET.read_bytes()
    augment.augment()
    assert CONTACT_SHEET.read_bytes() == first

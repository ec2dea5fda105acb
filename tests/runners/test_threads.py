"""Missing views on threads of this machine, beside another process that computes the same."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline import kinds
from pipeline.backbones.engines import Engine
from pipeline.examples import files
from pipeline.kinds import Preprocessing
from pipeline.runners import threads, wanted
from pipeline.store.vectors import FeatureStore

IMAGE = kinds.named("image")
SEEN = Preprocessing(16, 16, "bilinear", (0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
EXAMPLES = 60


@pytest.fixture
def missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_picture: Callable[..., Image.Image]
) -> pd.DataFrame:
    """View 0 of sixty pictures, of which the store has none, on a machine with two cores."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.chdir(tmp_path)
    rows = []
    for number in range(EXAMPLES):
        draw_picture(number).resize((20, 20)).save(f"{number}.png")
        rows.append((files.digest(Path(f"{number}.png").read_bytes()), f"{number}.png"))
    manifest = pd.DataFrame(rows, columns=["digest", "path"])
    plan = pd.DataFrame(columns=["digest", "view", *IMAGE.view_columns])
    return wanted.every_view(manifest, plan, means(lambda: None))


def means(before: Callable[[], None]) -> Engine:
    """The mean of each colour; `before` is called ahead of each batch."""

    def run(pixels: np.ndarray) -> np.ndarray:
        before()
        return pixels.mean(axis=(1, 2), dtype=np.float32)

    return Engine("means", IMAGE, IMAGE.inputs(SEEN, "cpu"), run, SEEN, 3, "means")


def test_what_another_put_meanwhile_is_not_computed_again(
    missing: pd.DataFrame, tmp_path: Path
) -> None:
    keys = missing["key"].tolist()

    def another_puts_all() -> None:
        with FeatureStore(tmp_path / "store", None) as other:
            other.put({key: np.full(3, 7, np.float32) for key in keys})

    with FeatureStore(tmp_path / "store", None) as store:
        computed = threads.compute(missing, means(another_puts_all), store, 1)
        assert computed == threads.FRESH
        sevens = [key for key, value in store.get(keys).items() if (value == 7).all()]
        assert len(sevens) >= EXAMPLES - threads.FRESH


def test_two_at_a_time_share_the_work(missing: pd.DataFrame, tmp_path: Path) -> None:
    def begin(_: int) -> int:
        with FeatureStore(tmp_path / "store", None) as store:
            return threads.compute(missing, means(lambda: None), store, 1)

    with ThreadPoolExecutor(2) as pool:
        computed = sum(pool.map(begin, range(2)))
    assert EXAMPLES <= computed < 2 * EXAMPLES - 10  # of which each began eight without asking
    with FeatureStore(tmp_path / "store", None) as store:
        assert len(store.get(missing["key"].tolist())) == EXAMPLES


def test_a_small_run_asks_the_store_nothing(
    missing: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    checksums = FeatureStore.checksums
    monkeypatch.setattr(
        FeatureStore, "checksums", lambda *told: (asked.append(1), checksums(*told))[1]
    )
    with FeatureStore(tmp_path / "store", None) as store:
        assert threads.compute(missing, means(lambda: None), store, 8) == EXAMPLES
    assert asked == []

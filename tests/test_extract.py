import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline import augment, extract, kinds
from pipeline.backbones import engines
from pipeline.backbones.engines import processor
from pipeline.core import params
from pipeline.core.errors import DataError, DeviceError
from pipeline.core.paths import FEATURES, MANIFEST, PLAN
from pipeline.examples import files
from pipeline.store.database import LAYOUT
from pipeline.store.places import default_folder
from pipeline.store.vectors import FeatureStore
from pipeline.tables import features
from tests.conftest import SMALL, Project


@pytest.fixture
def drawn(
    project: Project, small_backbone: Path, draw_picture: Callable[..., Image.Image]
) -> Project:
    """A project whose manifest lists twelve pictures, eight of them for training."""
    project.set(**SMALL, **{"augment.views": 2})
    for i in range(12):
        draw_picture(i).save(f"data/raw/{i}.jpg")
    list_pictures(range(12))
    return project


def list_pictures(numbers: range) -> None:
    rows = []
    for i in numbers:
        path = Path(f"data/raw/{i}.jpg")
        digest = files.digest(path.read_bytes())
        rows.append((digest, str(path), ("disc", "ring")[i % 2], "test" if i % 3 == 2 else "train"))
    manifest = pd.DataFrame(rows, columns=["digest", "path", "label", "split"])
    manifest.to_parquet(MANIFEST)
    augment.augment()


def shards() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(FEATURES.iterdir())}


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What extract says about its views, without the rate and the engine."""
    last = capsys.readouterr().out.strip().splitlines()[-1]
    return last.partition(" computed")[0].partition("views: ")[2]


def test_what_this_run_computed_is_not_evicted_by_its_own_notes(
    drawn: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_STORE_LIMIT", "50KB")
    extract.extract()
    capsys.readouterr()
    extract.extract()
    assert said(capsys) == "28 reused, 0"


def test_a_device_that_a_later_stage_will_miss_is_told_before_anything_is_computed(
    drawn: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "DRIVERS", ())
    drawn.set(**{"finetune.device": "cuda"})
    assert (
        params.later_stages_on_cuda(params.load(kinds.schema)) == []
    )  # finetune is not in the graph
    for knobs, parameter in (
        ({"from_scratch.run": ["asked"]}, r"finetune\.device"),
        ({"train.device": "cuda"}, r"train\.device"),
    ):
        drawn.set(**knobs)
        with pytest.raises(DeviceError, match=rf"^{parameter} is cuda, but PyTorch sees no CUDA"):
            extract.extract()
    assert not FEATURES.exists()


def test_every_original_and_every_planned_view_has_one_feature(drawn: Project) -> None:
    extract.extract()
    manifest, plan = pd.read_parquet(MANIFEST), pd.read_parquet(PLAN)
    splits = features.read_splits(FEATURES, manifest, ["disc", "ring"], ["train", "test"])
    assert len(splits["train"].features) == 8 * 3
    assert len(splits["test"].features) == 4
    assert len(plan) == 8 * 2
    whole = splits["train"].features
    assert whole.shape[1] == 96
    assert len(np.unique(whole, axis=0)) == len(whole)


@pytest.mark.parametrize(
    ("flags", "knobs", "lines"),
    [
        ("fpu amx_bf16", {}, 1),
        ("fpu", {}, 0),
        ("fpu amx_bf16", {"extract.engine": "onnxruntime"}, 0),
    ],
)
def test_many_views_come_with_a_line_on_bfloat16_if_the_processor_has_it(
    flags: str,
    knobs: dict[str, object],
    lines: int,
    drawn: Project,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn.set(**knobs)
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(extract, "MANY", 27)
    extract.extract()
    assert capsys.readouterr().out.count("set extract.precision to bfloat16") == lines
    extract.extract()  # which computes nothing
    assert "bfloat16" not in capsys.readouterr().out


def test_a_view_is_computed_once_ever(drawn: Project, capsys: pytest.CaptureFixture[str]) -> None:
    extract.extract()
    assert said(capsys) == "0 reused, 28"
    first = shards()
    extract.extract()
    assert said(capsys) == "28 reused, 0"
    assert shards() == first


def test_warm_cold_and_half_filled_stores_give_the_same_bytes(
    drawn: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    extract.extract()
    cold = shards()
    capsys.readouterr()

    with sqlite3.connect(default_folder() / f"features-v{LAYOUT}.sqlite") as database:
        database.execute("DELETE FROM entries WHERE id % 2")
    extract.extract()
    reused, computed = (int(words) for words in said(capsys).split(" reused, "))
    assert min(reused, computed) > 0
    assert shards() == cold

    with FeatureStore(default_folder(), None) as cache:
        cache.clear()
    extract.extract()
    assert said(capsys) == "0 reused, 28"
    assert shards() == cold


def test_new_pictures_are_the_only_ones_computed_and_change_few_shards(
    drawn: Project, draw_picture: Callable[..., Image.Image], capsys: pytest.CaptureFixture[str]
) -> None:
    extract.extract()
    before = {file.name: file.stat().st_mtime_ns for file in FEATURES.iterdir()}
    draw_picture(12).save("data/raw/12.jpg")
    list_pictures(range(13))
    capsys.readouterr()
    extract.extract()
    assert said(capsys) == "28 reused, 3"
    after = {file.name: file.stat().st_mtime_ns for file in FEATURES.iterdir()}
    assert len(set(after.items()) - set(before.items())) == 1


def test_rows_that_a_shard_has_are_not_read_from_the_store(
    drawn: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract.extract()
    read: list[int] = []
    get = FeatureStore.get
    monkeypatch.setattr(FeatureStore, "get", lambda *a: read.append(len(a[1])) or get(*a))
    drawn.set(**{"augment.views": 3})
    augment.augment()
    extract.extract()
    others = 1 + 12  # the note about the shards, and the views of the floor
    assert sum(read) == 8 + others
    before = shards()
    shutil.rmtree(FEATURES)
    extract.extract()
    assert shards() == before
    # If the plan of a view has changed, it is not known which rows the shard has.
    read.clear()
    drawn.set(**{"augment.rotate": 40})
    augment.augment()
    extract.extract()
    assert sum(read) == 8 * 4 + others


def test_renamed_pictures_are_not_computed_again(
    drawn: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    extract.extract()
    before = shards()
    for i in range(12):
        Path(f"data/raw/{i}.jpg").rename(f"data/raw/{i + 100}.jpg")
    list_pictures(range(100, 112))
    capsys.readouterr()
    manifest = pd.read_parquet(MANIFEST)
    old = [f"data/raw/{int(Path(path).stem) - 100}.jpg" for path in manifest["path"]]
    splits = ["test" if int(Path(path).stem) % 3 == 2 else "train" for path in old]
    manifest.assign(split=splits).to_parquet(MANIFEST)
    augment.augment()
    capsys.readouterr()
    extract.extract()
    assert said(capsys) == "28 reused, 0"
    assert shards() == before


def test_another_rotation_reuses_every_original(
    drawn: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    extract.extract()
    drawn.set(**{"augment.rotate": 40})
    augment.augment()
    capsys.readouterr()
    extract.extract()
    assert said(capsys) == "12 reused, 16"


def test_a_picture_that_changed_after_ingest_is_named(drawn: Project) -> None:
    Path("data/raw/3.jpg").write_bytes(Path("data/raw/4.jpg").read_bytes())
    with pytest.raises(DataError, match=r"data/raw/3\.jpg changed after it was ingested"):
        extract.extract()
    Path("data/raw/3.jpg").unlink()
    with pytest.raises(DataError, match=r"data/raw/3\.jpg: cannot be read \(No such file"):
        extract.extract()


def test_a_damaged_entry_is_computed_again(
    drawn: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    extract.extract()
    whole = shards()
    with sqlite3.connect(default_folder() / f"features-v{LAYOUT}.sqlite") as database:
        ids = database.execute("SELECT id, value FROM vectors LIMIT 3").fetchall()
        for number, value in ids:
            torn = bytes([value[0] ^ 1]) + value[1:]
            database.execute("UPDATE vectors SET value = ? WHERE id = ?", (torn, number))
    shutil.rmtree(FEATURES)  # else no vector is read
    capsys.readouterr()
    extract.extract()
    assert said(capsys) == "25 reused, 3"
    assert shards() == whole


def test_a_shard_that_somebody_changed_is_written_again(drawn: Project) -> None:
    extract.extract()
    whole = shards()
    first, second, *_ = sorted(FEATURES.iterdir())
    first.write_bytes(second.read_bytes())
    second.unlink()
    (FEATURES / "zz.parquet").touch()
    extract.extract()
    assert shards() == whole


@pytest.mark.slow
def test_killed_in_the_middle_it_keeps_what_was_finished(
    drawn: Project,
    lite0: Path,
    draw_picture: Callable[..., Image.Image],
    capsys: pytest.CaptureFixture[str],
) -> None:
    drawn.set(**{"extract.backbone": "efficientnet_lite0", "extract.weights": "pretrained"})
    for i in range(12, 72):
        draw_picture(i).save(f"data/raw/{i}.jpg")
    list_pictures(range(72))
    run = subprocess.Popen([sys.executable, "-m", "pipeline.extract"], start_new_session=True)
    database = default_folder() / f"features-v{LAYOUT}.sqlite"
    kept = 0
    while run.poll() is None and kept < 20:
        time.sleep(0.05)
        if database.exists():
            with FeatureStore(default_folder(), None) as cache:
                kept = cache.statistics().entries
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not FEATURES.exists()

    capsys.readouterr()
    extract.extract()
    reused = int(said(capsys).partition(" ")[0])
    assert reused >= kept
    resumed = shards()
    with FeatureStore(default_folder(), None) as cache:
        cache.clear()
    extract.extract()
    assert shards() == resumed

"""A disk that is full in a stage: one line, and the stage works again once there is room."""

import contextlib
import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from pipeline.core import command
from pipeline.core.errors import DiskError
from pipeline.core.paths import FINETUNED
from pipeline.finetune import save
from pipeline.heads.description import HeadDescription
from pipeline.heads.head import Head
from pipeline.transfer.network import Network
from tests.conftest import SMALL, Project

OUTPUTS = {
    "ingest": ("data/manifest.parquet", "data/refused.csv"),
    "augment": ("data/plan.parquet", "reports/contact_sheet.png"),
    "extract": ("data/features",),
    "train": ("models", "reports/sweep.csv", "reports/training.csv"),
    "evaluate": (
        "reports/metrics.json",
        "reports/classes.csv",
        "reports/plots",
        "reports/predictions.csv",
        "reports/repeats.csv",
        "reports/sets.csv",
        "reports/slices.csv",
    ),
    "checks": ("reports/checks.json", "reports/checks"),
    "bundle": ("bundle",),
    "report": ("reports/report.html",),
    "learning_curve": ("reports/learning_curve.csv", "reports/learning_curve.png"),
    "rank": ("reports/rank.csv",),  # no two runs write the same timings beside it
    "finetune": ("data/finetuned", "reports/finetune.json", "reports/finetune.csv"),
    "best": ("best",),
    "from_scratch": ("reports/from_scratch.json", "reports/from_scratch.csv"),
}


def run(stage: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", f"pipeline.{stage}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def made(stage: str, folder: Path) -> dict[str, bytes]:
    """The bytes of the stage's outputs, by name."""
    tops = [folder / name for name in OUTPUTS[stage]]
    files = [file for top in tops for file in (top.rglob("*") if top.is_dir() else [top])]
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(files) if f.is_file()}


def fill(disk: Path) -> Path:
    """Take all the room there is."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(disk).free == 0
    return ballast


def assert_full(stopped: "subprocess.CompletedProcess[str]", stage: str) -> None:
    """It ended with the one line for a full disk."""
    assert stopped.returncode == DiskError.exit_code, stopped.stderr
    assert stopped.stderr.splitlines()[-1].startswith(f"{stage}: error: ")
    assert "No space left on device" in stopped.stderr
    assert "Traceback" not in stopped.stderr


@pytest.fixture
def shapes(project: Project, draw_shapes: Callable[..., None]) -> Project:
    """Thirty pictures of two classes."""
    project.set(**{"ingest.source": "folder", "ingest.path": "data/raw/shapes"})
    draw_shapes(range(30))
    return project


@pytest.mark.slow
def test_every_stage_says_so_and_works_once_there_is_room(
    shapes: Project, small_disk: Path, small_backbone: Path
) -> None:
    # A bundle holds the backbone twice.
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    untrained = [f"random:{SMALL['extract.backbone']}", "random:timm:test_vit"]
    shapes.set(**SMALL, **{"rank.backbones": untrained})
    shapes.set(**{"learning_curve.draws": 2, "finetune.epochs": 1, "finetune.blocks": 1})
    other = small_disk / "project"
    for stage in OUTPUTS:
        # A copy of the project as it is before the stage, on the small disk.
        shutil.copytree(shapes.folder, other)
        ballast = fill(small_disk)
        work = getattr(importlib.import_module(f"pipeline.{stage}"), stage)
        with contextlib.chdir(other), pytest.raises(Exception) as stopped:  # noqa: PT011
            work()
        error = command.in_words(stopped.value)
        assert isinstance(error, DiskError), stage
        assert "No space left on device" in str(error)

        ballast.unlink()
        for folder in (shapes.folder, other):
            with contextlib.chdir(folder):
                work()
        assert made(stage, other) == made(stage, shapes.folder)
        assert made(stage, other)
        shutil.rmtree(other)


@pytest.mark.slow
def test_a_full_disk_under_the_folder_of_the_store(
    shapes: Project, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes.set(**{"augment.views": 0})
    for before in ("ingest", "augment"):
        getattr(importlib.import_module(f"pipeline.{before}"), before)()
    store = small_disk / "features"
    monkeypatch.setenv("HEADSTART_STORE", str(store))
    stopped = run("extract", shapes.folder)  # a backbone takes more than there is
    assert_full(stopped, "extract")
    assert f"{store}/backbones/" in stopped.stderr
    assert list((store / "backbones").iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    again = run("extract", shapes.folder)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_disk_without_room_for_a_checkpoint(
    shapes: Project, small_disk: Path, small_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes.set(**SMALL, **{"augment.views": 0, "finetune.epochs": 1})
    work = {
        stage: getattr(importlib.import_module(f"pipeline.{stage}"), stage)
        for stage in ("ingest", "augment", "extract", "from_scratch")
    }
    for stage in ("ingest", "augment", "extract"):
        work[stage]()
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    store = small_disk / "features"
    monkeypatch.setenv("HEADSTART_STORE", str(store))
    with pytest.raises(Exception) as stopped:  # noqa: PT011
        work["from_scratch"]()
    error = command.in_words(stopped.value)
    assert isinstance(error, DiskError)
    assert "No space left on device" in str(error)
    assert f"{store}/checkpoints/" in str(error)
    assert list((store / "checkpoints").iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    work["from_scratch"]()


def test_weights_that_were_finetuned_are_written_or_a_full_disk_is_told(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3000, 1000))  # 12 MB
    head = Head(np.zeros((2, 1000), np.float32), np.zeros(2, np.float32))
    monkeypatch.chdir(small_disk)
    with pytest.raises(OSError, match="No space left on device"):
        save(Network(backbone, head, 1.0), True, HeadDescription(["a", "b"], 1.0))
    assert not (FINETUNED / "head.json").exists()

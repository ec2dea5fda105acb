"""A disk that is full in a stage: one line, and the stage works again once there is room."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import DiskError
from tests.conftest import Project

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
    ),
    "checks": ("reports/checks.json", "reports/checks"),
    "bundle": ("bundle",),
    "report": ("reports/report.html",),
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


@pytest.mark.slow
def test_every_stage_says_so_and_works_once_there_is_room(
    project: Project, small_disk: Path, draw_picture: Callable[..., Image.Image]
) -> None:
    # A bundle holds the backbone twice.
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    project.set(**{"ingest.source": "folder", "ingest.path": "data/raw/shapes"})
    for i in range(30):
        path = Path("data/raw/shapes") / ("disc", "square")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(i, square=bool(i % 2)).save(path)
    other = small_disk / "project"
    for stage in OUTPUTS:
        # A copy of the project as it is before the stage, on the small disk.
        shutil.copytree(project.folder, other)
        ballast = fill(small_disk)
        stopped = run(stage, other)
        assert stopped.returncode == DiskError.exit_code, stopped.stderr
        assert stopped.stderr.splitlines()[-1].startswith(f"{stage}: error: ")
        assert "No space left on device" in stopped.stderr
        assert "Traceback" not in stopped.stderr

        ballast.unlink()
        undisturbed, again = run(stage, project.folder), run(stage, other)
        assert undisturbed.returncode == 0, undisturbed.stderr
        assert again.returncode == 0, again.stderr
        assert made(stage, other) == made(stage, project.folder)
        assert made(stage, other)
        shutil.rmtree(other)

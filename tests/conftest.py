"""What most tests stand on: an empty project folder, and pictures made for the purpose."""

import importlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium")  # .ci/run installs it


class Project:
    """A folder to run stages in, with the repository's own `params.yaml`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(ROOT / "params.yaml", folder)
        (folder / "reports").mkdir()
        (folder / "data" / "raw").mkdir(parents=True)

    def set(self, **knobs: Any) -> None:
        """Change parameters: `set(**{"augment.views": 2})`."""
        file = self.folder / "params.yaml"
        document = yaml.safe_load(file.read_text())
        for name, value in knobs.items():
            section, knob = name.split(".")
            document[section][knob] = value
        file.write_text(yaml.safe_dump(document, sort_keys=False))


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A shell has what it starts in the background ignore Ctrl-C, and so do the children of that.

    Tests that send it to a process they started would wait in vain.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where backbones exported to ONNX are kept for all tests: an export takes seconds."""
    return tmp_path_factory.mktemp("exported")


@pytest.fixture
def project(tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "cache" / "features"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for stages run as processes
    (tmp_path / "cache" / "features").mkdir(parents=True)
    (tmp_path / "cache" / "features" / "backbones").symlink_to(exported)
    return Project(folder)


@pytest.fixture(scope="session")
def bundled(
    tmp_path_factory: pytest.TempPathFactory,
    exported: Path,
    draw_picture: Callable[..., Image.Image],
) -> Path:
    """A project in which all stages ran on drawn pictures, up to `bundle/`."""
    folder = tmp_path_factory.mktemp("bundled")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HEADSTART_STORE", str(folder / "cache" / "features"))
        (folder / "cache" / "features").mkdir(parents=True)
        (folder / "cache" / "features" / "backbones").symlink_to(exported)
        project = Project(folder)
        knobs = {"ingest.source": "folder", "ingest.path": "data/raw/shapes", "augment.views": 0}
        project.set(**knobs, **{"evaluate.bootstrap": 10})
        for i in range(60):
            path = Path("data/raw/shapes") / ("disc", "square")[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_picture(i, 80 + 7 * i, 60 + 5 * i, square=bool(i % 2)).save(path)
        for stage in ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle"):
            module = importlib.import_module(f"pipeline.{stage}")
            getattr(module, stage)()
    return folder


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless, which asks nobody for anything by itself.

    For one test each: while it is there, no other event loop can run.
    """
    if not CHROMIUM:
        pytest.skip("needs Debian's package chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield found
        found.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)]
    can_mount = os.geteuid() == 0 and shutil.which("mount") is not None
    if not can_mount or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture(scope="session")
def draw_picture() -> Callable[..., Image.Image]:
    """Makes a small picture that differs with its seed: a disc or a square on stripes."""

    def draw(seed: int, width: int = 80, height: int = 60, square: bool = False) -> Image.Image:
        random = np.random.default_rng(seed)
        rows, columns = np.mgrid[:height, :width]
        back, front = random.integers(0, 256, (2, 3))
        stripes = ((rows + columns * random.integers(1, 4)) // 7 % 2)[..., None]
        picture = np.where(stripes == 0, back, back // 2)
        middle = random.uniform(0.3, 0.7, 2) * (height, width)
        down, right = abs(rows - middle[0]), abs(columns - middle[1])
        distance = np.maximum(down, right) if square else np.hypot(down, right)
        picture[distance < min(width, height) / 4] = front
        return Image.fromarray(picture.astype(np.uint8))

    return draw

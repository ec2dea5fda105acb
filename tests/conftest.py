"""What most tests stand on: an empty project folder, and pictures made for the purpose."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parent.parent


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


@pytest.fixture
def project(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    return Project(folder)


@pytest.fixture
def draw_picture() -> Callable[..., Image.Image]:
    """Makes a small picture that differs with its seed: a coloured disc on stripes."""

    def draw(seed: int, width: int = 80, height: int = 60) -> Image.Image:
        random = np.random.default_rng(seed)
        rows, columns = np.mgrid[:height, :width]
        back, front = random.integers(0, 256, (2, 3))
        stripes = ((rows + columns * random.integers(1, 4)) // 7 % 2)[..., None]
        picture = np.where(stripes == 0, back, back // 2)
        middle = random.uniform(0.3, 0.7, 2) * (height, width)
        disc = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < (min(width, height) / 4) ** 2
        picture[disc] = front
        return Image.fromarray(picture.astype(np.uint8))

    return draw

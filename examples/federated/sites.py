"""Make three projects beside this file: two sites with pictures of surfaces, and a server.

    python examples/federated/sites.py

The pictures of eight classes are dealt unevenly, and of some classes a site has none. The projects
are clones of this repository: `project-lima`, `project-oslo` and `project-server`, which has no
pictures.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SITES = ("lima", "oslo")
CLASSES = 8
SHARE = 0.7  # of a class's pictures, of the first site; the other one has the rest


def cut(folder: Path) -> list[Path]:
    """The pictures of the default run, cut into a folder: `SPLIT/CLASS/NAME.png`."""
    (folder / "data" / "raw").mkdir(parents=True)
    for name in ("params.yaml", "data/raw/surfaces.csv"):
        shutil.copy(ROOT / name, folder / name)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    stage = [sys.executable, "-m", "pipeline.ingest"]
    subprocess.run(stage, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return sorted((folder / "data" / "pictures").glob("*/*/*.png"))


def dealt(pictures: list[Path]) -> dict[str, list[Path]]:
    """The pictures of each site."""
    found: dict[str, list[Path]] = {name: [] for name in SITES}
    classes = sorted({picture.parent.name for picture in pictures})[:CLASSES]
    for folder in sorted({picture.parent for picture in pictures}):
        if folder.name in classes:
            own = [picture for picture in pictures if picture.parent == folder]
            number = classes.index(folder.name)
            first, second = SITES if number % 2 else SITES[::-1]
            most = len(own) if number % 3 == 2 else round(len(own) * SHARE)
            found[first] += own[:most]
            found[second] += own[most:]
    return found


def make(name: str, pictures: list[Path]) -> None:
    """Make a project."""
    project = HERE / f"project-{name}"
    shutil.rmtree(project, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", ROOT, project], check=True)
    shutil.copy(HERE / "params.yaml", project)
    for picture in pictures:
        place = project / "data" / "raw" / "surfaces" / picture.parent.parent.name
        place = place / picture.parent.name / picture.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, place)
    classes = len({picture.parent.name for picture in pictures})
    held = f"{len(pictures)} pictures of {classes} classes" if pictures else "no picture"
    print(f"{project.name}: {held}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name, pictures in dealt(cut(Path(folder))).items():
            make(name, pictures)
    make("server", [])

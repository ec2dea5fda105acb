"""Make three projects beside this file: two sites with pictures of surfaces, and a server.

    python examples/federated/sites.py

The pictures of eight classes are dealt unevenly, and of some classes a site has none. The projects
are `project-lima`, `project-oslo` and `project-server`, which has no pictures.
"""

import shutil
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from headstart.init import run as init
from pipeline.sources.surfaces import cut

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SITES = ("lima", "oslo")
CLASSES = 8
SHARE = 0.7  # of a class's pictures, of the first site; the other one has the rest


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


def make(name: str, pictures: list[Path], folder: Path) -> None:
    """Make a project of pictures, which are moved into a new folder first."""
    for picture in pictures:
        place = folder / picture.parent.parent.name / picture.parent.name / picture.name
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.rename(place)
    project = HERE / f"project-{name}"
    shutil.rmtree(project, ignore_errors=True)
    with redirect_stdout(None):
        init(project, data=folder if pictures else None)
    shutil.copy(HERE / "params.yaml", project)
    classes = len({picture.parent.name for picture in pictures})
    held = f"{len(pictures)} pictures of {classes} classes" if pictures else "no picture"
    print(f"{project.name}: {held}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        whole = cut(ROOT / "data/raw/surfaces.csv", folder / "whole")
        for name, pictures in dealt(sorted(path for path, _, _ in whole)).items():
            make(name, pictures, folder / name / "surfaces")
        make("server", [], folder)

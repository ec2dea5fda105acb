"""The files that a project is made from, which are in the clone and also in the wheel."""

from pathlib import Path

from pipeline.core import packages


def folder() -> Path:
    """Return the folder with `dvc.yaml`, `params.yaml`, `requirements/` and the like."""
    here = Path(__file__).parent
    return here / "project" if packages.IN_WHEEL else here.parent

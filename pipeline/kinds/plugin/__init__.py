"""A kind from a plugin: `KIND` in the project's `plugins/kind.py`.

`dvc.yaml` depends on the folder of the kind and on `plugins`, so `ingest.kind: plugin` in
`params.yaml` is enough.
"""

from typing import Any

from ...core import plugins
from ...core.errors import ParamsError
from .. import LATER, Kind

ASKED_BY = "ingest.kind plugin"


def __getattr__(name: str) -> Any:
    """Load `KIND` again at each access, because the file may have changed.

    Raises:
        ParamsError: the file does not exist or raises an error, or its `KIND` lacks a member.
    """
    if name != "KIND":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = plugins.folder() / "kind"
    if not (place.is_dir() or place.with_suffix(".py").exists()):
        raise ParamsError(
            f"{ASKED_BY}: plugins/kind.py does not exist; write it, with an object KIND"
        )
    kind = plugins.load("python:kind.KIND", ASKED_BY)
    asked = [one for one in (*Kind.__annotations__, *vars(Kind)) if not one.startswith("_")]
    lacking = [one for one in asked if not hasattr(kind, one)]
    for one in LATER.keys() & set(lacking):
        setattr(kind, one, LATER[one])
        lacking.remove(one)
    if lacking:
        raise ParamsError(f"{ASKED_BY}: KIND of plugins/kind.py has no {', '.join(lacking)}")
    return kind

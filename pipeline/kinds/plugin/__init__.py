"""A kind of somebody's own: what the project's `plugins/kind.py` calls `KIND`.

`dvc.yaml` depends on the folder of the kind by its name and on `plugins`, so `ingest.kind: plugin`
is all that `params.yaml` has to say.
"""

from typing import Any

from ...core import plugins
from ...core.errors import ParamsError
from .. import LATER, Kind

ASKED_BY = "ingest.kind plugin"


def __getattr__(name: str) -> Any:
    """`KIND`, looked up each time: the file may have changed since.

    Raises:
        ParamsError: there is no such file, it raises, or its `KIND` lacks an answer.
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

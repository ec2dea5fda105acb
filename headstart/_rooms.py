"""Where the rooms of `pipeline/` are: beside this file in a wheel, beside the package in a clone.

In a wheel they are `headstart.pipeline`, so that `pipeline` stays free for anybody's own module.
Every other module of this package asks here: `from ._rooms import classifier`. A module of a room
is imported when it is first asked for.
"""

from pathlib import Path
from typing import TYPE_CHECKING

IN_WHEEL = Path(__file__).with_name("pipeline").is_dir()

if TYPE_CHECKING:  # pyproject.toml tells mypy that in a clone IN_WHEEL is false
    if IN_WHEEL:
        from .pipeline import kinds
        from .pipeline.backbones import engines
        from .pipeline.core import command, errors, packages, params
        from .pipeline.examples import files
        from .pipeline.federated import join, site
        from .pipeline.serving import classifier, embedding, predict, server
        from .pipeline.sources import listing
        from .pipeline.store import database, places
    else:
        from pipeline import kinds
        from pipeline.backbones import engines
        from pipeline.core import command, errors, packages, params
        from pipeline.examples import files
        from pipeline.federated import join, site
        from pipeline.serving import classifier, embedding, predict, server
        from pipeline.sources import listing
        from pipeline.store import database, places
else:
    ROOMS = {
        "kinds": ("kinds",),
        "backbones": ("engines",),
        "core": ("command", "errors", "packages", "params"),
        "examples": ("files",),
        "federated": ("join", "site"),
        "serving": ("classifier", "embedding", "predict", "server"),
        "sources": ("listing",),
        "store": ("database", "places"),
    }

    def __getattr__(name):  # noqa: ANN001, ANN202
        from importlib import import_module

        root = f"{__package__}.pipeline" if IN_WHEEL else "pipeline"
        for room, modules in ROOMS.items():
            if name in modules:
                return import_module(f"{root}.{room}" + f".{name}" * (name != room))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "IN_WHEEL",
    "classifier",
    "command",
    "database",
    "embedding",
    "engines",
    "errors",
    "files",
    "join",
    "kinds",
    "listing",
    "packages",
    "params",
    "places",
    "predict",
    "server",
    "site",
]

"""Headstart as a library: open a trained bundle, or embed examples with a pretrained backbone.

    import headstart

    model = headstart.load("bundle")
    for prediction in model.predict(["one.jpg", "two.jpg"]):
        print(prediction.label, prediction.probability)

The public names are in `__all__`; docs/api.md describes them, and what a version number guarantees.
Importing this module is fast: `load` and `Embedder` import the slow libraries when they are used.
"""

import os
import sys
from typing import TYPE_CHECKING

from pipeline import __version__
from pipeline.core import errors

if TYPE_CHECKING:
    from .embedder import Embedder
    from .examples import Example
    from .model import Model, Neighbour, Prediction

__all__ = [
    "DataError",
    "DeviceError",
    "Embedder",
    "Example",
    "HeadstartError",
    "MissingSetError",
    "Model",
    "Neighbour",
    "ParamsError",
    "Prediction",
    "RefusedError",
    "StoreError",
    "WeightsError",
    "__version__",
    "load",
]

HeadstartError = errors.HeadstartError
ParamsError = errors.ParamsError
DataError = errors.DataError
RefusedError = errors.RefusedError
WeightsError = errors.WeightsError
StoreError = errors.StoreError
DeviceError = errors.DeviceError
MissingSetError = errors.MissingSetError


def stop_on_windows() -> None:
    """Raise one clear error on Windows, before a library raises an obscure one.

    Raises:
        HeadstartError: this is Windows.
    """
    if sys.platform == "win32":
        raise HeadstartError(
            "Headstart runs only on Linux and macOS, because it uses Unix file locks; on Windows,"
            " install it in WSL"
        )


def load(bundle: "str | os.PathLike[str]") -> "Model":
    """Open a trained bundle: the folder `bundle/` that `headstart repro` writes.

    Raises:
        DataError: the folder is not a bundle, is damaged, or was written by a later version.
    """
    stop_on_windows()
    from .model import Model

    return Model(bundle)


if not TYPE_CHECKING:  # a type checker knows these names from the imports above
    LATER = {
        "Embedder": "embedder",
        "Example": "examples",
        "Model": "model",
        "Neighbour": "model",
        "Prediction": "model",
    }

    def __getattr__(name):  # noqa: ANN001, ANN202
        """Import the slow names when they are first used."""
        from importlib import import_module

        if name not in LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        stop_on_windows()
        return getattr(import_module(f".{LATER[name]}", __name__), name)

    def __dir__():  # noqa: ANN202
        return sorted({*globals(), *LATER})

"""What is in the store, and emptying it: `make store`, `make clean-store`."""

import sys

from ..core import command
from ..core.errors import ParamsError
from .places import (
    backbones_folder,
    checkpoints_folder,
    kept,
)
from .vectors import open_store


def store() -> None:
    """Print what is in the store and the folders in it; with the argument `clear`, empty them."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if arguments not in ([], ["clear"]):
        raise ParamsError(f"{' '.join(arguments)!r} is not understood; give nothing, or clear")
    with open_store() as opened:
        if arguments:
            opened.clear()
            for file in [*kept(backbones_folder()), *kept(checkpoints_folder())]:
                file.unlink(missing_ok=True)
        held = opened.statistics()
        limit = "none" if opened.limit_bytes is None else f"{opened.limit_bytes / 1e6:,.1f} MB"
        print(f"path         {opened.path}")
        print(f"entries      {held.entries:,}")
        print(f"size         {held.bytes / 1e6:,.1f} MB")
        print(f"limit        {limit}")
        for name, moment in (("oldest", held.oldest), ("newest", held.newest)):
            if moment:
                print(f"{name}       last used {moment:%Y-%m-%d %H:%M} UTC")
    # A backbone's weights lie beside its graph, so each kind is counted by one ending.
    for folder, ending in ((backbones_folder(), ".onnx"), (checkpoints_folder(), ".safetensors")):
        files = kept(folder)
        count = sum(file.suffix == ending for file in files)
        size = sum(file.stat().st_size for file in files) / 1e6
        print(f"{folder.name:<11}  {count:,}, {size:,.1f} MB")


if __name__ == "__main__":
    command.run(store, takes_arguments=True)

"""Show or clear the store: `make store` and `make clean-store` in a clone."""

import sys

from ..core import command
from ..core.errors import ParamsError
from .places import (
    backbones_folder,
    checkpoints_folder,
    default_address,
    default_folder,
    default_limit,
    kept,
)
from .shared import SharedStore
from .vectors import FeatureStore


def store() -> None:
    """Print the size of the store and of its folders; `clear` empties all but a shared store."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if arguments not in ([], ["clear"]):
        raise ParamsError(f"{' '.join(arguments)!r} is not understood; give no argument, or clear")
    if address := default_address():
        _tell_shared(address, bool(arguments))
    else:
        _tell(bool(arguments))
    if arguments:
        for file in [*kept(backbones_folder()), *kept(checkpoints_folder())]:
            file.unlink(missing_ok=True)
    # A backbone has a graph and a file of weights, so only one of the two endings is counted.
    for folder, ending in ((backbones_folder(), ".onnx"), (checkpoints_folder(), ".safetensors")):
        files = kept(folder)
        count = sum(file.suffix == ending for file in files)
        size = sum(file.stat().st_size for file in files) / 1e6
        print(f"{folder.name:<11}  {count:,}, {size:,.1f} MB")


def _tell_shared(address: str, clear: bool) -> None:
    with SharedStore(address, default_limit()) as opened:
        held = opened.statistics()
    print(f"address      {opened.address}")
    print(f"entries      {held.entries:,} in {held.shards:,} shards")
    print(f"size         {held.bytes / 1e6:,.1f} MB")
    print(f"limit        {_limit(opened.limit_bytes)}")
    if clear:
        print(
            "The features there are shared, so they are kept; the exports and checkpoints on this"
            " machine are deleted."
        )


def _tell(clear: bool) -> None:
    with FeatureStore(default_folder(), default_limit()) as opened:
        if clear:
            opened.clear()
        held = opened.statistics()
        print(f"path         {opened.path}")
        print(f"entries      {held.entries:,}")
        print(f"size         {held.bytes / 1e6:,.1f} MB")
        print(f"limit        {_limit(opened.limit_bytes)}")
        for name, moment in (("oldest", held.oldest), ("newest", held.newest)):
            if moment:
                print(f"{name}       last used {moment:%Y-%m-%d %H:%M} UTC")


def _limit(limit: int | None) -> str:
    return "none" if limit is None else f"{limit / 1e6:,.1f} MB"


if __name__ == "__main__":
    command.run(store, takes_arguments=True)

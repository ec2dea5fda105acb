"""How a split is drawn: by `ingest`, and again for each repeat of `evaluate`."""

from .manifest import SPLITS
from .unit import unit


def draw(key: str, sizes: dict[str, float], seed: int) -> str:
    """The split of the example or group that `key` names.

    A hash of `key` and `seed`, read as a number from 0 to 1, falls into one split's part of it. No
    other example has a say, so none changes its split when examples come or go.

    Args:
        key: an example's digest, or its group's name.
        sizes: the fraction of each split, adding up to 1; a split without one gets nothing.
        seed: draws another split.
    """
    position = unit(f"{seed}:{key}")
    reached = 0.0
    drawable = [split for split in SPLITS if sizes.get(split, 0) > 0]
    for split in drawable:
        reached += sizes[split]
        if position < reached:
            return split
    return drawable[-1]  # the sizes' sum may be a rounding below 1

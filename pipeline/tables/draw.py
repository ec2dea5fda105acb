"""Random splits, for `ingest` and for each repeat of `evaluate`."""

from .manifest import SPLITS
from .unit import unit


def draw(key: str, sizes: dict[str, float], seed: int) -> str:
    """Draw the split of an example or a group.

    A hash of `key` and `seed`, mapped to a number from 0 to 1, falls into the interval of one
    split. The split depends on no other example, so it stays the same if examples are added or
    removed.

    Args:
        key: an example's digest, or its group's name.
        sizes: the fraction of each split; the fractions add up to 1, and a split without one is
            never drawn.
    """
    position = unit(f"{seed}:{key}")
    reached = 0.0
    drawable = [split for split in SPLITS if sizes.get(split, 0) > 0]
    for split in drawable:
        reached += sizes[split]
        if position < reached:
            return split
    return drawable[-1]  # by rounding, the sizes may add up to less than 1

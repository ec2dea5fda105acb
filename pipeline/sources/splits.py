"""Splits that stay put: each picture's is drawn from its own content, or its group's name."""

import hashlib
from collections.abc import Iterable

SPLITS = ("train", "val", "test")


def draw(key: str, shares: dict[str, float], seed: int) -> str:
    """The split of the picture or group that `key` names.

    A hash of `key` and `seed`, read as a number from 0 to 1, falls into one split's share. No
    other picture has a say, so none changes its split when pictures come or go.

    Args:
        key: a picture's digest, or its group's name.
        shares: the share of each split, adding up to 1; a split without a share gets nothing.
        seed: draws another split.
    """
    hashed = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    position = int.from_bytes(hashed, "big") / 2**64
    reached = 0.0
    drawable = [split for split in SPLITS if shares.get(split, 0) > 0]
    for split in drawable:
        reached += shares[split]
        if position < reached:
            return split
    return drawable[-1]  # the shares' sum may be a rounding below 1


def missing(rows: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """For each split, the labels that have no picture in it; splits that miss none are left out.

    Args:
        rows: (label, split) of every picture.
    """
    seen = set(rows)
    labels = sorted({label for label, _ in seen})
    gaps = {split: [label for label in labels if (label, split) not in seen] for split in SPLITS}
    return {split: gap for split, gap in gaps.items() if gap}

"""Splits that stay put: each example's is drawn from its own content, or its group's name."""

import hashlib

import pandas as pd

from ..core.params import IngestParams
from ..kinds import Kind
from ..tables.manifest import DRAWN, GIVEN, PLACE, SPLITS
from .checked import Checked

# Sources whose splits are other places than their training examples.
BY_PLACE = ("surfaces",)


def draw(key: str, shares: dict[str, float], seed: int) -> str:
    """The split of the example or group that `key` names.

    A hash of `key` and `seed`, read as a number from 0 to 1, falls into one split's share. No
    other example has a say, so none changes its split when examples come or go.

    Args:
        key: an example's digest, or its group's name.
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


def split(kept: list[Checked], settings: IngestParams, kind: Kind) -> pd.DataFrame:
    """The manifest: a row an example, its split given by the source or drawn from its content."""
    given = {found.split for found, _, _ in kept} - {""}
    fates = fate_of_splits(given, settings.shares.model_dump())
    # Where the source places some of a group, the rest of it follows.
    places = {found.group: found.split for found, _, _ in kept if found.group and found.split}
    rows = []
    for found, digest, seen in kept:
        fate = fates[found.split or places.get(found.group, "")]
        drawn = fate if isinstance(fate, str) else draw(found.group or digest, fate, settings.seed)
        rows.append((digest, found.path.as_posix(), found.label, drawn, *seen, found.group))
    columns = ["digest", "path", "label", "split", *kind.columns, "group"]
    return pd.DataFrame(rows, columns=columns).sort_values("path", ignore_index=True)


def origins(kept: list[Checked], manifest: pd.DataFrame, settings: IngestParams) -> dict[str, str]:
    """Where val and test come from: `DRAWN`, or where the source placed any of them the rest.

    What the source calls train and `split` did not leave there was drawn.
    """
    groups = {found.group: found.split for found, _, _ in kept if found.group and found.split}
    placed = {
        found.path.as_posix()
        for found, _, _ in kept
        if (found.split or groups.get(found.group, "")) not in ("", "train")
    }
    given = set(manifest["split"][manifest["path"].isin(placed)])
    by_source = PLACE if settings.source in BY_PLACE else GIVEN
    return {name: by_source if name in given else DRAWN for name in SPLITS[1:]}


def fate_of_splits(given: set[str], shares: dict[str, float]) -> dict[str, str | dict[str, float]]:
    """What becomes of each split that the source gives: a split, or shares to draw one from.

    Of three splits each stays. Of train and one other (val or test), that one is the test split,
    and validation examples are drawn from train. Of train alone all three are drawn. Examples
    without a split (the key "") are drawn in any case.
    """
    fates: dict[str, str | dict[str, float]] = {"": shares, **{name: name for name in given}}
    if given == {"train"}:
        fates["train"] = shares
    elif len(given) == 2 and "train" in given:
        (held_out,) = given - {"train"}
        print(f"ingest: {held_out} of the source is the test split; val is drawn from its train")
        rest = shares["train"] + shares["val"]
        fates[held_out] = "test"
        fates["train"] = {name: shares[name] / rest for name in ("train", "val")}
    return fates

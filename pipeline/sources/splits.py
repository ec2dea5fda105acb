"""Stable splits: each example's split is drawn from its own content, or its group's name."""

from collections import Counter

import pandas as pd

from ..core.params import IngestParams
from ..kinds import Kind
from ..tables.draw import draw
from ..tables.labels import listed
from ..tables.manifest import (
    COLUMNS,
    DRAWN,
    GIVEN,
    PLACE,
    SLICE,
    SPLITS,
    TARGET,
    UNLABELLED,
)
from ..tables.targets import of_task
from ..tables.unit import unit
from .checked import Checked

# Sources whose test split is from other places than their training examples.
BY_PLACE = ("surfaces",)


def split(
    kept: list[Checked], settings: IngestParams, kind: Kind, slices: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Return the manifest: one row per example, with the source's split or one drawn from content.

    The target columns follow the kind's columns and `group`; the columns `slices` of the source
    come last.
    """
    given = {found.split for found, _, _ in kept} - {""}
    learned = _learned(kept, settings)
    fates = fate_of_splits(given, settings.shares.model_dump())
    # If the source gives a split to some of a group, the rest of the group follows.
    places = {found.group: found.split for found, _, _ in kept if found.group and found.split}
    splits: dict[str, str] = {}  # by digest
    drawn_to_train: list[Checked] = []
    for one in kept:
        fate = fates[one.found.split or places.get(one.found.group, "")]
        if isinstance(fate, str):
            splits[one.digest] = fate
            continue
        splits[one.digest] = draw(one.found.group or one.digest, fate, settings.seed)
        if splits[one.digest] == "train" and fate.get("val", 0) > 0:
            drawn_to_train.append(one)
    if settings.val_of_each_class and settings.task == "classification":
        splits |= dict.fromkeys(_lent(kept, splits, drawn_to_train, settings.seed), "val")
    rows = []
    for (found, digest, seen), values in zip(kept, learned.to_numpy(), strict=True):
        rows.append(
            (
                *(digest, found.path.as_posix(), found.label, splits[digest]),
                *(*seen[: len(kind.columns)], found.group, *values, *found.slices),
            )
        )
    columns = ["digest", "path", "label", "split", *kind.columns, "group", *learned.columns]
    columns += [SLICE + name for name in slices]
    manifest = pd.DataFrame(rows, columns=columns).sort_values("path", ignore_index=True)
    # A column of the kind that is empty for every example is dropped.
    silent = [name for name in kind.columns if rows and (manifest[name] == "").all()]
    return manifest.drop(columns=silent)


def _lent(
    kept: list[Checked], splits: dict[str, str], drawn_to_train: list[Checked], seed: int
) -> list[str]:
    """Return the digests of the training examples that are lent to the split val, one per class.

    A class without a validation example lends its training example with the lowest hash, if at
    least one is left for training. Only an example whose split was drawn can move, and only if it
    is the only one of its group: groups are not divided, and moving a whole group would move many
    examples.
    """
    of_class = Counter((one.found.label, splits[one.digest]) for one in kept)
    members = Counter(one.found.group for one in kept if one.found.group)
    lowest: dict[str, tuple[float, str]] = {}
    for one in drawn_to_train:
        label = one.found.label
        alone = members[one.found.group] <= 1
        if alone and not of_class[label, "val"] and of_class[label, "train"] > 1:
            hashed = unit(f"{seed}:{one.digest}"), one.digest
            lowest[label] = min(lowest.get(label, hashed), hashed)
    if lowest:
        each = "each" if len(lowest) > 1 else "it"
        print(
            f"ingest: no validation example of {listed(sorted(lowest))} was drawn, so one training"
            f" example of {each} is used for validation (ingest.val_of_each_class)"
        )
    return [digest for _, digest in lowest.values()]


def unlabelled(kept: list[Checked]) -> tuple[list[Checked], pd.DataFrame]:
    """Return the labelled examples, and a table of those of another domain, without labels."""
    rest = [example for example in kept if example.found.split != UNLABELLED]
    rows = [
        (example.digest, example.found.path.as_posix(), "", UNLABELLED)
        for example in kept
        if example.found.split == UNLABELLED
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    return rest, table.sort_values("path", ignore_index=True)


def _learned(kept: list[Checked], settings: IngestParams) -> pd.DataFrame:
    """Return the target columns, one row per example; no columns if the target is the class."""
    labels, values = [one.found.label for one in kept], [one.found.targets for one in kept]
    table = of_task(settings.task).table(labels, values, settings.targets or ())
    named = {TARGET + name: column for name, column in table.items()}
    return pd.DataFrame(named, index=range(len(kept)), dtype=float)


def origins(kept: list[Checked], manifest: pd.DataFrame, settings: IngestParams) -> dict[str, str]:
    """Return the origin of val and of test: `DRAWN` unless the source assigned some examples.

    Examples of the source's train split that `split` moved elsewhere count as drawn.
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


def fate_of_splits(given: set[str], sizes: dict[str, float]) -> dict[str, str | dict[str, float]]:
    """Map each split of the source to a split, or to split sizes from which one is drawn.

    If the source has only train, all three splits are drawn from it. If it has train and one more
    split (val or test), the latter becomes the test split, and validation examples are drawn from
    train. Otherwise, splits stay as they are. Examples without a split (the key "") are drawn.
    """
    fates: dict[str, str | dict[str, float]] = {"": sizes, **{name: name for name in given}}
    if given == {"train"}:
        fates["train"] = sizes
    elif len(given) == 2 and "train" in given:
        (held_out,) = given - {"train"}
        print(
            f"ingest: the source has only train and {held_out}: {held_out} is used as test, and val"
            " is drawn from train"
        )
        rest = sizes["train"] + sizes["val"]
        fates[held_out] = "test"
        fates["train"] = {name: sizes[name] / rest for name in ("train", "val")}
    return fates

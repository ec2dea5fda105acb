"""Stable splits: each example's split is drawn from its own content, or its group's name."""

import pandas as pd

from ..core.params import IngestParams
from ..kinds import Kind
from ..tables.draw import draw
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
from .checked import Checked

# Sources whose test split is from other places than their training examples.
BY_PLACE = ("surfaces",)


def split(
    kept: list[Checked], settings: IngestParams, kind: Kind, slices: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Return the manifest: one row per example, with the source's split or one drawn from content.

    The target columns follow those of the kind, and the columns `slices` of the source come last.
    """
    given = {found.split for found, _, _ in kept} - {""}
    learned = _learned(kept, settings)
    fates = fate_of_splits(given, settings.shares.model_dump())
    # If the source gives a split to some of a group, the rest of the group follows.
    places = {found.group: found.split for found, _, _ in kept if found.group and found.split}
    rows = []
    for (found, digest, seen), values in zip(kept, learned.to_numpy(), strict=True):
        fate = fates[found.split or places.get(found.group, "")]
        drawn = fate if isinstance(fate, str) else draw(found.group or digest, fate, settings.seed)
        rows.append(
            (
                *(digest, found.path.as_posix(), found.label, drawn),
                *(*seen, found.group, *values, *found.slices),
            )
        )
    columns = ["digest", "path", "label", "split", *kind.columns, "group", *learned.columns]
    columns += [SLICE + name for name in slices]
    manifest = pd.DataFrame(rows, columns=columns).sort_values("path", ignore_index=True)
    # A column of the kind that is empty for every example is dropped.
    silent = [name for name in kind.columns if rows and (manifest[name] == "").all()]
    return manifest.drop(columns=silent)


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
    """Return the target columns, one row per example; empty if the target is the class."""
    labels, values = [one.found.label for one in kept], [one.found.targets for one in kept]
    table = of_task(settings.task).table(labels, values, settings.targets or ())
    named = {TARGET + name: column for name, column in table.items()}
    return pd.DataFrame(named, index=range(len(kept)), dtype=float)


def origins(kept: list[Checked], manifest: pd.DataFrame, settings: IngestParams) -> dict[str, str]:
    """Return where val and test come from: `DRAWN`, or another origin if the source assigned any.

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

    Three splits stay as they are. If there are train and one other split (val or test), the other
    is the test split, and validation examples are drawn from train. If there is only train, all
    three are drawn from it. Examples without a split (the key "") are always drawn.
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

"""What is learned of each example: its class, or a value for each output.

The manifest has the label as a text for each task. Unless an example has exactly one class, it has
a column `target:<name>` for each output besides: of a label 1, 0 or NaN (unknown), or the number
itself. How a task reads and checks them is the part `targets` of its folder.
"""

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.errors import DataError
from ..tasks import part
from .labels import class_names, listed
from .manifest import SPLITS, TARGET

MANY_LABELS = 20  # so many classes of which most have one example are rather numbers


def names(manifest: pd.DataFrame) -> list[str]:
    """The names of a head's outputs, in their order.

    For one label they are the classes, sorted; else the labels or the numbers by their names.

    Raises:
        DataError: nothing can be learned from what the training examples have.
    """
    return target_names(manifest) or class_names(manifest)


def target_names(manifest: pd.DataFrame) -> list[str]:
    """The names of the manifest's targets; none if one label is learned."""
    columns = [name for name in manifest.columns if name.startswith(TARGET)]
    return [name.removeprefix(TARGET) for name in columns]


def of(rows: pd.DataFrame, names: Sequence[str]) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    """What is to be learned of rows of a manifest.

    Args:
        rows: n of them.
        names: as `names` gives them, of the whole manifest.

    Returns:
        for one label the position of each one's class, [n]; else [n, c]: for several labels 1, 0 or
        NaN where it is unknown, for numbers these.

    Raises:
        DataError: a label is not among the names, or the manifest has other targets.
    """
    have = target_names(rows)
    if not have:
        return _positions(rows["label"], names)
    if have != list(names):
        raise DataError(
            f"the manifest has the targets {listed(have)} and the head answers {listed(names)};"
            " run the train stage again"
        )
    values: npt.NDArray[np.float64] = rows[[TARGET + n for n in have]].to_numpy(dtype=np.float64)
    return values


def _positions(labels: pd.Series, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    positions: npt.NDArray[np.int64] = pd.Index(classes).get_indexer(pd.Index(labels))
    if (positions < 0).any():
        stranger = labels.iloc[int(np.argmin(positions))]
        raise DataError(
            f"the label {stranger!r} is not among the classes {', '.join(classes)}; "
            "run the train stage again"
        )
    return positions.astype(np.int64)


class Targets(Protocol):
    """How a task reads, checks and counts what is to be learned."""

    def read(
        self, label: str, columns: Sequence[str], cells: Sequence[str]
    ) -> tuple[str, tuple[float, ...]]:
        """The label of an example as in the manifest, and the values of its targets.

        Args:
            label: as in the source.
            columns: `ingest.targets`, the columns of a table that are to be learned.
            cells: what they hold.

        Raises:
            ValueError: why nothing can be learned from the example.
        """

    def table(
        self, labels: Sequence[str], values: Sequence[tuple[float, ...]], columns: Sequence[str]
    ) -> dict[str, list[float]]:
        """The targets of n examples by name, of what `read` gave for each."""

    def require(self, manifest: pd.DataFrame, source: str) -> None:
        """Check that a head can learn the labels or targets from the training examples.

        Args:
            manifest: all examples.
            source: what messages call the place where the examples are from.

        Raises:
            DataError: an output of a head cannot be learned from them.
        """

    def taught(
        self, manifest: pd.DataFrame
    ) -> tuple[pd.DataFrame, list[str], list[tuple[str, str]]]:
        """The manifest without the outputs that cannot be learned from the training examples.

        If nothing would remain, nothing is left out: `require` says what is wrong.

        Returns:
            the manifest, the outputs that are left out, and of each example that is left out its
            path and why.
        """

    def counts(self, manifest: pd.DataFrame) -> pd.DataFrame:
        """How many examples speak for each output, by name, in each split that has examples."""


def of_task(task: str) -> Targets:
    """What the task of that name brings for its targets."""
    return cast(Targets, part(task, "targets"))


def lacking(task: str, manifest: pd.DataFrame) -> dict[str, list[str]]:
    """For each split, the outputs for which none of its examples speaks, if there are any."""
    counts = of_task(task).counts(manifest).reindex(columns=SPLITS, fill_value=0)
    gaps = {split: counts.index[counts[split] == 0].tolist() for split in SPLITS}
    return {split: gap for split, gap in gaps.items() if gap}


def stop_at_numbers(labels: list[str], given: int) -> None:
    """Stop if the labels are measured values and not names.

    Numbers may well be names (digits, house numbers), so long as they come again: `given` is how
    often examples have one.
    """
    if len(labels) <= MANY_LABELS or 2 * len(labels) <= given:
        return
    try:
        values = [float(label) for label in labels]
    except ValueError:
        return
    first = ", ".join(f"{label}" for label, _ in zip(labels, range(3), strict=False))
    raise DataError(
        f"the labels are {len(values)} different numbers ({first}, …) where classes are expected;"
        " to learn numbers, set ingest.task to regression"
    )

"""The targets of each example: its class, or a value for each output.

In every task, the manifest has the label as text. In multi-label tasks and regression it also has a
column `target:<name>` for each output: 1, 0 or NaN (unknown) for a label, or the number itself.
The module `targets` in the folder of a task reads and checks them.
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

MANY_LABELS = 20  # more labels than this, most of them without repetition, are probably numbers


def names(manifest: pd.DataFrame) -> list[str]:
    """Return the names of a head's outputs, in their order.

    With one label per example these are the sorted classes, else the names of the targets.

    Raises:
        DataError: nothing can be learned from the labels of the training examples.
    """
    return target_names(manifest) or class_names(manifest)


def target_names(manifest: pd.DataFrame) -> list[str]:
    """Return the names of the manifest's targets; empty with one label per example."""
    columns = [name for name in manifest.columns if name.startswith(TARGET)]
    return [name.removeprefix(TARGET) for name in columns]


def of(rows: pd.DataFrame, names: Sequence[str]) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    """Return the targets of rows of a manifest.

    Args:
        rows: n rows of the manifest.
        names: as returned by `names` for the whole manifest.

    Returns:
        with one label per example, the position of each row's class, [n]; else [n, c]: in
        multi-label tasks 1, 0 or NaN (unknown), in regression the targets.

    Raises:
        DataError: a label is not among the names, or the manifest has different targets.
    """
    have = target_names(rows)
    if not have:
        return _positions(rows["label"], names)
    if have != list(names):
        raise DataError(
            f"the manifest has the targets {listed(have)}, but the head predicts {listed(names)};"
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
    """The functions by which a task reads, checks and counts its targets."""

    def read(
        self, label: str, columns: Sequence[str], cells: Sequence[str]
    ) -> tuple[str, tuple[float, ...]]:
        """Return the label of an example for the manifest, and the values of its targets.

        Args:
            label: as in the source.
            columns: `ingest.targets`, the names of the target columns.
            cells: the example's cells in these columns.

        Raises:
            ValueError: nothing can be learned from the example; the text says why.
        """

    def table(
        self, labels: Sequence[str], values: Sequence[tuple[float, ...]], columns: Sequence[str]
    ) -> dict[str, list[float]]:
        """Return the targets of n examples by name, from what `read` returned for each."""

    def require(self, manifest: pd.DataFrame, source: str) -> None:
        """Check that a head can learn the labels or targets from the training examples.

        Args:
            source: the name of the examples' source, for messages.

        Raises:
            DataError: an output of the head cannot be learned from the examples.
        """

    def taught(
        self, manifest: pd.DataFrame
    ) -> tuple[pd.DataFrame, list[str], list[tuple[str, str]]]:
        """Drop the outputs that cannot be learned from the training examples.

        If no output would remain, none is dropped, and `require` raises the error.

        Returns:
            the manifest, the dropped outputs, and the path of each dropped example with the reason.
        """

    def counts(self, manifest: pd.DataFrame) -> pd.DataFrame:
        """Count the examples of each output, by name, in each split that has examples."""


def of_task(task: str) -> Targets:
    """Return the module `targets` of a task."""
    return cast(Targets, part(task, "targets"))


def lacking(task: str, manifest: pd.DataFrame) -> dict[str, list[str]]:
    """Return for each split the outputs without examples; a split that lacks none is left out."""
    counts = of_task(task).counts(manifest).reindex(columns=SPLITS, fill_value=0)
    gaps = {split: counts.index[counts[split] == 0].tolist() for split in SPLITS}
    return {split: gap for split, gap in gaps.items() if gap}


def stop_at_numbers(labels: list[str], given: int) -> None:
    """Raise `DataError` if the labels look like measured values rather than names.

    Numbers that repeat may be names (digits, house numbers). `labels` are the different labels, and
    `given` is how many labels the examples have altogether.
    """
    if len(labels) <= MANY_LABELS or 2 * len(labels) <= given:
        return
    try:
        values = [float(label) for label in labels]
    except ValueError:
        return
    first = ", ".join(f"{label}" for label, _ in zip(labels, range(3), strict=False))
    raise DataError(
        f"the labels are {len(values)} different numbers ({first}, …), but classes are expected;"
        " to predict numbers, set ingest.task to regression"
    )

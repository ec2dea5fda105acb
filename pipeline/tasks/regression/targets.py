"""The regression targets of each example: its label, or columns of a table."""

import math
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ...core.errors import DataError
from ...tables.manifest import TARGET
from ...tables.targets import of, target_names

COMMA = re.compile(r"[+-]?\d+,\d+")
LARGEST = float(np.finfo(np.float32).max)
# The mean of a target may be this many standard deviations from 0, because heads are float32.
FARTHEST = 1e5


class NumberTargets:
    """Implements `Targets` for regression."""

    def read(
        self, label: str, columns: Sequence[str], cells: Sequence[str]
    ) -> tuple[str, tuple[float, ...]]:
        """Return the targets as a text, and their values."""
        texts, names = (cells, columns) if columns else ([label], [""])
        values = tuple(number(name, text) for name, text in zip(names, texts, strict=True))
        return shown(names, values), values

    def table(
        self, labels: Sequence[str], values: Sequence[tuple[float, ...]], columns: Sequence[str]
    ) -> dict[str, list[float]]:
        """Return the columns that `read` returned; a target from the label is called `target`."""
        names = columns or ["target"]
        return {name: [of_one[n] for of_one in values] for n, name in enumerate(names)}

    def require(self, manifest: pd.DataFrame, source: str) -> None:
        """Check that training examples differ in every target, beyond the precision of heads."""
        train = manifest[manifest["split"] == "train"]
        if not len(train):
            raise DataError("there is no training example; check ingest.shares or the folders")
        names = target_names(manifest)
        for name, column in zip(names, of(train, names).T, strict=True):
            what = f"the target {name}" if len(names) > 1 else "the target"
            if (column == column[0]).all():
                raise DataError(
                    f"{what} is {column[0]:g} in all {len(column)} training examples, so nothing"
                    " can be learned from it"
                )
            if abs(column.mean()) > FARTHEST * column.std():
                raise DataError(
                    f"{what} varies by {column.std():.3g} around {column.mean():.10g},"
                    " and a head computes with seven digits; subtract a constant from the column"
                )

    def taught(
        self, manifest: pd.DataFrame
    ) -> tuple[pd.DataFrame, list[str], list[tuple[str, str]]]:
        """Return the whole manifest, because regression never leaves out targets."""
        return manifest, [], []

    def counts(self, manifest: pd.DataFrame) -> pd.DataFrame:
        """Return for how many examples each target is known."""
        names = target_names(manifest)
        values = manifest[[TARGET + name for name in names]].set_axis(names, axis="columns")
        return values.notna().groupby(manifest["split"]).sum().T


def number(name: str, text: str) -> float:
    """Return the number in a cell of a table.

    Raises:
        ValueError: the cell has no number, or nothing can be learned from the number.
    """
    text = text.strip()
    what = f"the target {name}" if name else "the target"
    if not text:
        raise ValueError(f"{what} is empty")
    try:
        value = float(text.replace("_", "no digit"))  # Python itself reads 1_000
    except ValueError:
        hint = ""
        if COMMA.fullmatch(text):
            hint = f": write {text.replace(',', '.')}, with a point"
        raise ValueError(f"{what} is {text!r:.40}, which is not a number{hint}") from None
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError(f"{what} is {text!r:.40}, which is not a finite 32-bit number")
    return value


def shown(names: Sequence[str], values: Sequence[float]) -> str:
    """Return the targets as one text, which is the label in the manifest."""
    if len(values) == 1:
        return f"{values[0]:.6g}"
    return ", ".join(f"{name}={value:.6g}" for name, value in zip(names, values, strict=True))


PART = NumberTargets()

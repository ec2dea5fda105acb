"""The labels of each example: one text with separators, or one column per label."""

import math
import re
from collections.abc import Sequence

import pandas as pd

from ...core.errors import DataError
from ...tables.labels import ALL_AT_MOST, listed
from ...tables.manifest import TARGET
from ...tables.targets import of, stop_at_numbers, target_names
from ..record import SEPARATOR

# The cells for a label that an example has, and for a label that it lacks.
YES = re.compile(r"1(\.0*)?|true", re.IGNORECASE)
NO = re.compile(r"0(\.0*)?|false", re.IGNORECASE)
CELLS = {"1": 1.0, "0": 0.0, "": math.nan}  # the usual cells


class LabelTargets:
    """Implements `Targets` for multi-label tasks."""

    def read(
        self, label: str, columns: Sequence[str], cells: Sequence[str]
    ) -> tuple[str, tuple[float, ...]]:
        """Return the labels as one text, and the values of columns (1, 0 or NaN)."""
        if not columns:
            return SEPARATOR.join(labels_in(label)), ()
        values = tuple(presence(name, text) for name, text in zip(columns, cells, strict=True))
        if all(map(math.isnan, values)):
            raise ValueError("none of its labels is known")
        return joined(columns, values), values

    def table(
        self, labels: Sequence[str], values: Sequence[tuple[float, ...]], columns: Sequence[str]
    ) -> dict[str, list[float]]:
        """Return the columns that `read` returned, or one for each label that occurs in a text."""
        if columns:
            return {name: [of_one[n] for of_one in values] for n, name in enumerate(columns)}
        of_each = [set(text.split(SEPARATOR)) for text in labels]
        names = sorted(set().union(*of_each))
        return {name: [float(name in there) for there in of_each] for name in names}

    def require(self, manifest: pd.DataFrame, source: str) -> None:
        """Check that each label has positive and negative training examples."""
        if not (manifest["split"] == "train").any():
            raise DataError("there is no training example; check ingest.shares or the folders")
        known = target_names(manifest)
        stop_at_numbers(known, int((of(manifest, known) == 1).sum()))
        for words, absent in _absent(manifest).items():
            noun, it = ("label", "it") if len(absent) == 1 else (f"{len(absent)} labels", "them")
            raise DataError(
                f"no training example {words} the {noun} {listed(absent, ALL_AT_MOST)}, so nothing"
                f" can be learned from {it}; add such examples, try another ingest.seed, or leave"
                f" {it} out (ingest.classes_without_training)"
            )

    def taught(
        self, manifest: pd.DataFrame
    ) -> tuple[pd.DataFrame, list[str], list[tuple[str, str]]]:
        """Leave out the labels that no training example has, or that none is known to lack.

        An example keeps its remaining labels. It is left out if none of them is known.
        """
        out = sorted({name for absent in _absent(manifest).values() for name in absent})
        rest = [name for name in target_names(manifest) if name not in out]
        if not out or not rest or not (manifest["split"] == "train").any():
            return manifest, [], []
        stays = manifest[[TARGET + name for name in rest]].notna().any(axis=1)
        why = "none of its known labels can be learned"
        kept = manifest[stays].reset_index(drop=True)
        kept = kept.drop(columns=[TARGET + name for name in out])
        kept["label"] = [joined(rest, values) for values in of(kept, rest).tolist()]
        return kept, out, [(path, why) for path in manifest["path"][~stays]]

    def counts(self, manifest: pd.DataFrame) -> pd.DataFrame:
        """Return the number of examples that have each label."""
        names = target_names(manifest)
        values = manifest[[TARGET + name for name in names]].set_axis(names, axis="columns")
        return (values == 1).groupby(manifest["split"]).sum().T


def labels_in(text: str) -> list[str]:
    """Return the labels of an example, sorted, from a text in which they are separated.

    Raises:
        ValueError: the text is not a list of labels.
    """
    labels = [" ".join(label.split()) for label in text.split(SEPARATOR)]
    if not any(labels):
        raise ValueError(
            "an empty list of labels; to say that an example has none, give each label a column"
            " (ingest.targets)"
        )
    if not all(labels):
        raise ValueError(f"an empty label beside a {SEPARATOR} in {text!r:.80}")
    return sorted(set(labels))


def presence(name: str, text: str) -> float:
    """Return whether an example has a label (1 or 0), from a table's cell; NaN if it is empty.

    Raises:
        ValueError: the cell has neither value.
    """
    if text in CELLS:
        return CELLS[text]
    text = text.strip()
    if not text or text.casefold() == "nan":
        return math.nan
    if YES.fullmatch(text) or NO.fullmatch(text):
        return float(YES.fullmatch(text) is not None)
    raise ValueError(f"the label {name} is {text!r:.40}, which should be 1, 0 or empty")


def joined(names: Sequence[str], values: Sequence[float]) -> str:
    """Return the labels that an example has as one text, as in the manifest."""
    return SEPARATOR.join(sorted(n for n, value in zip(names, values, strict=True) if value == 1))


def _absent(manifest: pd.DataFrame) -> dict[str, list[str]]:
    """Return the labels that no training example has, and those that none is known to lack."""
    known, train = target_names(manifest), manifest[manifest["split"] == "train"]
    values = of(train, known)
    found = {
        words: [n for n, col in zip(known, values.T, strict=True) if not (col == value).any()]
        for value, words in ((1, "has"), (0, "lacks"))
    }
    return {words: absent for words, absent in found.items() if absent}


PART = LabelTargets()

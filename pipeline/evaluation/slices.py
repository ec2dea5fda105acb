"""Metrics by slice: the examples that share a value in a further column of the user's table.

A slice is compared with all other test examples, by Fisher's exact test (1922) of right and wrong
predictions, or in regression by the test of Mann and Whitney (1947) of the absolute errors. With
many slices it is likely that one looks bad by chance, so the p-values are corrected for the number
of slices (Holm, 1979). The intervals are Wilson's (1927), which have a width even if all
predictions of a small slice are right, and Student's (1908) for a mean absolute error. If examples
come in groups, the test permutes whole groups (`regrouped.py`), and both intervals use the variance
between groups.
"""

from collections.abc import Callable
from types import ModuleType
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from . import figure, measure, regrouped, spelt
from .intervals import Groups, mean_interval, wilson

COLUMNS = [
    "column", "value", "examples", "accuracy", "low", "high", "other_accuracy", "p_value",
    "corrected_p_value",
]  # fmt: skip
EMPTY = "(empty)"  # the value of an example whose cell is empty


def slice_table(
    slices: pd.DataFrame,
    correct: npt.NDArray[np.bool_],
    confidence: float,
    name: str = "accuracy",
    groups: Groups | None = None,
) -> pd.DataFrame:
    """Return one row per slice; slices worse than the rest come first, by p-value.

    A slice that cannot be compared, because its column has one value, has neither p-values nor the
    accuracy of the rest. A slice with too few groups for a test has no p-values.

    Args:
        slices: one row per test example, with the columns of the user's table.
        correct: [n], whether each prediction is correct.
        name: name of the fraction of correct predictions.
        groups: [n], the group of each example; None if each is its own group.
    """

    def ends(inside: npt.NDArray[np.bool_]) -> tuple[float, float]:
        return wilson(correct[inside], confidence, None if groups is None else groups[inside])

    def p_value(inside: npt.NDArray[np.bool_]) -> float:
        if groups is not None:
            return regrouped.p_value(correct.astype(np.float64), inside, groups)
        counts = [
            [int(correct[side].sum()), int((~correct[side]).sum())] for side in (inside, ~inside)
        ]
        return float(stats().fisher_exact(counts).pvalue)

    return _compared(slices, correct, name, ends, p_value, lower_is_better=False)


def slice_errors(
    slices: pd.DataFrame,
    errors: npt.NDArray[np.float64],
    confidence: float,
    groups: Groups | None = None,
) -> pd.DataFrame:
    """Return the table of slices for regression, by the mean absolute error.

    Args:
        slices: one row per test example, with the columns of the user's table.
        errors: [n], the absolute error of each example; the mean over targets if there are several.
        groups: [n], the group of each example; None if each is its own group.
    """

    def ends(inside: npt.NDArray[np.bool_]) -> tuple[float, float]:
        of_inside = None if groups is None else groups[inside]
        low, high = mean_interval(errors[inside], confidence, of_inside)
        return max(0.0, low) if low == low else low, high

    def p_value(inside: npt.NDArray[np.bool_]) -> float:
        if groups is not None:
            return regrouped.p_value(errors, inside, groups)
        return float(stats().mannwhitneyu(errors[inside], errors[~inside]).pvalue)

    return _compared(slices, errors, "mae", ends, p_value, lower_is_better=True)


def stats() -> ModuleType:
    """Return `scipy.stats`; the import takes a second, and most tables do not need it."""
    from scipy import stats

    return cast(ModuleType, stats)


def _compared(
    slices: pd.DataFrame,
    figures: npt.NDArray[np.bool_] | npt.NDArray[np.float64],
    name: str,
    ends: Callable[[npt.NDArray[np.bool_]], tuple[float, float]],
    p_value: Callable[[npt.NDArray[np.bool_]], float],
    lower_is_better: bool,
) -> pd.DataFrame:
    """Return the table of slices, by the mean of `figures` [n] in each."""
    columns = [*COLUMNS]
    columns[3], columns[6] = name, f"other_{name}"
    if slices.empty:
        return pd.DataFrame(columns=columns)
    rows: list[dict[str, object]] = []
    compared: list[bytes] = []
    for column in slices:
        values = slices[column].replace("", EMPTY)
        for value in sorted(values.unique()):
            inside = (values == value).to_numpy()
            examples, total = int(inside.sum()), figures[inside].sum()
            low, high = ends(inside)
            row = {"column": column, "value": value, "examples": examples}
            row |= {name: total / examples, "low": low, "high": high}
            if others := len(figures) - examples:
                row[f"other_{name}"] = figures[~inside].sum() / others
                row["p_value"] = found = p_value(inside)
                # The two slices of a column with two values are one comparison.
                key = (inside if inside[0] else ~inside).tobytes()
                compared.append(b"" if np.isnan(found) else key)
            else:
                compared.append(b"")
            rows.append(row)
    table = pd.DataFrame(rows, columns=columns)
    tested = table["p_value"].notna()
    p_of = dict(zip(compared, table["p_value"], strict=True))
    p_of.pop(b"", None)
    corrected = dict(zip(p_of, holm(np.array(list(p_of.values()), dtype=float)), strict=True))
    table.loc[tested, "corrected_p_value"] = [corrected[key] for key in compared if key]
    own, other = table[name], table[f"other_{name}"]
    better = ~(own > other if lower_is_better else own < other)
    order = table.assign(better=better).sort_values(
        ["better", "p_value", "column", "value"], kind="stable"
    )
    return order[columns]


def holm(p_values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return p-values corrected for their number by Holm's step-down procedure."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    stepped = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1)
    corrected = np.empty_like(p_values)
    corrected[order] = stepped
    return corrected


def worst(table: pd.DataFrame) -> str:
    """Return a sentence about the first tested row of a table of slices; empty if there is none.

    A second sentence counts the slices that were not tested.
    """
    name = str(table.columns[3])
    tested = table["p_value"].notna()
    untested = int((table[f"other_{name}"].notna() & ~tested).sum())
    text = _worst(table[tested], name) if tested.any() else ""
    if not untested:
        return text
    which = "slice was" if untested == 1 else "slices were"
    few = f"{untested} {which} not tested: too few groups."
    return f"{text} {few}".strip()


def _worst(table: pd.DataFrame, name: str) -> str:
    """Return the sentence for a table in which all slices were tested."""
    row = table.iloc[0]
    value, other = row[name], row[f"other_{name}"]
    if value == other or (value < other) == measure(name).lower_is_better:
        return "No slice is worse than the rest."
    text = (
        f"The worst slice is {row['column']} = {row['value']}: {spelt(name)}"
        f" {figure(name, value)} on {row['examples']} test examples, {figure(name, other)} on the"
        f" others (p = {row['corrected_p_value']:.2g}, corrected for the number of slices)."
    )
    return text if row["corrected_p_value"] <= 0.05 else f"{text} That may be chance."

"""Figures by slice: by each value of each further column of the user's table.

A slice is compared with all other test examples, by Fisher's exact test (1922) of right and wrong.
The more slices, the likelier one looks bad by chance, so the p-values are corrected for their
number (Holm, 1979). The intervals are Wilson's (1927), which have a width where all answers of a
small slice are right.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

COLUMNS = [
    "column", "value", "examples", "accuracy", "low", "high", "other_accuracy", "p_value",
    "corrected_p_value",
]  # fmt: skip
EMPTY = "(empty)"  # the value of an example whose cell is empty


def slice_table(
    slices: pd.DataFrame, correct: npt.NDArray[np.bool_], confidence: float
) -> pd.DataFrame:
    """A row a slice, the worst first: lower accuracy than the rest's, and the surest of it.

    What cannot be compared (a column of one value) has neither `other_accuracy` nor p-values.

    Args:
        slices: a row a test example, a column for each of the user's.
        correct: [n], whether each was answered correctly.
        confidence: of the intervals.
    """
    if slices.empty:
        return pd.DataFrame(columns=COLUMNS)
    from scipy import stats  # takes a second to import, and most tables have no such column

    rows: list[dict[str, object]] = []
    compared: list[bytes] = []
    for column in slices:
        values = slices[column].replace("", EMPTY)
        for value in sorted(values.unique()):
            inside = (values == value).to_numpy()
            examples, right = int(inside.sum()), int(correct[inside].sum())
            ends = stats.binomtest(right, examples).proportion_ci(confidence, method="wilson")
            row = {"column": column, "value": value, "examples": examples}
            row |= {"accuracy": right / examples, "low": ends.low, "high": ends.high}
            if others := len(correct) - examples:
                right_elsewhere = int(correct.sum()) - right
                row["other_accuracy"] = right_elsewhere / others
                counts = [[right, examples - right], [right_elsewhere, others - right_elsewhere]]
                row["p_value"] = float(stats.fisher_exact(counts).pvalue)
                # Both halves of a column of two values are one comparison.
                compared.append((inside if inside[0] else ~inside).tobytes())
            else:
                compared.append(b"")
            rows.append(row)
    table = pd.DataFrame(rows, columns=COLUMNS)
    tested = table["p_value"].notna()
    p_of = dict(zip(compared, table["p_value"], strict=True))
    p_of.pop(b"", None)
    corrected = dict(zip(p_of, holm(np.array(list(p_of.values()), dtype=float)), strict=True))
    table.loc[tested, "corrected_p_value"] = [corrected[key] for key in compared if key]
    better = ~(table["accuracy"] < table["other_accuracy"])
    order = table.assign(better=better).sort_values(
        ["better", "p_value", "column", "value"], kind="stable"
    )
    return order[COLUMNS]


def holm(p_values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """P-values corrected for their number by Holm's step-down procedure."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    stepped = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1)
    corrected = np.empty_like(p_values)
    corrected[order] = stepped
    return corrected


def worst(table: pd.DataFrame) -> str:
    """What `slice_table` says of its first row, in a sentence; empty where it has none."""
    if not len(table) or pd.isna(table["p_value"].iloc[0]):
        return ""
    row = table.iloc[0]
    if row["accuracy"] >= row["other_accuracy"]:
        return "No slice is below the rest."
    said = (
        f"The worst slice is {row['column']} = {row['value']}: accuracy {row['accuracy']:.4f} on"
        f" {row['examples']} test examples, {row['other_accuracy']:.4f} on the others"
        f" (p = {row['corrected_p_value']:.2g}, corrected for the number of slices)."
    )
    return said if row["corrected_p_value"] <= 0.05 else f"{said} That may be chance."

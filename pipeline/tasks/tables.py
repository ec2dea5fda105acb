"""Tables of one label's task: figures with intervals, classes, predictions and curves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import precision_recall_curve, roc_curve

from ..tables.features import Split
from .metrics import AT_ONCE, Array, Scores, interval

# Decimals in tables: more would only show how the machine rounds.
DIGITS = 6
# Classes; of more than these, a table has no longer a column or a curve for each.
MANY = 100
# The columns of `repeats.repeated`, of whose table there is a header where none is asked for.
OF_REPEATS = ["measure", "mean", "low", "high", "repeats", "given_split"]
DRAWN = 20  # curves where classes are many


def metrics(
    measured: Scores, resampled: Scores, confidence: float, examples: int
) -> dict[str, dict[str, Any]]:
    """What `reports/metrics.json` holds: measures under `test`, their ends under `interval`."""
    test: dict[str, Any] = {
        name: round(float(value[0]), DIGITS) for name, value in measured.overall.items()
    }
    ends = {}
    for name, values in resampled.overall.items():
        low, high = interval(values, confidence)
        ends[name] = {"low": round(float(low), DIGITS), "high": round(float(high), DIGITS)}
    return {"test": {**test, "pictures": examples}, "interval": ends}


def class_table(
    measured: Scores,
    resampled: Scores,
    confidence: float,
    test: Split,
    shares: Array,
    classes: list[str],
) -> pd.DataFrame:
    """A row a class; a measure that is not defined for it stays empty."""
    table: dict[str, Any] = {
        "class": classes,
        "pictures": np.bincount(test.labels, minlength=len(classes)),
        "predicted": np.bincount(shares.argmax(axis=1), minlength=len(classes)),
    }
    for name, values in measured.of_class.items():
        low, high = interval(resampled.of_class[name], confidence)
        undefined = np.isnan(values[0])
        table[name] = values[0]
        table[f"{name}_low"] = np.where(undefined, np.nan, low)
        table[f"{name}_high"] = np.where(undefined, np.nan, high)
    return pd.DataFrame(table)


def prediction_table(
    test: Split, shares: Array, classes: list[str], slices: pd.DataFrame, top_k: int
) -> pd.DataFrame:
    """A row an example, by path; the last columns are the probability of each class.

    Of more than `MANY` classes they are the `top_k` most probable ones and their probabilities.
    Before them stand the columns of the user's table, `slices`, which has a row an example too.
    """
    names, predicted = np.array(classes), shares.argmax(axis=1)
    table = pd.DataFrame(
        {
            "path": test.paths,
            "label": names[test.labels],
            "predicted": names[predicted],
            "probability": shares.max(axis=1),
            "correct": predicted == test.labels,
        }
    )
    if len(classes) > MANY:
        table["label_probability"] = shares[np.arange(len(shares)), test.labels]
        of_class = pd.DataFrame(_most_probable(shares, names, top_k))
    else:
        of_class = pd.DataFrame(shares, columns=[f"p({name})" for name in classes])
    return pd.concat([table, slices, of_class], axis=1).sort_values("path")


def _most_probable(shares: Array, names: npt.NDArray[np.str_], k: int) -> dict[str, Any]:
    """Columns `class_1`, `probability_1`, `class_2`, …; of equal ones the first class comes first.

    One search for the largest after the other: a sort would depend on how a processor sorts.
    """
    k = min(k, len(names))
    found = np.empty((len(shares), k), dtype=np.int64)
    for start in range(0, len(shares), _rows_at_once(shares)):
        some = slice(start, start + _rows_at_once(shares))
        left = shares[some].copy()
        for place in range(k):
            found[some, place] = left.argmax(axis=1)
            np.put_along_axis(left, found[some, place, None], -1, axis=1)
    columns: dict[str, Any] = {}
    for place in range(k):
        columns[f"class_{place + 1}"] = names[found[:, place]]
        columns[f"probability_{place + 1}"] = shares[np.arange(len(shares)), found[:, place]]
    return columns


def write_probabilities(file: Path, test: Split, shares: Array, classes: list[str]) -> None:
    """The probability (float32) of every class for every example, by path, as Parquet."""
    order = np.argsort(test.paths, kind="stable")
    names = np.array(classes)
    schema = pa.schema(
        [("path", pa.string()), ("label", pa.string())]
        + [(f"p({name})", pa.float32()) for name in classes]
    )
    with pq.ParquetWriter(file, schema, use_dictionary=False, write_statistics=False) as writer:
        for start in range(0, len(order), _rows_at_once(shares)):
            some = order[start : start + _rows_at_once(shares)]
            columns = [
                pa.array(test.paths[some].tolist()),
                pa.array(names[test.labels[some]].tolist()),
            ]
            columns += [pa.array(column) for column in shares[some].T.astype(np.float32)]
            writer.write_table(pa.table(columns, schema=schema))


def _rows_at_once(shares: Array) -> int:
    return max(1, AT_ONCE // int(shares.shape[1]))


def confusion_table(test: Split, shares: Array, classes: list[str]) -> pd.DataFrame:
    """A row an example, as DVC's `confusion` template counts them."""
    names = np.array(classes)
    table = pd.DataFrame({"actual": names[test.labels], "predicted": names[shares.argmax(axis=1)]})
    return table.sort_values(["actual", "predicted"])


def roc_table(test: Split, shares: Array, classes: list[str]) -> pd.DataFrame:
    """ROC curves, one class against the rest, and their macro mean over the classes.

    Of more than `MANY` classes the `DRAWN` of lowest recall have a curve; the mean is over all.
    """
    grid = np.linspace(0, 1, 101)
    tables, heights, drawn = [], [], set(_drawn(test, shares, classes))
    for name, is_class, given in _one_against_rest(test, shares, classes):
        false, true, _ = roc_curve(is_class, given)
        if name in drawn:
            tables.append(_curve(name, false_positive_rate=false, true_positive_rate=true))
        heights.append(np.interp(grid, false, true))
    if heights:
        mean = np.concatenate([[0], np.mean(heights, axis=0)])
        across = np.concatenate([[0], grid])
        macro = _curve("(macro mean)", false_positive_rate=across, true_positive_rate=mean)
        tables.append(macro)
    return _joined(tables, ["class", "false_positive_rate", "true_positive_rate"])


def precision_recall_table(test: Split, shares: Array, classes: list[str]) -> pd.DataFrame:
    """Precision-recall curves, one class against the rest, from high recall to low.

    Of more than `MANY` classes the `DRAWN` of lowest recall have one.
    """
    tables, drawn = [], set(_drawn(test, shares, classes))
    for name, is_class, given in _one_against_rest(test, shares, classes):
        if name not in drawn:
            continue
        precision, recall, _ = precision_recall_curve(is_class, given, drop_intermediate=True)
        tables.append(_curve(name, recall=recall, precision=precision))
    return _joined(tables, ["class", "recall", "precision"])


def _one_against_rest(
    test: Split, shares: Array, classes: list[str]
) -> Iterator[tuple[str, npt.NDArray[np.bool_], Array]]:
    """Name, membership and probability for each class that has both members and others."""
    for number, name in enumerate(classes):
        members = test.labels == number
        if 0 < members.sum() < len(test.labels):
            yield name, members, shares[:, number]


def _drawn(test: Split, shares: Array, classes: list[str]) -> list[str]:
    """The classes that have a curve: all, or of many those of lowest recall, by name if equal."""
    if len(classes) <= MANY:
        return classes
    right = shares.argmax(axis=1) == test.labels
    members = np.bincount(test.labels, minlength=len(classes))
    recall = np.bincount(test.labels, right, minlength=len(classes)) / np.maximum(members, 1)
    present = np.flatnonzero((members > 0) & (members < len(right)))
    return [classes[c] for c in present[np.argsort(recall[present], kind="stable")][:DRAWN]]


def _curve(name: str, **columns: Array) -> pd.DataFrame:
    return pd.DataFrame({"class": name, **columns})


def _joined(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(tables) if tables else pd.DataFrame(columns=columns)


def reliability_table(test: Split, shares: Array, bins: int) -> pd.DataFrame:
    """A row a bin of the winner's probability: how sure the head was, how often it was right."""
    confidence, correct = shares.max(axis=1), shares.argmax(axis=1) == test.labels
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    table = pd.DataFrame(
        {"bin": which, "confidence": confidence, "accuracy": correct.astype(float)}
    )
    means = table.groupby("bin").mean()
    means.insert(0, "pictures", table.groupby("bin").size())
    means.insert(0, "high", (means.index + 1) / bins)
    means.insert(0, "low", means.index / bins)
    return means

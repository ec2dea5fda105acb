"""Tables of one label's task: figures with intervals, classes, predictions and curves."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from ..tables.features import Split
from .metrics import Array, Scores, interval

# Decimals in tables: more would only show how the machine rounds.
DIGITS = 6


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
    test: Split, shares: Array, classes: list[str], slices: pd.DataFrame
) -> pd.DataFrame:
    """A row an example, by path; the last columns are the probability of each class.

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
    of_class = pd.DataFrame(shares, columns=[f"p({name})" for name in classes])
    return pd.concat([table, slices, of_class], axis=1).sort_values("path")


def confusion_table(test: Split, shares: Array, classes: list[str]) -> pd.DataFrame:
    """A row an example, as DVC's `confusion` template counts them."""
    names = np.array(classes)
    table = pd.DataFrame({"actual": names[test.labels], "predicted": names[shares.argmax(axis=1)]})
    return table.sort_values(["actual", "predicted"])


def roc_table(test: Split, shares: Array, classes: list[str]) -> pd.DataFrame:
    """ROC curves, one class against the rest, and their macro mean over the classes."""
    grid = np.linspace(0, 1, 101)
    tables, heights = [], []
    for name, is_class, given in _one_against_rest(test, shares, classes):
        false, true, _ = roc_curve(is_class, given)
        tables.append(_curve(name, false_positive_rate=false, true_positive_rate=true))
        heights.append(np.interp(grid, false, true))
    if heights:
        mean = np.concatenate([[0], np.mean(heights, axis=0)])
        across = np.concatenate([[0], grid])
        macro = _curve("(macro mean)", false_positive_rate=across, true_positive_rate=mean)
        tables.append(macro)
    return _joined(tables, ["class", "false_positive_rate", "true_positive_rate"])


def precision_recall_table(test: Split, shares: Array, classes: list[str]) -> pd.DataFrame:
    """Precision-recall curves, one class against the rest, from high recall to low."""
    tables = []
    for name, is_class, given in _one_against_rest(test, shares, classes):
        precision, recall, _ = precision_recall_curve(is_class, given, drop_intermediate=True)
        tables.append(_curve(name, recall=recall, precision=precision))
    return _joined(tables, ["class", "recall", "precision"])


def _one_against_rest(
    test: Split, shares: Array, classes: list[str]
) -> list[tuple[str, npt.NDArray[np.bool_], Array]]:
    """Name, membership and probability for each class that has both members and others."""
    memberships = [(name, test.labels == c, shares[:, c]) for c, name in enumerate(classes)]
    return [one for one in memberships if 0 < one[1].sum() < len(test.labels)]


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

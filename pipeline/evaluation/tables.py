"""Tables of the metrics of every task with their intervals, and tables for classification.

Tables that multi-label tasks have too, such as ROC curves, take arguments that both tasks have.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..tables.features import Split
from ..tables.figures import Metrics
from . import SHARE, measure
from .intervals import Groups, all_alike, expanded, wilson
from .metrics import AT_ONCE, Array, Scores, interval

# Decimals in tables; more would only show the machine's rounding errors.
DIGITS = 6
# With more classes than this, tables do not have a column or a curve for each class.
MANY = 100
# The columns of `repeats.repeated`; without repeats its table has only this header.
OF_REPEATS = ["measure", "mean", "low", "high", "repeats", "given_split"]
# The columns of prediction sets and prediction intervals.
OF_SETS = ["class", "examples", "coverage", "size"]
OF_SETS += ["randomised_coverage", "randomised_size", "empty"]
PROBABILITIES = "probabilities.parquet"  # among the plots, only if it is requested
DRAWN = 20  # curves if there are more than `MANY` classes


# A class to draw: its name, which examples belong to it, and its predicted probabilities.
OneAgainstRest = tuple[str, npt.NDArray[np.bool_], Array]


def metrics(
    measured: Scores,
    resampled: Scores,
    confidence: float,
    examples: int,
    proportions: Mapping[str, Array] | None = None,
    groups: Groups | None = None,
) -> Metrics:
    """Return the metrics and their intervals.

    A metric that is not defined is left out. A metric that is defined in no resample has no
    interval.

    Args:
        examples: n, the number of examples.
        proportions: metrics with Wilson's intervals, as `Measuring.proportions` returns them.
        groups: [n], the group of each example; None if each is its own group.
    """
    test: dict[str, float] = {}
    ends = {}
    for name, values in resampled.overall.items():
        value = float(measured.overall[name][0])
        if np.isnan(value):
            continue
        test[name] = _rounded(name, value)
        if proportions and name in proportions:
            counted = ~np.isnan(proportions[name])
            right, of_counted = proportions[name][counted] == 1, groups
            if groups is not None:
                of_counted = groups[counted]
            found = wilson(right, confidence, of_counted)
        else:
            column = values[:, None]
            low, high = _ends(name, column, np.array([examples]), confidence, groups)
            found = float(low[0]), float(high[0])
        if np.isfinite(found).all():
            ends[name] = {"low": _rounded(name, found[0]), "high": _rounded(name, found[1])}
    test["pictures"] = examples
    if groups is not None:
        test["groups"] = len(np.unique(groups))
    return Metrics(test, ends)


def _rounded(name: str, value: float) -> float:
    return float(f"{value:.{DIGITS}g}") if measure(name).has_unit else round(value, DIGITS)


def _ends(
    name: str,
    resampled: Array,
    examples: npt.NDArray[np.int64],
    confidence: float,
    groups: Groups | None,
) -> tuple[Array, Array]:
    """Return the ends [c] of a metric's intervals, from resamples [B, c].

    Ends that are not known are NaN or infinite.

    Args:
        examples: [c], how many examples the metric is measured on.
        groups: [n], the group of each test example; None if each is its own group.
    """
    means = measure(name)
    if groups is not None and len(np.unique(groups)) == 1:
        outputs = resampled.shape[1]
        return np.full(outputs, means.least), np.full(outputs, means.most)
    low, high = interval(resampled, expanded(confidence, groups))
    if means == SHARE:
        alike = (low == high) & np.isin(low, (0, 1))
        low[alike], high[alike] = all_alike(low[alike], examples[alike], confidence, groups)
    return low, high


def class_table(
    first: pd.DataFrame,
    measured: Scores,
    resampled: Scores,
    confidence: float,
    groups: Groups | None = None,
) -> pd.DataFrame:
    """Return one row per class, label or target; a metric that is not defined stays empty.

    Args:
        first: the columns before the metrics.
        groups: [n], the group of each test example; None if each is its own group.
    """
    table, examples = first.copy(), first["pictures"].to_numpy()
    if "recall" in measured.of_class:  # a precision of 1 is measured on the hits
        hits = np.nan_to_num(measured.of_class["recall"][0] * examples)
        examples = np.where(hits > 0, hits, examples)
    for name, values in measured.of_class.items():
        low, high = _ends(name, resampled.of_class[name], examples, confidence, groups)
        unknown = np.isnan(values[0]) | ~np.isfinite(low) | ~np.isfinite(high)
        table[name] = values[0]
        table[f"{name}_low"] = np.where(unknown, np.nan, low)
        table[f"{name}_high"] = np.where(unknown, np.nan, high)
    return table


def prediction_table(
    test: Split,
    probabilities: Array,
    predicted: npt.NDArray[np.int64],
    classes: list[str],
    slices: pd.DataFrame,
    top_k: int,
) -> pd.DataFrame:
    """Return one row per example, by path; the last columns are the probability of each class.

    `probability` is the probability of the class `predicted`. It is the largest one, unless classes
    were weighted in training.

    If there are more than `MANY` classes, the last columns are the `top_k` most probable classes
    and their probabilities. The columns of the user's table, `slices`, with one row per example,
    come before them.
    """
    names = np.array(classes)
    table = pd.DataFrame(
        {
            "path": test.paths,
            "label": names[test.labels],
            "predicted": names[predicted],
            "probability": probabilities[np.arange(len(probabilities)), predicted],
            "correct": predicted == test.labels,
        }
    )
    if len(classes) > MANY:
        table["label_probability"] = probabilities[np.arange(len(probabilities)), test.labels]
    of_class = of_each(probabilities, classes, top_k)
    return pd.concat([table, slices, of_class], axis=1).sort_values("path")


def of_each(probabilities: Array, classes: list[str], top_k: int) -> pd.DataFrame:
    """Return the probability of each class, or the `top_k` most probable if there are many."""
    if len(classes) > MANY:
        return pd.DataFrame(_most_probable(probabilities, np.array(classes), top_k))
    return pd.DataFrame(probabilities, columns=[f"p({name})" for name in classes])


def _most_probable(probabilities: Array, names: npt.NDArray[np.str_], k: int) -> dict[str, Any]:
    """Return columns `class_1`, `probability_1`, `class_2`, …; ties are in the order of `names`.

    The function calls `argmax` k times, because the result of a sort would depend on the processor.
    """
    k = min(k, len(names))
    found = np.empty((len(probabilities), k), dtype=np.int64)
    for start in range(0, len(probabilities), _rows_at_once(probabilities)):
        some = slice(start, start + _rows_at_once(probabilities))
        left = probabilities[some].copy()
        for place in range(k):
            found[some, place] = left.argmax(axis=1)
            np.put_along_axis(left, found[some, place, None], -1, axis=1)
    columns: dict[str, Any] = {}
    for place in range(k):
        columns[f"class_{place + 1}"] = names[found[:, place]]
        columns[f"probability_{place + 1}"] = probabilities[
            np.arange(len(probabilities)), found[:, place]
        ]
    return columns


def write_probabilities(
    folder: Path,
    paths: npt.NDArray[np.str_],
    labels: npt.NDArray[np.str_],
    probabilities: Array,
    classes: list[str],
) -> None:
    """Write the probability (float32) of every class for every example, by path, as Parquet."""
    order = np.argsort(paths, kind="stable")
    schema = pa.schema(
        [("path", pa.string()), ("label", pa.string())]
        + [(f"p({name})", pa.float32()) for name in classes]
    )
    with pq.ParquetWriter(
        folder / PROBABILITIES, schema, use_dictionary=False, write_statistics=False
    ) as writer:
        for start in range(0, len(order), _rows_at_once(probabilities)):
            some = order[start : start + _rows_at_once(probabilities)]
            columns = [
                pa.array(paths[some].tolist()),
                pa.array(labels[some].tolist()),
            ]
            columns += [pa.array(column) for column in probabilities[some].T.astype(np.float32)]
            writer.write_table(pa.table(columns, schema=schema))


def _rows_at_once(probabilities: Array) -> int:
    return max(1, AT_ONCE // int(probabilities.shape[1]))


def confusion_table(
    test: Split, predicted: npt.NDArray[np.int64], classes: list[str]
) -> pd.DataFrame:
    """Return one row per example, for DVC's template `confusion`, which counts them."""
    names = np.array(classes)
    table = pd.DataFrame({"actual": names[test.labels], "predicted": names[predicted]})
    return table.sort_values(["actual", "predicted"])


def _hits(is_class: npt.NDArray[np.bool_], given: Array) -> tuple[Array, Array]:
    """Count the false and true positives at each probability as threshold, in descending order."""
    order = np.argsort(given)[::-1]
    last = np.append(np.flatnonzero(np.diff(given[order])), len(given) - 1)  # of those that tie
    true = np.cumsum(is_class[order], dtype=np.float64)[last]
    return 1 + last - true, true


def _corners(differs: npt.NDArray[np.bool_], *curve: Array) -> list[Array]:
    """Select the ends of a curve, and the points between them where it `differs`."""
    kept = np.concatenate([[True], differs, [True]]) if len(curve[0]) > 2 else slice(None)
    return [values[kept] for values in curve]


def roc_curve(is_class: npt.NDArray[np.bool_], given: Array) -> tuple[Array, Array]:
    """Return the false and true positive rates of a class, without points on a straight line.

    Args:
        is_class: [n], whether each example belongs to the class; both values must occur.
        given: [n], the predicted probabilities.
    """
    false, true = _hits(is_class, given)
    false, true = _corners((np.diff(false, 2) != 0) | (np.diff(true, 2) != 0), false, true)
    return np.append(0, false / false[-1]), np.append(0, true / true[-1])


def precision_recall_curve(is_class: npt.NDArray[np.bool_], given: Array) -> tuple[Array, Array]:
    """Return precision and recall of a class, from high recall to low.

    The arguments are those of `roc_curve`. If points have the same recall, only the first and the
    last are kept.
    """
    false, true = _hits(is_class, given)
    false, true = _corners((np.diff(true[:-1]) != 0) | (np.diff(true[1:]) != 0), false, true)
    precision, recall = true / (true + false), true / true[-1]
    return np.append(precision[::-1], 1), np.append(recall[::-1], 0)


def roc_table(one_against_rest: Iterable[OneAgainstRest], drawn: Sequence[str]) -> pd.DataFrame:
    """Return ROC curves of the classes in `drawn`, and the macro mean over all classes."""
    grid = np.linspace(0, 1, 101)
    tables, heights, shown = [], [], set(drawn)
    for name, is_class, given in one_against_rest:
        false, true = roc_curve(is_class, given)
        if name in shown:
            tables.append(_curve(name, false_positive_rate=false, true_positive_rate=true))
        heights.append(np.interp(grid, false, true))
    if heights:
        mean = np.concatenate([[0], np.mean(heights, axis=0)])
        across = np.concatenate([[0], grid])
        macro = _curve("(macro mean)", false_positive_rate=across, true_positive_rate=mean)
        tables.append(macro)
    return _joined(tables, ["class", "false_positive_rate", "true_positive_rate"])


def precision_recall_table(
    one_against_rest: Iterable[OneAgainstRest], drawn: Sequence[str]
) -> pd.DataFrame:
    """Return precision-recall curves of the classes in `drawn`, from high recall to low."""
    tables, shown = [], set(drawn)
    for name, is_class, given in one_against_rest:
        if name not in shown:
            continue
        precision, recall = precision_recall_curve(is_class, given)
        tables.append(_curve(name, recall=recall, precision=precision))
    return _joined(tables, ["class", "recall", "precision"])


def one_against_rest(
    test: Split, probabilities: Array, classes: list[str]
) -> Iterator[OneAgainstRest]:
    """Yield each class that has some of the examples, but not all.

    Columns are copied some at a time, because each row of a large table is far from the next one.
    """
    counts = np.bincount(test.labels, minlength=len(classes))
    size = max(1, AT_ONCE // max(len(test.labels), 1))
    for start in range(0, len(classes), size):
        columns = np.ascontiguousarray(probabilities[:, start : start + size].T)
        for number, given in enumerate(columns, start):
            if 0 < counts[number] < len(test.labels):
                yield classes[number], test.labels == number, given


def drawn(test: Split, right: npt.NDArray[np.bool_], classes: list[str]) -> list[str]:
    """Return the classes to draw; if there are many, the lowest ones by recall (ties by name)."""
    if len(classes) <= MANY:
        return classes
    members = np.bincount(test.labels, minlength=len(classes))
    recall = np.bincount(test.labels, right, minlength=len(classes)) / np.maximum(members, 1)
    present = np.flatnonzero((members > 0) & (members < len(right)))
    return [classes[c] for c in present[np.argsort(recall[present], kind="stable")][:DRAWN]]


def _curve(name: str, **columns: Array) -> pd.DataFrame:
    return pd.DataFrame({"class": name, **columns})


def _joined(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(tables) if tables else pd.DataFrame(columns=columns)


def reliability_table(confidence: Array, correct: npt.NDArray[np.bool_], bins: int) -> pd.DataFrame:
    """Return one row per bin of predicted probability: its mean, and the observed accuracy.

    Args:
        confidence: the probability of each prediction.
        correct: whether each prediction is right.
    """
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    table = pd.DataFrame(
        {"bin": which, "confidence": confidence, "accuracy": correct.astype(float)}
    )
    means = table.groupby("bin").mean()
    means.insert(0, "pictures", table.groupby("bin").size())
    means.insert(0, "high", (means.index + 1) / bins)
    means.insert(0, "low", means.index / bins)
    return means

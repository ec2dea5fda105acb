"""Stage 5, evaluate: measure the head on the test pictures; metrics, tables and plots."""

import json
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from .core import command, params
from .core.errors import DataError
from .core.paths import (
    CLASSES,
    FEATURES,
    HEAD,
    HEAD_WEIGHTS,
    MANIFEST,
    METRICS,
    PLOTS,
    PREDICTIONS,
)
from .heads.head import load_head, probabilities
from .tables.features import Split, read_manifest, read_splits
from .tasks.metrics import Array, Scores, bootstrap, interval, scores

# Decimals in tables: more would only show how the machine rounds.
DIGITS = 6


def evaluate() -> None:
    """Ask the head about every test picture and write what came of it."""
    knobs = params.load().evaluate
    head, description = load_head(HEAD_WEIGHTS, HEAD)
    classes = description["classes"]
    manifest, power = read_manifest(MANIFEST), description["power"]
    test = read_splits(FEATURES, manifest, classes, ["test"], power)["test"]
    _check(test, head.dimension)
    _warn_of_absent(test, classes)

    shares = probabilities(head.logits(test.features), description["temperature"])
    measured = scores(test.labels, shares, knobs.top_k, knobs.calibration_bins)
    resampled = bootstrap(
        test.labels, shares, knobs.top_k, knobs.calibration_bins, knobs.bootstrap, knobs.seed
    )

    PLOTS.mkdir(parents=True, exist_ok=True)
    metrics = _metrics(measured, resampled, knobs.confidence, len(test.labels))
    METRICS.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    _write(CLASSES, _class_table(measured, resampled, knobs.confidence, test, shares, classes))
    _write(PREDICTIONS, _prediction_table(test, shares, classes))
    _write(PLOTS / "confusion.csv", _confusion_table(test, shares, classes))
    _write(PLOTS / "roc.csv", _roc_table(test, shares, classes))
    _write(PLOTS / "precision_recall.csv", _precision_recall_table(test, shares, classes))
    _write(PLOTS / "reliability.csv", _reliability_table(test, shares, knobs.calibration_bins))
    draw_confusion(test.labels, shares.argmax(axis=1), classes, PLOTS / "confusion_matrix.png")

    for name in ("accuracy", "loss"):
        low, high = metrics["interval"][name].values()
        print(
            f"evaluate: {name} {metrics['test'][name]:.4f} on {len(test.labels)} test pictures, "
            f"{100 * knobs.confidence:g} % interval {low:.4f} to {high:.4f}"
        )


def _check(test: Split, dimension: int) -> None:
    if not len(test.labels):
        raise DataError(
            f"{MANIFEST} has no test picture, so there is nothing to measure on; "
            "give ingest.shares.test more than 0, or a test folder, and run ingest again"
        )
    if test.features.shape[1] != dimension:
        raise DataError(
            f"the head in {HEAD_WEIGHTS} takes {dimension} numbers a picture but {FEATURES} has "
            f"{test.features.shape[1]}; run the train stage again"
        )


def _warn_of_absent(test: Split, classes: list[str]) -> None:
    absent = [name for number, name in enumerate(classes) if number not in test.labels]
    if absent:
        print(
            f"evaluate: warning: no test picture of {', '.join(absent)}; balanced accuracy and "
            "macro F1 are means over the other classes"
        )


def _metrics(
    measured: Scores, resampled: Scores, confidence: float, pictures: int
) -> dict[str, dict[str, Any]]:
    """What `reports/metrics.json` holds: measures under `test`, their ends under `interval`."""
    test: dict[str, Any] = {
        name: round(float(value[0]), DIGITS) for name, value in measured.overall.items()
    }
    ends = {}
    for name, values in resampled.overall.items():
        low, high = interval(values, confidence)
        ends[name] = {"low": round(float(low), DIGITS), "high": round(float(high), DIGITS)}
    return {"test": {**test, "pictures": pictures}, "interval": ends}


def _class_table(
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


def _prediction_table(test: Split, shares: Array, classes: list[str]) -> pd.DataFrame:
    """A row a picture, by path; the last columns are the probability of each class."""
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
    return pd.concat([table, of_class], axis=1).sort_values("path")


def _confusion_table(test: Split, shares: Array, classes: list[str]) -> pd.DataFrame:
    """A row a picture, as DVC's `confusion` template counts them."""
    names = np.array(classes)
    table = pd.DataFrame({"actual": names[test.labels], "predicted": names[shares.argmax(axis=1)]})
    return table.sort_values(["actual", "predicted"])


def _roc_table(test: Split, shares: Array, classes: list[str]) -> pd.DataFrame:
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


def _precision_recall_table(test: Split, shares: Array, classes: list[str]) -> pd.DataFrame:
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


def _reliability_table(test: Split, shares: Array, bins: int) -> pd.DataFrame:
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


@matplotlib.rc_context({"text.parse_math": False})  # a class may be called $a$
def draw_confusion(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: list[str], file: Path
) -> None:
    """A picture (PNG) of the counts, shaded by the share of each actual class.

    Cividis looks alike to every kind of colour vision (Nuñez et al., 2018).
    """
    counts = confusion_matrix(labels, predicted, labels=range(len(classes)))
    of_row = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Cells stay legible with many classes: the figure grows, up to what a page can hold.
    side = float(np.clip(2.5 + 0.45 * len(classes), 5, 22))
    size = float(np.clip(60 * side / (len(classes) + 6), 4, 11))
    figure = Figure(figsize=(side + 1, side), layout="constrained", dpi=100)
    axes = figure.add_subplot()
    image = axes.imshow(of_row, cmap="cividis", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "black" if of_row[row, column] > 0.5 else "white"
        count = counts[row, column]
        axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=size)
    positions = range(len(classes))
    axes.set_xticks(positions, classes, rotation=90, fontsize=size)
    axes.set_yticks(positions, classes, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    right = int(np.trace(counts))
    axes.set_title(f"{right} of {counts.sum()} test pictures right")
    figure.colorbar(image, label="share of the actual class", shrink=0.8)
    with warnings.catch_warnings():
        # Of letters that Matplotlib's font lacks; the report has the reader's own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, metadata={"Software": None})


def _write(file: Path, table: pd.DataFrame) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(file, index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")


if __name__ == "__main__":
    command.run(evaluate)

"""Stage 5, evaluate: measure the head on the test examples; metrics, tables and plots."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from . import kinds
from .core import command, memory, params
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
    PROBABILITIES,
    REPEATS,
    SETS,
    SETS_OF_BUNDLE,
    SLICES,
)
from .heads.head import Head, load_head
from .tables.features import Split, read_splits, view_0
from .tables.labels import listed, require
from .tables.manifest import SPLITS, read_manifest, slices
from .tasks import conformal, tables
from .tasks.metrics import bootstrap, scores
from .tasks.plots import draw_confusion
from .tasks.slices import slice_table, worst


def evaluate() -> None:
    """Ask the head about every test example and write what came of it."""
    settings = params.load(kinds.schema).evaluate
    head, description = load_head(HEAD_WEIGHTS, HEAD)
    classes = description["classes"]
    manifest, power = read_manifest(MANIFEST), description["power"]
    require(manifest, "evaluate")
    examples = int((manifest["split"] == "test").sum())
    memory.require(
        8 * len(classes) * (examples + 10 * settings.bootstrap),
        f"evaluate: {examples:,} test examples of {len(classes):,} classes",
        "put fewer examples into the test split, or lower evaluate.bootstrap",
    )
    test = read_splits(FEATURES, manifest, classes, ["test"], power)["test"]
    if test.features.shape[1] != head.dimension:
        raise DataError(
            f"the head in {HEAD_WEIGHTS} takes {head.dimension} numbers an example but {FEATURES}"
            f" has {test.features.shape[1]}; run the train stage again"
        )
    _warn_of_absent(test, classes)

    shares = head.answers(test.features, description["temperature"])
    top_k, bins, confidence = settings.top_k, settings.calibration_bins, settings.confidence
    measured = scores(test.labels, shares, top_k, bins)
    resampled = bootstrap(test.labels, shares, top_k, bins, settings.bootstrap, settings.seed)

    PLOTS.mkdir(parents=True, exist_ok=True)
    metrics = tables.metrics(measured, resampled, confidence, len(test.labels))
    METRICS.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    of_class = tables.class_table(measured, resampled, confidence, test, shares, classes)
    _write(CLASSES, of_class)
    of_test = slices(manifest.set_index("digest").loc[test.digests].reset_index(drop=True))
    _write(PREDICTIONS, tables.prediction_table(test, shares, classes, of_test, top_k))
    PROBABILITIES.unlink(missing_ok=True)
    if settings.all_probabilities:
        tables.write_probabilities(PROBABILITIES, test, shares, classes)
    by_slice = slice_table(of_test, shares.argmax(axis=1) == test.labels, confidence)
    _write(SLICES, by_slice)
    _write(PLOTS / "confusion.csv", tables.confusion_table(test, shares, classes))
    _write(PLOTS / "roc.csv", tables.roc_table(test, shares, classes))
    precision_recall = tables.precision_recall_table(test, shares, classes)
    _write(PLOTS / "precision_recall.csv", precision_recall)
    _write(PLOTS / "reliability.csv", tables.reliability_table(test, shares, bins))
    again = _repeated(manifest, description, counts=head.idf is not None)
    _write(REPEATS, again)
    sets = _calibrated(manifest, head, description)
    SETS_OF_BUNDLE.write_text(json.dumps(sets, indent=2) + "\n", encoding="utf-8")
    covered = conformal.table(sets, shares, test, classes)
    _write(SETS, covered)
    draw_confusion(test.labels, shares.argmax(axis=1), classes, PLOTS / "confusion_matrix.png")

    for name in ("accuracy", "loss"):
        low, high = metrics["interval"][name].values()
        print(
            f"evaluate: {name} {metrics['test'][name]:.4f} on {len(test.labels)} test examples, "
            f"{100 * confidence:g} % interval {low:.4f} to {high:.4f}"
        )
    if promised := conformal.said(sets, covered):
        print(f"evaluate: {promised}")
    if said := worst(by_slice):
        print(f"evaluate: {said[0].lower()}{said[1:].removesuffix('.')}")
    for row in again[again["measure"] == "accuracy"].itertuples():
        print(
            f"evaluate: accuracy {row.mean:.4f} on average over {row.repeats} other splits, "
            f"{100 * confidence:g} % interval {row.low:.4f} to {row.high:.4f}"
        )


def _repeated(manifest: pd.DataFrame, about: dict[str, Any], counts: bool) -> pd.DataFrame:
    """The table of the repeats; without rows where none is asked for."""
    settings = params.load(kinds.schema).evaluate
    if not settings.repeats:
        return pd.DataFrame(columns=tables.OF_REPEATS)
    from .tasks import repeats  # brings all that trains a head

    splits = read_splits(FEATURES, manifest, about["classes"], SPLITS, about["power"])
    drawing, training = params.load(kinds.schema).ingest, params.load(kinds.schema).train
    pool = view_0(splits)
    return repeats.repeated(manifest, pool, about, settings, drawing, training, counts)


def _calibrated(manifest: pd.DataFrame, head: Head, about: dict[str, Any]) -> dict[str, Any]:
    """What sets that hold the truth are made with; nothing where none are asked for."""
    settings = params.load(kinds.schema)
    coverage = settings.evaluate.coverage
    if coverage is None:
        return {}
    splits = read_splits(FEATURES, manifest, about["classes"], ["train", "val"], about["power"])
    train, val, counts = splits["train"], splits["val"], head.idf is not None
    return conformal.calibrated(coverage, head, about, train, val, manifest, settings.train, counts)


def _warn_of_absent(test: Split, classes: list[str]) -> None:
    absent = [name for number, name in enumerate(classes) if number not in test.labels]
    if absent:
        print(
            f"evaluate: warning: no test example of {listed(absent)}; balanced accuracy and "
            "macro F1 are means over the other classes"
        )


def _write(file: Path, table: pd.DataFrame) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(file, index=False, float_format=f"%.{tables.DIGITS}g", lineterminator="\n")


if __name__ == "__main__":
    command.run(evaluate)

"""Stage 5, evaluate: evaluate the head on the test examples; write metrics, tables and plots."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd

from . import kinds
from .core import command, memory, params
from .core.errors import DataError
from .core.params import Params
from .core.paths import (
    CLASSES,
    FEATURES,
    HEAD,
    HEAD_WEIGHTS,
    MANIFEST,
    METRICS,
    PLOTS,
    PREDICTIONS,
    REPEATS,
    SETS,
    SLICES,
)
from .evaluation import Asked, Measuring, coverage, figure, floor, measuring, spelt, tables
from .evaluation.intervals import doubts, grouped
from .evaluation.metrics import resample, whole
from .evaluation.slices import worst
from .heads.description import HeadDescription
from .heads.head import load_head
from .tables import cells
from .tables.features import read_splits, view_0
from .tables.figures import Metrics
from .tables.labels import require
from .tables.large import held
from .tables.manifest import SPLITS, groups, read_manifest, slices, task_in


def evaluate() -> None:
    """Predict every test example with the head, and write the results."""
    every = params.load(kinds.schema)
    settings = every.evaluate
    head, description = load_head(HEAD_WEIGHTS, HEAD)
    names, learned = description.classes, task_in(MANIFEST)
    description.require_task(learned)
    task = measuring(learned)
    manifest, power, layers = read_manifest(MANIFEST), description.power, description.layers
    require(manifest, "evaluate")
    examples = int((manifest["split"] == "test").sum())
    memory.require(
        2 * held(len(names) * examples) + 80 * len(names) * settings.bootstrap,
        f"evaluate: {examples:,} test examples of {len(names):,} classes",
        "lower evaluate.bootstrap",
    )
    test = read_splits(FEATURES, manifest, names, ["test"], power, layers)["test"]
    if test.features.shape[1] != head.dimension:
        raise DataError(
            f"the head in {HEAD_WEIGHTS} takes {head.dimension} features per example, but"
            f" {FEATURES} has {test.features.shape[1]}; run the train stage again"
        )

    answers = head.answers(test.features, description.calibration.temperature, learned)
    thresholds = description.calibration.thresholds
    of_test = manifest.set_index("digest").loc[test.digests].reset_index()
    together = grouped(groups(of_test))
    sets, by = description.sets, slices(of_test)
    reach = () if sets is None else sets.reach
    asked = Asked(test, names, answers, thresholds, by, settings, reach, together)
    for words in [*task.warnings(asked), *doubts(together)]:
        print(f"evaluate: warning: {words}")
    weigh = task.weigh(test.labels, answers, thresholds, settings)
    measured = whole(weigh, examples)
    resampled = resample(weigh, examples, len(names), settings.bootstrap, settings.seed, together)

    if PLOTS.exists():
        shutil.rmtree(PLOTS)  # plots of another task have other names
    PLOTS.mkdir(parents=True)
    right, confidence = task.proportions(asked), settings.confidence
    metrics = tables.metrics(measured, resampled, confidence, examples, right, together)
    lead = floor.lead(manifest, test, description, settings, together)
    baselines = floor.baselines(learned, manifest, names, lead)
    metrics = replace(metrics, baselines=baselines)
    metrics.write(METRICS)
    of_classes = task.classes(asked)
    _write(CLASSES, tables.class_table(of_classes, measured, resampled, confidence, together))
    _write(PREDICTIONS, task.predictions(asked))
    by_slice = task.slices(asked)
    _write(SLICES, by_slice)
    for name, table in task.plots(asked, PLOTS).items():
        _write(PLOTS / f"{name}.csv", table)
    again = _repeated(manifest, description, every, counts=head.idf is not None)
    _write(REPEATS, again)
    tested = (answers, test, names, thresholds, together)
    covered = coverage.table(sets, *tested)
    _write(SETS, covered)
    if found := coverage.summary(sets, covered, together):
        print(f"evaluate: {found}")
    for words in coverage.doubts(sets, *tested):
        print(f"evaluate: warning: {words}")
    lines = _lines(task, metrics, by_slice, again, confidence)
    for line in [*lines, *(lead.lines(confidence) if lead else [])]:
        print(f"evaluate: {line}")


def _lines(
    task: Measuring,
    metrics: Metrics,
    by_slice: pd.DataFrame,
    again: pd.DataFrame,
    confidence: float,
) -> list[str]:
    """Return the lines to print."""
    test, ends, words = metrics.test, metrics.interval, f"{100 * confidence:g} % interval"
    lines = []
    of = f"{test['pictures']} test examples"
    if found := test.get("groups"):
        of += f" of {found} groups" if found > 1 else " of one group"
    for name in [name for name in task.shown if name in test]:
        within = "no interval"
        if name in ends:
            low, high = (figure(name, end) for end in ends[name].values())
            within = f"{words} {low} to {high}"
        lines.append(f"{spelt(name)} {figure(name, test[name])} on {of}, {within}")
    if sentence := worst(by_slice):
        lines.append(sentence[0].lower() + sentence[1:].removesuffix("."))
    for row in again[again["measure"] == task.shown[0]].itertuples():
        mean, low, high = (figure(task.shown[0], v) for v in (row.mean, row.low, row.high))
        about = f"on average over {row.repeats} other splits"
        lines.append(f"{spelt(task.shown[0])} {mean} {about}, {words} {low} to {high}")
    return lines


def _repeated(
    manifest: pd.DataFrame, about: HeadDescription, settings: Params, counts: bool
) -> pd.DataFrame:
    """Return the table of the repeats; without rows if none is requested."""
    if not settings.evaluate.repeats:
        return pd.DataFrame(columns=tables.OF_REPEATS)
    from .evaluation import repeats  # imports the training code

    how = SPLITS, about.power, about.layers
    splits = read_splits(FEATURES, manifest, about.classes, *how)
    pool, asked = view_0(splits), (settings.evaluate, settings.ingest, settings.train)
    return repeats.repeated(manifest, pool, about, *asked, counts)


def _write(file: Path, table: pd.DataFrame) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    written = cells.to_open(table)
    written.to_csv(file, index=False, float_format=f"%.{tables.DIGITS}g", lineterminator="\n")


if __name__ == "__main__":
    command.run(evaluate)

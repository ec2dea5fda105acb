"""Optional stage, learning_curve: accuracy by examples per class, with and without augmentation.

The stage trains the chosen head again on random subsets of the training examples, and evaluates it
on the validation examples. Each size is drawn several times. The subsets of a draw are nested: its
eight examples of a class include its four examples.

Multi-label and regression tasks have no classes to draw from. The curve then runs over the total
number of examples, from eight on, and shows mean average precision or R².
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import kinds
from .core import command, params
from .core.errors import TrainingError
from .core.paths import (
    FEATURES,
    HEAD,
    HEAD_WEIGHTS,
    LEARNING_CURVE,
    LEARNING_CURVE_PLOT,
    MANIFEST,
)
from .core.progress import Progress
from .evaluation import comparing
from .evaluation.intervals import grouped
from .heads.fit import class_weights, fit_heads
from .heads.head import Head, load_head
from .heads.hyperparameters import Hyperparameters
from .heads.losses import loss_for
from .heads.trained import Schedule
from .tables.features import Split, read_splits
from .tables.labels import require
from .tables.manifest import groups, read_manifest, task_in
from .tasks import TASKS
from .transfer.draws import drawn, largest, measured, numbers

OF_CLASS = "examples_per_class"  # the column of the counts, if there are classes
LEAST_IN_ALL = 8  # training examples in multi-label tasks and regression
COLOURS = {"original": "#0072b2", "augmented": "#d55e00"}


def learning_curve() -> None:
    """Draw, train and evaluate for each number of examples; write the table and its plot."""
    settings = params.load(kinds.schema)
    asked, training = settings.learning_curve, settings.train
    known, about = load_head(HEAD_WEIGHTS, HEAD)
    task = task_in(MANIFEST)
    about.require_task(task)
    names, manifest = about.classes, read_manifest(MANIFEST)
    require(manifest, "learning_curve")
    splits = read_splits(FEATURES, manifest, names, ["train", "val"], about.power, about.layers)
    train, val = splits["train"], splits["val"]
    together = grouped(groups(manifest.set_index("digest").loc[val.digests].reset_index()))
    hyperparameters, epochs = about.trained_with()
    origins = ["original", "augmented"] if train.views.any() else ["original"]
    rows = []
    by_class = TASKS[task].exclusive
    counts = numbers(largest(train), 1 if by_class else LEAST_IN_ALL)
    with Progress("learning_curve", len(counts) * len(origins) * asked.draws, "heads") as progress:
        for count in counts:
            for views in origins:
                answers = []
                for draw in range(asked.draws):
                    chosen = drawn(train, count, draw, augmented=views == "augmented")
                    # The epochs are those of the chosen head; there is no early stopping here.
                    schedule = Schedule(
                        epochs=epochs,
                        batch_size=training.batch_size,
                        patience=0,
                        class_weights=class_weights(
                            training.class_weights, chosen.labels, len(names)
                        ),
                        counts=known.idf is not None,
                        loss=loss_for(task, about.loss or "squared"),
                        row_weights=training.row_weights,
                        layers=about.layers,
                    )
                    head = trained(chosen, hyperparameters, schedule)
                    answers.append(head.logits(val.features))
                    progress.advance(1)
                figures = measured(task, answers, val, asked.confidence, together)
                rows.append((count, views, len(np.unique(chosen.digests)), *figures))
    measure = comparing.measure(task)
    columns = [OF_CLASS, "views", "examples", measure, "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    if not by_class:
        table = table.drop(columns=OF_CLASS)
    LEARNING_CURVE.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(LEARNING_CURVE, index=False, float_format="%.6g", lineterminator="\n")
    _plot(table, comparing.words(task), asked.confidence)
    by, each = (OF_CLASS, " a class") if by_class else ("examples", "")
    for kind, of_kind in table.groupby("views", sort=False):
        points = zip(of_kind[measure], of_kind[by], strict=True)
        words = ", ".join(f"{value:.3f} with {count}" for value, count in points)
        print(f"learning_curve: {kind} views: {words} examples{each}")


def trained(rows: Split, hyperparameters: Hyperparameters, schedule: Schedule) -> Head:
    """Train a head on `rows` alone, because the validation examples are for evaluating it.

    Raises:
        TrainingError: training diverged.
    """
    (one,) = fit_heads(rows, rows.take(slice(0)), [hyperparameters], schedule, "cpu")
    if one.head is None:
        raise TrainingError(f"a head {one.status}; {hyperparameters.remedy}")
    return one.head


def _plot(table: pd.DataFrame, measure: str, confidence: float) -> None:
    """Plot the curves with their intervals, as a PNG file."""
    by = OF_CLASS if OF_CLASS in table else "examples"
    column = table.columns[list(table.columns).index("low") - 1]
    figure = Figure(figsize=(7, 5), layout="constrained", dpi=100)
    axes = figure.add_subplot()
    for kind, rows in table.groupby("views", sort=False):
        x, colour = rows[by], COLOURS[kind]
        axes.plot(x, rows[column], marker="o", color=colour, label=f"{kind} views")
        axes.fill_between(x, rows["low"], rows["high"], color=colour, alpha=0.2, linewidth=0)
    ticks = sorted(table[by].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("training examples per class" if by == OF_CLASS else "training examples")
    axes.set_ylabel(f"{measure} on validation examples, {100 * confidence:g} % interval")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(LEARNING_CURVE_PLOT, metadata={"Software": None})


if __name__ == "__main__":
    command.run(learning_curve)

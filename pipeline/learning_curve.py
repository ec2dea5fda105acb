"""Optional stage, learning_curve: accuracy by examples per class, with and without augmentation.

The chosen head is trained again on a few of the training examples, drawn several times, and asked
about the validation examples. The examples of a draw are nested: eight of a class hold the four.
"""

import hashlib
from dataclasses import fields

import numpy as np
import numpy.typing as npt
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
from .heads.fit import class_weights, fit_heads
from .heads.head import Head, load_head
from .heads.hyperparameters import Hyperparameters, from_used
from .heads.trained import Schedule
from .tables.features import Split, read_splits
from .tables.labels import require
from .tables.manifest import read_manifest

RESAMPLES = 1000  # behind each interval
COLOURS = {"original": "#0072b2", "augmented": "#d55e00"}


def learning_curve() -> None:
    """Draw, train and measure for each number of examples; write the table and its plot."""
    settings = params.load(kinds.schema).learning_curve
    weighing = params.load(kinds.schema).train
    known, about = load_head(HEAD_WEIGHTS, HEAD)
    of_terms = known.idf is not None
    classes, manifest = about["classes"], read_manifest(MANIFEST)
    require(manifest, "learning_curve")
    splits = read_splits(FEATURES, manifest, classes, ["train", "val"], about["power"])
    train, val = splits["train"], splits["val"]
    largest = np.bincount(train.labels[train.views == 0]).max()
    hyperparameters = from_used(about["hyperparameters"])
    ways = ["original", "augmented"] if train.views.any() else ["original"]
    rows = []
    counts = numbers(int(largest))
    with Progress("learning_curve", len(counts) * len(ways) * settings.draws, "heads") as progress:
        for count in counts:
            for way in ways:
                right = []
                for draw in range(settings.draws):
                    chosen = drawn(train, count, draw, augmented=way == "augmented")
                    weights = class_weights(weighing.class_weights, chosen.labels, len(classes))
                    # As many epochs as the chosen head kept, since nothing tells when to stop.
                    schedule = Schedule(about["epoch"], weighing.batch_size, 0, weights, of_terms)
                    head = trained(chosen, hyperparameters, schedule)
                    right.append(head.logits(val.features).argmax(axis=1) == val.labels)
                    progress.advance(1)
                accuracy, low, high = interval(np.stack(right), settings.confidence)
                rows.append((count, way, len(np.unique(chosen.digests)), accuracy, low, high))
    columns = ["examples_per_class", "views", "examples", "accuracy", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    LEARNING_CURVE.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(LEARNING_CURVE, index=False, float_format="%.6g", lineterminator="\n")
    _plot(table, settings.confidence)
    for kind, of_kind in table.groupby("views", sort=False):
        words = ", ".join(
            f"{row.accuracy:.3f} with {row.examples_per_class}" for row in of_kind.itertuples()
        )
        print(f"learning_curve: {kind} views: {words} examples a class")


def numbers(largest: int) -> list[int]:
    """1, 2, 4, 8, … and all; a class that has fewer gives all it has."""
    return [2**power for power in range(largest.bit_length()) if 2**power < largest] + [largest]


def drawn(train: Split, count: int, draw: int, augmented: bool) -> Split:
    """`count` examples of each class with their views, or with view 0 only.

    An example's place in a draw is a hash of the draw and its digest, so that no other example
    moves it.
    """
    examples = np.unique(train.digests)
    place = {
        digest: hashlib.blake2b(f"{draw}:{digest}".encode(), digest_size=8).digest()
        for digest in examples.tolist()
    }
    label = dict(zip(train.digests.tolist(), train.labels.tolist(), strict=True))
    kept: set[str] = set()
    for wanted in set(label.values()):
        of_class = [digest for digest in place if label[digest] == wanted]
        kept |= set(sorted(of_class, key=place.__getitem__)[:count])
    mask = np.isin(train.digests, sorted(kept))
    if not augmented:
        mask &= train.views == 0
    return Split(*(getattr(train, field.name)[mask] for field in fields(Split)))


def trained(rows: Split, hyperparameters: Hyperparameters, schedule: Schedule) -> Head:
    """A head trained on `rows` and nothing else: validation examples are what it is asked about.

    Raises:
        TrainingError: it was lost.
    """
    none = Split(*(getattr(rows, field.name)[:0] for field in fields(Split)))
    (one,) = fit_heads(rows, none, [hyperparameters], schedule, "cpu")
    if one.head is None:
        raise TrainingError(f"a head was {one.status}; lower train.learning_rate")
    return one.head


def interval(right: npt.NDArray[np.bool_], confidence: float) -> tuple[float, float, float]:
    """Mean accuracy, and the ends of its bootstrap interval.

    Both the draws and the validation examples are drawn anew, for another user would have others
    of both (Owen, 2007, "The pigeonhole bootstrap").

    Args:
        right: [draws, examples].
        confidence: of the interval.
    """
    generator = np.random.default_rng(0)
    draws, examples = right.shape
    of_draw = generator.multinomial(draws, np.full(draws, 1 / draws), RESAMPLES) / draws
    of_example = generator.multinomial(examples, np.full(examples, 1 / examples), RESAMPLES)
    means = np.einsum("rd,dp,rp->r", of_draw, right, of_example / examples, optimize=True)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(right.mean()), float(low), float(high)


def _plot(table: pd.DataFrame, confidence: float) -> None:
    """A picture (PNG) of the curves with their intervals."""
    figure = Figure(figsize=(7, 5), layout="constrained", dpi=100)
    axes = figure.add_subplot()
    for kind, rows in table.groupby("views", sort=False):
        x, colour = rows["examples_per_class"], COLOURS[kind]
        axes.plot(x, rows["accuracy"], marker="o", color=colour, label=f"{kind} views")
        axes.fill_between(x, rows["low"], rows["high"], color=colour, alpha=0.2, linewidth=0)
    ticks = sorted(table["examples_per_class"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("training examples per class")
    axes.set_ylabel(f"accuracy on validation examples, {100 * confidence:g} % interval")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(LEARNING_CURVE_PLOT, metadata={"Software": None})


if __name__ == "__main__":
    command.run(learning_curve)

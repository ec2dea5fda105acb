"""Optional stage, few: accuracy against pictures per class, with and without augmented views.

The chosen head is trained again on a few of the training pictures, drawn several times, and asked
about the validation pictures. The pictures of a draw are nested: eight of a class hold the four.
"""

import hashlib
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from .core import command, params
from .core.errors import DataError, TrainingError
from .core.paths import FEATURES, FEW, FEW_PLOT, HEAD, HEAD_WEIGHTS, MANIFEST
from .core.progress import Progress
from .heads import fit
from .heads.fit import Knobs, Schedule
from .heads.head import Head, load_head
from .tables.features import Split, read_manifest, read_splits
from .train import class_weights

RESAMPLES = 1000  # behind each interval
COLOURS = {"original": "#0072b2", "augmented": "#d55e00"}


def few() -> None:
    """Draw, train and measure for each number of pictures; write the table and its plot."""
    settings, weighing = params.load().few, params.load().train
    _, about = load_head(HEAD_WEIGHTS, HEAD)
    classes, manifest = about["classes"], read_manifest(MANIFEST)
    splits = read_splits(FEATURES, manifest, classes, ["train", "val"], about["power"])
    train, val = splits["train"], splits["val"]
    if not len(val.labels):
        raise DataError(
            f"{MANIFEST} has no validation picture to measure on; give ingest.shares.val more than"
            " 0, or take few.run off"
        )
    largest = np.bincount(train.labels[train.views == 0]).max()
    knobs = Knobs(**dict.fromkeys(Knobs.__dataclass_fields__, 0) | about["knobs"])
    kinds = ["original", "augmented"] if train.views.any() else ["original"]
    rows = []
    counts = numbers(int(largest))
    with Progress("few", len(counts) * len(kinds) * settings.draws, "heads") as progress:
        for count in counts:
            for kind in kinds:
                right = []
                for draw in range(settings.draws):
                    chosen = drawn(train, count, draw, augmented=kind == "augmented")
                    weights = class_weights(weighing.class_weights, chosen.labels, len(classes))
                    # As many epochs as the chosen head kept, since nothing tells when to stop.
                    schedule = Schedule(about["epoch"], weighing.batch_size, 0, weights)
                    head = trained(chosen, knobs, schedule)
                    right.append(head.logits(val.features).argmax(axis=1) == val.labels)
                    progress.advance(1)
                accuracy, low, high = interval(np.stack(right), settings.confidence)
                rows.append((count, kind, len(np.unique(chosen.digests)), accuracy, low, high))
    columns = ["pictures_per_class", "views", "pictures", "accuracy", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    FEW.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(FEW, index=False, float_format="%.6g", lineterminator="\n")
    _plot(table, settings.confidence)
    for kind, of_kind in table.groupby("views", sort=False):
        words = ", ".join(
            f"{row.accuracy:.3f} with {row.pictures_per_class}" for row in of_kind.itertuples()
        )
        print(f"few: {kind} views: {words} pictures a class")


def numbers(largest: int) -> list[int]:
    """1, 2, 4, 8, … and all; a class that has fewer gives all it has."""
    return [2**power for power in range(largest.bit_length()) if 2**power < largest] + [largest]


def drawn(train: Split, count: int, draw: int, augmented: bool) -> Split:
    """`count` pictures of each class with their views, or with view 0 only.

    A picture's place in a draw is a hash of the draw and its digest, so that no other picture
    moves it.
    """
    pictures = np.unique(train.digests)
    place = {
        digest: hashlib.blake2b(f"{draw}:{digest}".encode(), digest_size=8).digest()
        for digest in pictures.tolist()
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


def trained(rows: Split, knobs: Knobs, schedule: Schedule) -> Head:
    """A head trained on `rows` and nothing else: validation pictures are what it is asked about.

    Raises:
        TrainingError: it was lost.
    """
    none = Split(*(getattr(rows, field.name)[:0] for field in fields(Split)))
    (one,) = fit.train_heads(rows, none, [knobs], schedule, "cpu")
    if one.head is None:
        raise TrainingError(f"a head was {one.status}; lower train.learning_rate")
    return one.head


def interval(right: npt.NDArray[np.bool_], confidence: float) -> tuple[float, float, float]:
    """Mean accuracy, and the ends of its bootstrap interval.

    Both the draws and the validation pictures are drawn anew, for another user would have others
    of both (Owen, 2007, "The pigeonhole bootstrap").

    Args:
        right: [draws, pictures].
        confidence: of the interval.
    """
    generator = np.random.default_rng(0)
    draws, pictures = right.shape
    of_draw = generator.multinomial(draws, np.full(draws, 1 / draws), RESAMPLES) / draws
    of_picture = generator.multinomial(pictures, np.full(pictures, 1 / pictures), RESAMPLES)
    means = np.einsum("rd,dp,rp->r", of_draw, right, of_picture / pictures, optimize=True)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(right.mean()), float(low), float(high)


def _plot(table: pd.DataFrame, confidence: float) -> None:
    """A picture (PNG) of the curves with their intervals."""
    figure = Figure(figsize=(7, 5), layout="constrained", dpi=100)
    axes = figure.add_subplot()
    for kind, rows in table.groupby("views", sort=False):
        x, colour = rows["pictures_per_class"], COLOURS[kind]
        axes.plot(x, rows["accuracy"], marker="o", color=colour, label=f"{kind} views")
        axes.fill_between(x, rows["low"], rows["high"], color=colour, alpha=0.2, linewidth=0)
    ticks = sorted(table["pictures_per_class"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("training pictures per class")
    axes.set_ylabel(f"accuracy on validation pictures, {100 * confidence:g} % interval")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(FEW_PLOT, metadata={"Software": None})


if __name__ == "__main__":
    command.run(few)

"""Plots of classification."""

import warnings
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ...evaluation.tables import MANY

MOST_CONFUSED = 40  # classes in the matrix if there are more than `MANY`


def most_confused(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], most: int
) -> npt.NDArray[np.int64]:
    """Return the classes of the most often confused pairs, sorted.

    Args:
        labels: [n].
        predicted: [n].
        most: how many classes to return; if fewer are confused, classes of the first examples
            follow.
    """
    wrong = labels != predicted
    pairs = np.sort(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=1)
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    ranked = pairs[np.argsort(-counts, kind="stable")].ravel()
    found = list(dict.fromkeys([*ranked.tolist(), *labels.tolist()]))
    return np.sort(np.array(found[:most], dtype=np.int64))


@matplotlib.rc_context({"text.parse_math": False})  # a class may be called $a$
def draw_confusion(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: list[str], file: Path
) -> None:
    """Save a picture (PNG) of the counts, shaded by the fraction of each actual class.

    Cividis looks the same to every kind of colour vision (Nuñez et al., 2018). If there are more
    than `MANY` classes, only the `MOST_CONFUSED` most confused ones are drawn.
    """
    examples, right = len(labels), int((labels == predicted).sum())
    title = f"{right} of {examples} test examples right"
    if len(classes) > MANY:
        chosen = most_confused(labels, predicted, MOST_CONFUSED)
        number = np.full(len(classes), -1)
        number[chosen] = np.arange(len(chosen))
        title += f"; the {len(chosen)} most confused of {len(classes):,} classes"
        labels, predicted = number[labels], number[predicted]
        among = (labels >= 0) & (predicted >= 0)
        labels, predicted = labels[among], predicted[among]
        classes = [classes[c] for c in chosen]
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    of_row = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The figure grows with the classes, so that cells stay legible, up to the size of a page.
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
    axes.set_title(title)
    figure.colorbar(image, label="share of the actual class", shrink=0.8)
    with warnings.catch_warnings():
        # Matplotlib warns of letters that its font lacks; the report uses other fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, metadata={"Software": None})

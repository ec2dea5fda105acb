"""Plots of one label's task."""

import warnings
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix


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
    axes.set_title(f"{right} of {counts.sum()} test examples right")
    figure.colorbar(image, label="share of the actual class", shrink=0.8)
    with warnings.catch_warnings():
        # Of letters that Matplotlib's font lacks; the report has the reader's own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, metadata={"Software": None})

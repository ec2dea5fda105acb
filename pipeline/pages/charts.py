"""The report's charts, as SVG with the colours of the page.

Matplotlib draws them with placeholder colours, which are replaced with the page's CSS variables, so
that one chart fits light and dark mode. Text remains text, so it can be searched and has the page's
font.
"""

import io
import warnings
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

# Placeholder colours, and the variables of `report.html` that replace them.
INK, FAINT, FIRST, SECOND, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    PAPER: "var(--paper)",
}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "headstart",  # else the ids of elements are random
    "text.parse_math": False,  # a class may be called $a$
    "font.size": 10.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "legend.frameon": False,
    "legend.labelcolor": INK,
}
INCHES = 4.2  # width of a chart; on a phone its letters are then as large as the text


def confusion(counts: npt.NDArray[np.int64], classes: list[str]) -> str:
    """Draw the confusion matrix of `counts` [c, c], one row per actual class.

    The opacity of a cell is its fraction of the row. Shades of one colour are readable with every
    kind of colour vision.
    """
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = max(INCHES, 1.6 + 0.3 * len(classes))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(size, size), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlim(-0.5, len(classes) - 0.5)
        axes.set_ylim(len(classes) - 0.5, -0.5)
        for row, column in zip(*np.nonzero(counts), strict=True):
            fraction = float(fractions[row, column])
            colour = FIRST if row == column else SECOND
            cell = Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=colour, linewidth=0)
            cell.set_alpha(0.15 + 0.85 * fraction)
            cell.set_gid(f"cell-{row}-{column}")  # for `map.js`
            axes.add_patch(cell)
            axes.text(
                column, row, str(counts[row, column]), ha="center", va="center",
                color=PAPER if fraction > 0.5 else INK,
            )  # fmt: skip
        positions = range(len(classes))
        axes.set_xticks(positions, classes, rotation=90)
        axes.set_yticks(positions, classes)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("actual")
        return _svg(figure)


def reliability(table: pd.DataFrame) -> str:
    """Draw the reliability diagram: accuracy against confidence.

    Args:
        table: `reports/plots/reliability.csv`, one row per bin with `pictures`, `confidence` (mean)
            and `accuracy`.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(INCHES, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", label="perfectly calibrated")
        fraction = table["pictures"] / max(table["pictures"].sum(), 1)
        axes.scatter(
            table["confidence"], table["accuracy"], s=30 + 400 * fraction, color=FIRST, alpha=0.75,
            linewidths=0, label="examples in a bin (area: how many)",
        )  # fmt: skip
        axes.set(xlim=(0, 1.03), ylim=(0, 1.05), xlabel="probability given", ylabel="accuracy")
        axes.grid(True)
        legend = axes.legend(loc="lower right", fontsize=9)
        for handle in legend.legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([40])
        return _svg(figure)


def curves(table: pd.DataFrame, measure: str) -> str:
    """Draw a metric on training and validation examples by epoch.

    Args:
        table: `reports/training.csv`, one row per epoch with `train_<measure>` and
            `val_<measure>`.
        measure: the metric, such as `loss` or `accuracy`.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(INCHES, 2.8), layout="constrained")
        axes = figure.add_subplot()
        lines = (("train", "training", FIRST, "-"), ("val", "validation", SECOND, "--"))
        for prefix, words, colour, style in lines:
            values = table[f"{prefix}_{measure}"]
            if values.notna().any():
                axes.plot(table["epoch"], values, color=colour, linestyle=style, label=words)
        axes.set(xlabel="epoch", ylabel=measure)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True)
        axes.legend(fontsize=9)
        return _svg(figure)


def dots(table: pd.DataFrame, measure: str, words: str) -> str:
    """Draw a metric of each class as a dot with its interval; the first row is at the top.

    Args:
        table: one row per class, with `class`, the metric (0 to 1, or NaN), `<measure>_low` and
            `<measure>_high`.
        measure: the column.
        words: the label of the axis.
    """
    table = table[table[measure].notna()]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(INCHES, 1.1 + 0.24 * len(table)), layout="constrained")
        axes = figure.add_subplot()
        places = np.arange(len(table))
        axes.hlines(places, table[f"{measure}_low"], table[f"{measure}_high"], color=FAINT)
        axes.scatter(table[measure], places, s=30, color=FIRST, linewidths=0, zorder=2)
        axes.set_yticks(places, list(table["class"]))
        axes.set(xlim=(0, 1.03), ylim=(len(table) - 0.4, -0.6), xlabel=words)
        axes.grid(True, axis="x")
        return _svg(figure)


def against(residuals: pd.DataFrame, name: str) -> str:
    """Draw predictions against targets, one dot per example.

    Args:
        residuals: the rows of one target, with `target` and `predicted`.
        name: the name of the target.
    """
    ends = residuals[["target", "predicted"]].to_numpy(dtype=float)
    low, high = (float(ends.min()), float(ends.max())) if len(ends) else (0.0, 1.0)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(INCHES, INCHES), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([low, high], [low, high], color=FAINT, linestyle="--")
        axes.scatter(
            residuals["target"], residuals["predicted"], s=14, color=FIRST, alpha=0.6, linewidths=0
        )
        axes.set(xlabel=f"{name}: true", ylabel=f"{name}: answered")
        axes.grid(True)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    """Return the chart as an `svg` element, without a date."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Matplotlib warns of letters that its font lacks; the page uses the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        nothing = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, variable)
    return text

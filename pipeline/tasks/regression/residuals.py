"""Predictions and residuals of regression: a table and a picture."""

import math
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...evaluation.metrics import Array

EXTREMES = 3  # examples named on each side: those with targets farthest above, and below
MOST_DRAWN = 9  # targets that have a panel
LONGEST = 48  # characters of a path in the picture
# Colours of Okabe and Ito (2008), which every kind of colour vision distinguishes.
BLUE, VERMILLION = "#0072b2", "#d55e00"


def residual_table(
    paths: npt.NDArray[np.str_], names: list[str], targets: Array, answers: Array
) -> pd.DataFrame:
    """Return a row per example and target, by name and path; residual = target - predicted."""
    tables = [
        pd.DataFrame(
            {
                "path": paths,
                "name": name,
                "predicted": answers[:, number],
                "target": targets[:, number],
                "residual": targets[:, number] - answers[:, number],
            }
        ).sort_values("path", kind="stable")
        for number, name in enumerate(names)
    ]
    return pd.concat(tables, ignore_index=True)


def extremes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the largest positive and negative residuals, the largest first."""
    ranked = rows.sort_values("residual", kind="stable")
    below = ranked[ranked["residual"] < 0].head(EXTREMES)
    above = ranked[ranked["residual"] > 0].tail(EXTREMES)
    found = pd.concat([below, above])
    return found.iloc[np.argsort(-found["residual"].abs().to_numpy(), kind="stable")]


@matplotlib.rc_context({"text.parse_math": False})  # an example may be called $a$.png
def draw_residuals(table: pd.DataFrame, file: Path) -> None:
    """Save a picture (PNG) with one panel per target, in which each point is an example.

    The examples with extreme residuals have numbers in the picture, and their names are below it.
    If there are many targets, only the first `MOST_DRAWN` are drawn.
    """
    names = list(dict.fromkeys(table["name"]))
    drawn = names[:MOST_DRAWN]
    columns = min(len(drawn), 3)
    lines = math.ceil(len(drawn) / columns)
    size = (max(6.5 * columns, 7), 6.2 * lines)
    figure = Figure(figsize=size, layout="constrained", dpi=100)
    for place, name in enumerate(drawn):
        axes = figure.add_subplot(lines, columns, place + 1)
        _panel(axes, table[table["name"] == name], name)
    if len(names) > len(drawn):
        figure.suptitle(f"the first {len(drawn)} of {len(names)} targets")
    with warnings.catch_warnings():
        # Matplotlib warns of letters that its font lacks; the report uses other fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, metadata={"Software": None})


def _panel(axes: Axes, rows: pd.DataFrame, name: str) -> None:
    """Draw residuals against predictions, with the names of the extremes below."""
    count = len(rows)
    area = float(np.clip(4000 / count, 3, 24))
    axes.axhline(0, color="black", linewidth=0.8)
    axes.scatter(
        rows["predicted"], rows["residual"], s=area, color=BLUE, alpha=0.6, linewidths=0
    )  # fmt: skip
    words = []
    for number, row in enumerate(extremes(rows).itertuples(), start=1):
        point = (row.predicted, row.residual)
        axes.scatter(*point, s=60, marker="D", facecolors="none", edgecolors=VERMILLION)
        axes.annotate(
            str(number), point, xytext=(6, 4), textcoords="offset points", color=VERMILLION,
            fontsize=9,
        )  # fmt: skip
        path = row.path if len(row.path) <= LONGEST else f"…{row.path[1 - LONGEST :]}"
        words.append(f"{number}  {path}: {row.target:.4g}, predicted {row.predicted:.4g}")
    axes.set_xlabel("predicted\n\n" + "\n".join(words))
    axes.xaxis.label.set_fontsize(9)
    axes.set_ylabel("target − predicted")
    axes.set_title(f"{name}: {count} test examples")
    axes.grid(alpha=0.3)

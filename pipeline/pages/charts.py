"""The report's charts, as SVG with the colours of the page, so that they fit light and dark mode.

Text remains text, so it can be searched and has the page's font. Lengths are in points.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

# Variables of `report.html`.
INK, FAINT, FIRST, SECOND, PAPER = (
    f"var(--{name})" for name in ("ink", "faint", "first", "second", "paper")
)
WIDTH = 302.4  # of a chart; on a phone its letters are then as large as the text
SIZE, SMALL = 10, 9  # of letters
DASHED = "; stroke-dasharray: 5.5 2.4"
TICKS = 6  # steps between the numbers on an axis, at most

Numbers = Iterable[Any]
Ends = tuple[float, float]


def confusion(counts: npt.NDArray[np.int64], classes: list[str]) -> str:
    """Draw the confusion matrix of `counts` [c, c], one row per actual class.

    The opacity of a cell grows with its fraction of the row, and correct and wrong predictions have
    different colours. Opacity is readable with every kind of colour vision.
    """
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    margin = 30 + max(map(_length, classes))
    cell = max(21.6, (WIDTH - margin) / len(classes))
    side = cell * len(classes)
    size = margin + side
    parts = [
        f'<rect x="{margin}" y="0.5" width="{side - 0.5:.2f}" height="{side:.2f}"'
        f' style="fill: none; stroke: {FAINT}; stroke-width: 0.8"/>'
    ]
    for number, name in enumerate(classes):
        place = cell * (number + 0.5)
        parts.append(_text(margin - 6, place, name, "end"))
        parts.append(_text(margin + place, side + 6, name, "end", turned=True))
    parts.append(_text(margin + side / 2, size - 8, "predicted"))
    parts.append(_text(8, side / 2, "actual", turned=True))
    for row, column in zip(*np.nonzero(counts), strict=True):
        fraction = float(fractions[row, column])
        left, top = margin + cell * column, cell * row
        # The identifier is for `map.js`.
        parts.append(
            f'<rect id="cell-{row}-{column}" x="{left + 1:.2f}" y="{top + 1:.2f}"'
            f' width="{cell - 2:.2f}" height="{cell - 2:.2f}" style="fill:'
            f' {FIRST if row == column else SECOND}; opacity: {0.15 + 0.85 * fraction:.3f}"/>'
        )
        colour, middle = PAPER if fraction > 0.5 else INK, cell / 2
        parts.append(_text(left + middle, top + middle, str(counts[row, column]), "middle", colour))
    return _svg(size, size, parts)


def reliability(table: pd.DataFrame) -> str:
    """Draw the reliability diagram: accuracy against confidence.

    Args:
        table: `reports/plots/reliability.csv`, one row per bin with `pictures`, `confidence` (mean)
            and `accuracy`.
    """
    plot = _Plot(260, (0, 1.03), (0, 1.05))
    parts = [*plot.frame("probability given", "accuracy"), plot.line([0, 1], [0, 1], FAINT, DASHED)]
    areas = 30 + 400 * table["pictures"] / max(table["pictures"].sum(), 1)
    parts += plot.dots(table["confidence"], table["accuracy"], areas, 0.75)
    legend = [("perfectly calibrated", FAINT, DASHED)]
    legend += [("examples in a bin (area: how many)", FIRST, "")]
    return plot.svg([*parts, *plot.legend(legend, dots=True)])


def curves(table: pd.DataFrame, measure: str) -> str:
    """Draw a metric on training and validation examples by epoch.

    Args:
        table: `reports/training.csv`, one row per epoch with `train_<measure>` and
            `val_<measure>`.
        measure: the metric, such as `loss` or `accuracy`.
    """
    lines = [("train", "training", FIRST, ""), ("val", "validation", SECOND, DASHED)]
    there = [one for one in lines if table[f"{one[0]}_{measure}"].notna().any()]
    values = table[[f"{prefix}_{measure}" for prefix, *_ in there]]
    plot = _Plot(201.6, _ends(table["epoch"]), _ends(values))
    parts = plot.frame("epoch", measure, whole=True)
    for prefix, _, colour, dashed in there:
        parts.append(plot.line(table["epoch"], table[f"{prefix}_{measure}"], colour, dashed))
    return plot.svg([*parts, *plot.legend([of for _, *of in there], top=measure == "loss")])


def dots(table: pd.DataFrame, measure: str, words: str) -> str:
    """Draw a metric of each class as a dot with its interval; the first row is at the top.

    Args:
        table: one row per class, with `class`, the metric (0 to 1, or NaN), `<measure>_low` and
            `<measure>_high`.
        words: the label of the axis.
    """
    table = table[table[measure].notna()]
    places, names = np.arange(len(table)), list(table["class"])
    left = 12 + max(map(_length, names), default=0)
    width = max(WIDTH, left + 200)
    plot = _Plot(79.2 + 17.3 * len(table), (0, 1.03), (len(table) - 0.4, -0.6), left, width)
    parts = plot.frame(words, "", rows=names)
    for place, low, high in zip(
        places, table[f"{measure}_low"], table[f"{measure}_high"], strict=True
    ):
        parts.append(plot.line([low, high], [place, place], FAINT))
    return plot.svg([*parts, *plot.dots(table[measure], places, [30] * len(table))])


def against(residuals: pd.DataFrame, name: str) -> str:
    """Draw predictions against targets, one dot per example.

    Args:
        residuals: the rows of one target, with `target` and `predicted`.
    """
    found = residuals[["target", "predicted"]].to_numpy(dtype=float)
    low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 1.0)
    plot = _Plot(WIDTH, _ends(found), _ends(found))
    parts = plot.frame(f"{name}: true", f"{name}: answered")
    parts.append(plot.line([low, high], [low, high], FAINT, DASHED))
    return plot.svg([*parts, *plot.dots(found[:, 0], found[:, 1], [14] * len(found), 0.6)])


@dataclass(frozen=True)
class _Plot:
    """Two axes with linear scales, from the first to the second end."""

    height: float
    x: Ends
    y: Ends
    left: float = 52
    width: float = WIDTH
    below: float = 38

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        wide, high = self.width - self.left - 4, self.height - self.below - 4
        return self.left + across * wide, 4 + (1 - up) * high

    def frame(
        self, across: str, up: str, whole: bool = False, rows: Sequence[str] | None = None
    ) -> list[str]:
        """Return the grid and the axes with their titles; `rows` are names for the y axis."""
        (left, bottom), (right, top) = self.at(self.x[0], self.y[0]), self.at(self.x[1], self.y[1])
        parts = []
        for tick in _ticks(*self.x, whole):
            place, _ = self.at(tick, 0)
            parts.append(_path([(place, bottom), (place, top)], FAINT, "; opacity: 0.35"))
            parts.append(_text(place, bottom + 10, f"{tick:g}"))
        for tick in _ticks(*self.y) if rows is None else range(len(rows)):
            _, place = self.at(0, tick)
            if rows is None:
                parts.append(_path([(left, place), (right, place)], FAINT, "; opacity: 0.35"))
            words = f"{tick:g}" if rows is None else rows[int(tick)]
            parts.append(_text(left - 5, place, words, "end"))
        parts.append(_path([(left, top), (left, bottom), (right, bottom)], FAINT))
        parts.append(_text((left + right) / 2, self.height - 8, across))
        return [*parts, _text(8, (top + bottom) / 2, up, turned=True)] if up else parts

    def line(self, x: Numbers, y: Numbers, colour: str, style: str = "") -> str:
        """Return a line through points, without those that have a NaN."""
        there = [one for one in zip(x, y, strict=True) if not any(map(math.isnan, one))]
        return _path([self.at(*one) for one in there], colour, f"; stroke-width: 1.5{style}")

    def dots(self, x: Numbers, y: Numbers, areas: Numbers, opacity: float = 1) -> list[str]:
        """Return a dot for each known point; an area is that of the square around it."""
        every = zip(x, y, areas, strict=True)
        return [
            _dot(*self.at(*point), math.sqrt(area) / 2, opacity)
            for *point, area in every
            if not any(map(math.isnan, point))
        ]

    def legend(
        self, lines: Sequence[Sequence[str]], dots: bool = False, top: bool = False
    ) -> list[str]:
        """Return the legend of `lines`, each with its words, colour and style.

        The legend is at the right, at the top if `top`, else at the bottom. If `dots`, its last
        sample is a dot.
        """
        longest = max(_length(words) for words, *_ in lines) * SMALL / SIZE
        start = self.width - 10 - longest
        first = 12 if top else self.height - self.below - 13 * len(lines)
        parts = []
        for number, (words, colour, style) in enumerate(lines):
            height = first + 13 * number
            dot = dots and number == len(lines) - 1
            line = _path([(start - 24, height), (start - 6, height)], colour, style)
            parts.append(_dot(start - 15, height, 3, 0.75) if dot else line)
            parts.append(_text(start, height, words, "start", size=SMALL))
        return parts

    def svg(self, parts: Iterable[str]) -> str:
        """Return the chart."""
        return _svg(self.width, self.height, parts)


def _ends(values: npt.ArrayLike) -> Ends:
    """Return the ends of an axis for these numbers, with a little room at both."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return low - room, high + room


def _ticks(one: float, other: float, whole: bool = False) -> list[float]:
    """Return round numbers between two, at most `TICKS` + 1 of them."""
    low, high = sorted((one, other))
    unit = 10 ** math.floor(math.log10((high - low) / TICKS))
    steps = [unit * factor for factor in (1, 2, 5, 10)]
    step = next(size for size in steps if (high - low) / size <= TICKS)
    step = max(1, round(step)) if whole else step
    return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _length(words: str) -> float:
    """Return the approximate length of words."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in words)
    return SIZE * (0.6 * (len(words) - wide) + wide)


def _text(
    x: float,
    y: float,
    words: str,
    anchor: str = "middle",
    colour: str = INK,
    size: int = SIZE,
    turned: bool = False,
) -> str:
    turn = f' transform="rotate(-90 {x:.2f} {y:.2f})"' * turned
    return (
        f'<text x="{x:.2f}" y="{y:.2f}" dy="0.35em" text-anchor="{anchor}"'
        f' style="fill: {colour}; font-size: {size}px"{turn}>{escape(words)}</text>'
    )


def _path(points: Iterable[tuple[float, float]], colour: str, style: str = "") -> str:
    through = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return f'<polyline points="{through}" style="fill: none; stroke: {colour}{style}"/>'


def _dot(x: float, y: float, radius: float, opacity: float) -> str:
    style = f"fill: {FIRST}; opacity: {opacity}"
    return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:.2f}" style="{style}"/>'


def _svg(width: float, height: float, parts: Iterable[str]) -> str:
    size = f'width="{width:.2f}pt" height="{height:.2f}pt" viewBox="0 0 {width:.2f} {height:.2f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(parts)}</svg>'

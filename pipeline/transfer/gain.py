"""Was transfer worth it? What the optional stages measured, side by side, and what follows.

Two ways are told apart only where their intervals do not overlap. Each interval is of one way
alone, so the rule is cautious: a small difference may be hidden where intervals overlap.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..evaluation import figure, spelt

FLOOR, SCRATCH, FROZEN, FINETUNED = "floor", "from scratch", "frozen", "finetuned"
WAYS = (FLOOR, SCRATCH, FROZEN, FINETUNED)
VALIDATION, TEST = "validation", "test"
RANDOM = "random:"  # before the name of a network that is not trained


class Row(NamedTuple):
    """One figure: how a way did, after so many training examples, on the examples of a split."""

    way: str
    name: str
    examples: int
    on: str
    value: float
    low: float
    high: float
    source: str


class Told(NamedTuple):
    """What the four stages wrote, and of what.

    `curve` and `ranked` are the tables of `learning_curve` and `rank`, `finetuned` and `scratch`
    the figures of `finetune` and `from_scratch`. `examples` has the number of each split, and
    `measure` is the name of the task's measure.
    """

    backbone: str
    measure: str
    examples: dict[str, int]
    curve: pd.DataFrame
    ranked: pd.DataFrame
    finetuned: dict[str, Any]
    scratch: dict[str, Any]


def rows(told: Told) -> list[Row]:
    """All figures, by way, split and number of examples."""
    found = [*_of_rank(told), *_of_training(told), *_of_curve(told)]
    return sorted(
        found, key=lambda row: (WAYS.index(row.way), row.on != TEST, -row.examples, -row.value)
    )


def table(found: list[Row], measure: str) -> pd.DataFrame:
    """The figures as a table, with the measure's own name as a column."""
    return pd.DataFrame(found).rename(columns={"value": measure})


def _of_rank(told: Told) -> Iterator[Row]:
    for one in told.ranked.to_dict("records"):
        # A graph without parameters is a floor too: it counts terms, or measures a sound.
        untrained = one["backbone"].startswith(RANDOM) or not one["parameters"]
        way = FLOOR if untrained else FROZEN
        figures = (float(one[f"val_{told.measure}"]), float(one["low"]), float(one["high"]))
        yield Row(way, one["backbone"], told.examples["train"], VALIDATION, *figures, "rank")


def _of_training(told: Told) -> Iterator[Row]:
    train, both = told.examples["train"], told.examples["train"] + told.examples["val"]
    for on in (VALIDATION, TEST):
        parts = [
            (FROZEN, told.finetuned[on].get("frozen"), train, "finetune"),
            (FINETUNED, told.finetuned[on].get("finetuned"), train, "finetune"),
            (FINETUNED, told.finetuned[on].get("refit"), both, "finetune, refit"),
            (SCRATCH, told.scratch[on], train, "from_scratch"),
        ]
        for way, figures, examples, source in parts:
            if figures and figures.get(told.measure) is not None:
                value, low, high = (_number(figures[n]) for n in (told.measure, "low", "high"))
                yield Row(way, told.backbone, examples, on, value, low, high, source)


def _of_curve(told: Told) -> Iterator[Row]:
    for one in told.curve.to_dict("records"):
        figures = (float(one[told.measure]), float(one["low"]), float(one["high"]))
        source = f"learning_curve, {one['views']} views"
        yield Row(FROZEN, told.backbone, int(one["examples"]), VALIDATION, *figures, source)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def verdicts(found: list[Row], backbone: str, measure: str) -> list[str]:
    """What follows, each in a sentence; those of negative transfer first.

    Args:
        found: as `rows` gives them.
        backbone: that is in use.
        measure: the name of the task's measure.
    """
    lost, rest = [], []
    pairs = [(_with(found, way, None), _with(found, SCRATCH, None)) for way in (FROZEN, FINETUNED)]
    floors = [row for row in found if row.way == FLOOR]
    ranked = [row for row in found if row.source == "rank" and row.name == backbone]
    frozen = ranked or _with(found, FROZEN, VALIDATION)
    finetuned = _with(found, FINETUNED, VALIDATION)
    pairs += [(some, [floor]) for floor in floors for some in (frozen, finetuned)]
    for with_transfer, without in pairs:
        if not with_transfer or not without or with_transfer[0].on != without[0].on:
            continue
        one, other = with_transfer[0], without[0]
        said = _compared(one, other, measure)
        if other.low > one.high:
            lost.append(f"Negative transfer: {said}.")
        elif one.low > other.high:
            rest.append(f"Transfer was worth it: {said}.")
        else:
            rest.append(f"Not told apart: {said}.")
    return [*lost, *rest, *_finetuning(found, measure), *_few(found, measure)]


def _with(found: list[Row], way: str, on: str | None) -> list[Row]:
    """The figure of a way that was trained on the training examples; where told, on the test split.

    Of `from_scratch` and `finetune`, which measure the same examples.
    """
    of_way = [row for row in found if row.way == way and row.source in ("finetune", "from_scratch")]
    return [row for row in of_way if on in (None, row.on)][:1]


def _finetuning(found: list[Row], measure: str) -> Iterator[str]:
    frozen, finetuned = _with(found, FROZEN, None), _with(found, FINETUNED, None)
    if not frozen or not finetuned or frozen[0].on != finetuned[0].on:
        return
    one, other = finetuned[0], frozen[0]
    said = _compared(one, other, measure)
    if one.low > other.high:
        yield f"Finetuning was worth it: {said}."
    elif other.low > one.high:
        yield f"Finetuning made it worse: {said}."
    else:
        yield f"Finetuning is not told from leaving the network frozen: {said}."


def _few(found: list[Row], measure: str) -> Iterator[str]:
    """The smallest number of examples with which the frozen network beats training from scratch."""
    scratch = _with(found, SCRATCH, VALIDATION)
    if not scratch:
        return
    other = scratch[0]
    above = [row for row in found if "learning_curve" in row.source and row.low > other.high]
    if above:
        one = min(above, key=lambda row: row.examples)
        yield (
            f"With {one.examples:,} training examples the frozen network is already better than"
            f" the same network trained from scratch on {other.examples:,}:"
            f" {_figures(one, measure)}, beside {_figures(other, measure)} ({other.on} examples)."
        )


def _compared(one: Row, other: Row, measure: str) -> str:
    first, second = (f"{_figures(row, measure)} {WORDS[row.way](row)}" for row in (one, other))
    return f"{spelt(measure)} on {one.on} examples is {first}, and {second}"


WORDS: dict[str, Callable[[Row], str]] = {
    FLOOR: lambda row: f"with the floor {row.name}",
    SCRATCH: lambda _: "trained from scratch",
    FROZEN: lambda _: "with the network frozen",
    FINETUNED: lambda _: "with the network finetuned",
}


def _figures(row: Row, measure: str) -> str:
    value, low, high = (figure(measure, number) for number in (row.value, row.low, row.high))
    return f"{value} ({low} to {high})"


def page(found: list[Row], said: list[str], measure: str) -> str:
    """The table and what follows from it, in Markdown."""
    lines = ["# Was transfer worth it?", "", *(f"- {sentence}" for sentence in said), ""]
    lines += [
        "Two ways are told apart where their intervals do not overlap. The intervals are those of"
        " the stages, each of one way alone.",
        "",
        f"| way | network | training examples | on | {spelt(measure)} | interval | from |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found:
        value, low, high = (figure(measure, one) for one in (row.value, row.low, row.high))
        cells = (row.way, row.name, f"{row.examples:,}", row.on, value, f"{low} to {high}")
        lines.append(f"| {' | '.join(cells)} | {row.source} |")
    return "\n".join(lines) + "\n"

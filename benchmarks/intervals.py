"""How often do 95 % intervals hold the truth, if test examples come in groups?

    python -m benchmarks intervals [--draws DRAWS]

Each draw makes up a test split: the share of right answers in a group is beta distributed about the
true accuracy, and the answers in it are binomial (beta-binomial). Sizes are even, ten in each
group, or log-normal about ten. Every draw is measured in four ways: by percentiles of resampled
examples, as `evaluate` did before it knew of groups; by percentiles of resampled groups; by the
expanded percentiles that it takes for measures other than proportions; and by Wilson's interval
with an effective number of examples, which it takes for proportions. At the end, two heads and
equal slices are compared.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.harness import table
from pipeline.evaluation.intervals import (
    ENOUGH,
    difference_interval,
    even_groups,
    expanded,
    mean_interval,
    too_few,
    wilson,
)
from pipeline.evaluation.metrics import interval
from pipeline.evaluation.slices import slice_table

Floats = npt.NDArray[np.float64]

CONFIDENCE, RESAMPLES, SIZE = 0.95, 1000, 10
ACCURACIES, GROUPS = (0.7, 0.9, 0.95), (15, 40, 100)
SPREADS = {"ten each": 0.0, "uneven": 0.5, "very uneven": 1.0}  # of the sizes' logarithms
ALONE = (24, 40, 150, 400, 1000)  # examples, without groups


class Cell(NamedTuple):
    """Shares of the draws in which each interval held the truth, and the last one's mean width."""

    even: float
    by_example: float
    by_group: float
    expanded: float
    wilson: float
    width: float


COLUMNS = (
    "groups | {} | accuracy | even groups {{:.0f}} | by example {{:.3f}} | by group {{:.3f}}"
    " | expanded {{:.3f}} | Wilson {{:.3f}} | its width {{:.2f}}"
)


def measure(draws: int = 1000) -> str:
    """The page."""
    cells = {
        (str(groups), sizes, f"{accuracy:g}"): cell(groups, SPREADS[sizes], accuracy, 1 / 3, draws)
        for sizes in SPREADS
        for groups in GROUPS
        for accuracy in ACCURACIES
    }
    others = {
        (str(groups), f"{alike:g}", f"{accuracy:g}"): cell(groups, 0, accuracy, alike, draws)
        for alike in (0.0, 0.8)
        for groups in GROUPS[:2]
        for accuracy in ACCURACIES
    }
    single = {
        (str(examples), f"{accuracy:g}"): alone(examples, accuracy, draws)
        for examples in ALONE
        for accuracy in ACCURACIES
    }
    differing = [
        (*map(str, of), *apart(*of, draws))
        for groups, size in ((24, 1), (40, 1), (150, 1), (6, SIZE), (15, SIZE), (40, SIZE))
        for of in ((groups, size, 0.02, 0.02), (groups, size, 0.1, 0.02), (groups, size, 0.3, 0.05))
    ]
    sliced = [
        (*map(str, of), *called(*of, draws))
        for of in ((5, 10, 0), (10, 30, 0), (0, 0, 20), (5, 5, 10))
    ]
    every = [*cells.items(), *others.items()]
    few = [found for (groups, _, _), found in every if too_few(int(groups), found.even)]
    enough = [found for _, found in every if found not in few]
    uneven, very = SPREADS["uneven"], SPREADS["very uneven"]
    return f"""# Do 95 % intervals hold the truth, if examples come in groups?

A figure is the share of {draws:,} draws in which the interval held the true accuracy. The
intra-class correlation is 1/3. Groups have ten examples each, or sizes that are log-normal about
ten with a standard deviation of the logarithm of {uneven:g} (uneven) or {very:g} (very uneven).
"Even groups" is as how many groups of equal size they weigh, on average.

- **by example**: percentiles of resampled examples, as all intervals were before.
- **by group**: percentiles of resampled groups.
- **expanded**: the same, taken further out; `evaluate` has them for all other measures.
- **Wilson**: with an effective number of examples; `evaluate` has it for accuracy, top-k accuracy
  and exact match.

{table(COLUMNS.format("sizes"), [(*of, *found) for of, found in cells.items()])}

## Without correlation, and with more of it

Groups have ten examples each.

{table(COLUMNS.format("correlation"), [(*of, *found) for of, found in others.items()])}

## What `evaluate` warns of

It warns of fewer than {ENOUGH} even groups, and of groups that weigh as less than half as
many even ones. The least share of draws, in both tables above, in which an interval held the
truth:

{
        table(
            "| Wilson {:.3f} | expanded {:.3f}",
            [
                ("it warns", least(few, "wilson"), least(few, "expanded")),
                ("it does not", least(enough, "wilson"), least(enough, "expanded")),
            ],
        )
    }

Expanded percentiles are worst where nearly all answers are right, as few groups then differ.

## Without groups

Percentiles are those of resampled examples, as all intervals were before. Wilson's interval takes
the number of examples as it is.

{table(ONE_BY_ONE, [(*of, *found) for of, found in single.items()])}

## Differences

The share of {draws:,} draws in which an interval held the true difference of two accuracies on the
same examples: Student's interval, and with one win and one loss added, as `headstart measure` has
it. Groups have an intra-class correlation of 1/3.

{table(DIFFERING, differing)}

## Slices

The share of {draws:,} draws in which two slices of the same accuracy, 0.8, were called different at
p ≤ 0.05: by Fisher's test of the examples, as before, and by moving whole groups. Groups are
uneven, and have an intra-class correlation of 1/3; those on both sides have, at random, one share
of right answers or one for each side.

{table(SLICED, sliced)}
"""


SLICED = "groups inside | outside | on both sides | Fisher {:.3f} | whole groups {:.3f}"
DIFFERING = (
    "groups | examples in each | only one right | only the other | Student {:.3f}"
    " | with added {:.3f} | its width {:.2f}"
)
ONE_BY_ONE = "examples | accuracy | percentiles {:.3f} | Wilson {:.3f} | its width {:.2f}"


def cell(groups: int, spread: float, accuracy: float, alike: float, draws: int) -> Cell:
    """Measure `draws` test splits of so many groups, whose answers are `alike` (correlation)."""
    generator = np.random.default_rng([groups, round(100 * spread), round(100 * accuracy)])
    sizes = np.exp(spread * generator.standard_normal((draws, groups)) - spread**2 / 2)
    sizes = np.maximum(1, np.round(SIZE * sizes)).astype(np.int64)
    shares = np.full(sizes.shape, accuracy)
    if alike:
        both = (1 - alike) / alike
        shares = generator.beta(both * accuracy, both * (1 - accuracy), sizes.shape)
    right = generator.binomial(sizes, shares)
    # One set of weights for all draws: each holds the truth or not, whatever the others do.
    times = generator.multinomial(groups, np.full(groups, 1 / groups), RESAMPLES)
    resampled = (times @ right.T) / (times @ sizes.T)
    held = np.zeros((4, draws), bool)
    held[0] = holds(accuracy, *of_examples(right.sum(axis=1), sizes.sum(axis=1), generator))
    held[1] = holds(accuracy, *interval(resampled, CONFIDENCE))
    widths, even = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        codes = np.repeat(np.arange(groups), sizes[draw])
        places = np.arange(len(codes)) - np.repeat(
            np.cumsum(sizes[draw]) - sizes[draw], sizes[draw]
        )
        answers = places < np.repeat(right[draw], sizes[draw])
        ends = interval(resampled[:, draw], expanded(CONFIDENCE, codes))
        held[2, draw] = ends[0] <= accuracy <= ends[1]
        low, high = wilson(answers, CONFIDENCE, codes)
        held[3, draw], widths[draw] = low <= accuracy <= high, high - low
        even[draw] = even_groups(codes)
    by_example, by_group, further_out, of_shares = held.mean(axis=1).tolist()
    width = float(widths.mean())
    return Cell(float(even.mean()), by_example, by_group, further_out, of_shares, width)


def alone(examples: int, accuracy: float, draws: int) -> tuple[float, float, float]:
    """The same without groups: percentiles, Wilson's interval and its mean width."""
    generator = np.random.default_rng([examples, round(100 * accuracy)])
    right = generator.binomial(examples, accuracy, draws)
    percentiles = holds(accuracy, *of_examples(right, np.full(draws, examples), generator))
    ends = np.array([wilson(np.arange(examples) < count, CONFIDENCE) for count in right])
    widths = float((ends[:, 1] - ends[:, 0]).mean())
    return float(percentiles.mean()), float(holds(accuracy, *ends.T).mean()), widths


def apart(groups: int, size: int, won: float, lost: float, draws: int) -> tuple[float, ...]:
    """Measure two heads of which in `won` of the examples only one is right, in `lost` the other.

    Answers in a group are Dirichlet-multinomial.
    """
    generator = np.random.default_rng([groups, size, round(100 * won), round(100 * lost)])
    shares = generator.dirichlet([2 * won, 2 * lost, 2 * (1 - won - lost)], (draws, groups))
    counts = generator.multinomial(size, shares).reshape(draws, -1)
    codes, one = np.repeat(np.arange(groups), size), np.tile([1.0, -1.0, 0.0], groups)
    ends = np.array(
        [
            [ends_of(np.repeat(one, count), CONFIDENCE, codes) for count in counts]
            for ends_of in (mean_interval, difference_interval)
        ]
    )
    held = holds(won - lost, *np.moveaxis(ends, 2, 0)).mean(axis=1)
    return (*held.tolist(), float((ends[1, :, 1] - ends[1, :, 0]).mean()))


def called(inside: int, outside: int, mixed: int, draws: int) -> tuple[float, float]:
    """How often equal slices differ by Fisher's test, and if whole groups are moved."""
    generator, groups = np.random.default_rng([inside, outside, mixed]), inside + outside + mixed
    found = np.zeros((draws, 2))
    for draw in range(draws):
        sizes = np.exp(0.5 * generator.standard_normal(groups) - 0.125)
        codes = np.repeat(np.arange(groups), np.maximum(1, np.round(SIZE * sizes)).astype(int))
        side = generator.random(len(codes)) < 0.5
        side[codes < inside + outside] = codes[codes < inside + outside] < inside
        shares = generator.beta(1.6, 0.4, (2, groups))
        shares[1] = np.where(generator.random(groups) < 0.5, shares[0], shares[1])
        right = generator.random(len(codes)) < shares[side.astype(int), codes]
        slices = pd.DataFrame({"slice": np.where(side, "inside", "outside")})
        for place, of in enumerate((None, codes)):
            table = slice_table(slices, right, CONFIDENCE, groups=of)
            found[draw, place] = table["p_value"].iloc[0] <= 1 - CONFIDENCE
    by_example, by_group = found.mean(axis=0).tolist()
    return by_example, by_group


def of_examples(
    right: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Percentile intervals of resampled examples; how many are right is then binomial."""
    return interval(
        generator.binomial(sizes, right / sizes, (RESAMPLES, len(right))) / sizes, CONFIDENCE
    )


def holds(truth: float, low: Floats, high: Floats) -> npt.NDArray[np.bool_]:
    """Whether each interval holds the truth."""
    return (low <= truth) & (truth <= high)


def least(cells: Iterable[Cell], name: str) -> float:
    """The least share among the cells."""
    return float(min((getattr(cell, name) for cell in cells), default=np.nan))

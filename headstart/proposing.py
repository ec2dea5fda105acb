"""Which unlabelled examples to label next.

Proposals are near to many examples that no labelled example is near to. They are the greedy maximum
of a facility-location function (Wei, Iyer and Bilmes, "Submodularity in data subset selection and
active learning", ICML 2015), found by lazy evaluation (Minoux, 1978). With few labels, all examples
count alike. Proposals are then typical and diverse, which raises the accuracy most (Hacohen, Dekel
and Weinshall, "Active learning on a budget", ICML 2022). With more labels, an example counts more
if the head's margin on it is smaller (after Zhdanov, "Diverse mini-batch active learning", 2019,
who weights k-means).

One proposal in `EACH` is drawn at random: only on such examples can accuracy be measured. They come
from a part of the pool that a hash sets apart, from which no others are chosen. Examples drawn from
the rest would be harder or easier than the pool, because some of the rest were chosen before.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.tables.unit import unit

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

EACH = 5
ENOUGH = 4  # labels of a class, on average, from which margins choose (`benchmarks/next.md`)
MOST, COVERED = 20_000, 2_000  # candidates, and examples that they should be near to
RANDOM, TYPICAL, MARGIN = "random", "typical", "margin"


class Guess(NamedTuple):
    """What the project's head predicts for n examples: classes, probabilities and margins."""

    classes: list[str]
    probabilities: Doubles
    margins: Doubles


class Proposal(NamedTuple):
    """The position of an example in the pool, and why it is proposed."""

    place: int
    why: str


def proposals(
    digests: Sequence[str], features: Floats, labelled: int, margins: Doubles | None, count: int
) -> list[Proposal]:
    """Return at most `count` proposals, those at random between the others.

    Args:
        digests: of n examples of the pool without a label, then of m that have one.
        features: [n + m, d].
        labelled: m.
        margins: [n], the probability of the first class minus that of the second, by a head that is
            good enough to choose; None without one.
        count: the size of the batch.
    """
    unlabelled = len(digests) - labelled
    count = min(count, unlabelled)
    hashes = np.array([unit(f"next:{digest}") for digest in digests])
    apart = hashes < 1 / EACH
    order = np.argsort(hashes[:unlabelled])
    some = max(-(-count // EACH), count - int((~apart[:unlabelled]).sum()))
    drawn, others = order[:some], order[some:]
    rest = others[~apart[others]][: max(MOST, count)]
    # If a labelled example that was drawn counted, none like it would be chosen, and the accuracy
    # on such examples would be too low.
    known = unlabelled + np.flatnonzero(~apart[unlabelled:])
    weights = np.ones(len(rest)) if margins is None else 1 - margins[rest]
    taken = _near_to_most(features[rest], features[known], weights, count - len(drawn))
    why = TYPICAL if margins is None else MARGIN
    chosen = [Proposal(int(place), why) for place in rest[taken]]
    found: list[Proposal] = []
    for place in drawn.tolist():
        found += chosen[: EACH - 1]
        del chosen[: EACH - 1]
        found.append(Proposal(place, RANDOM))
    return found + chosen


def _near_to_most(points: Floats, known: Floats, weights: Doubles, count: int) -> list[int]:
    """Return rows of points so that, with the known points, one of them is near to each point.

    Nearness to each of the first `COVERED` points is summed with its weight, and the sum maximized.

    Args:
        points: [n, d], in random order.
        known: [m, d].
        weights: [n], how much it counts to be near to each point.
        count: how many rows.
    """
    if not count:
        return []
    centre = points.mean(axis=0)
    points, known = _directions(points - centre), _directions(known - centre)
    first, weights = points[:COVERED], weights[:COVERED].astype(np.float32)
    similar = points @ first.T
    nearest = (first @ known.T).max(axis=1, initial=-1)
    gains = np.maximum(similar - nearest, 0) @ weights
    taken: list[int] = []
    while len(taken) < count:
        best = int(gains.argmax())
        gains[best] = np.maximum(similar[best] - nearest, 0) @ weights  # it can only have fallen
        if gains.argmax() == best:
            taken.append(best)
            nearest = np.maximum(nearest, similar[best])
            gains[best] = -1
    return taken


def _directions(points: Floats) -> Floats:
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    found: Floats = points / np.maximum(lengths, 1e-12)
    return found

"""Which unlabelled examples to label next.

With few labels, typical and diverse examples teach most (TypiClust: Hacohen, Dekel and Weinshall,
"Active learning on a budget", ICML 2022). With more, those that the head finds hard do, if they
differ from each other (Citovsky et al., "Batch active learning at scale", NeurIPS 2021).
One proposal in `EACH` is drawn at random: only on such examples can accuracy be measured. They come
from a part of the pool that a hash sets apart. If they came from what is left of the pool, they
would be harder than it, or easier, because others were chosen before.
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
HARD = 10  # candidates of small margin for each proposal
NEAREST = 20  # by whose distance an example is typical
MOST_CLUSTERS, ROUNDS = 500, 10
SEED = 0
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
        digests: of n examples of the pool.
        features: [n, d].
        labelled: how many examples have labels already, which the pool does not have.
        margins: [n], the probability of the first class minus that of the second, by a head that is
            good enough to choose; None without one.
        count: the size of the batch.
    """
    count = min(count, len(digests))
    hashes = np.array([unit(f"next:{digest}") for digest in digests])
    apart = hashes < 1 / EACH
    drawn = np.argsort(hashes)[: max(-(-count // EACH), count - int((~apart).sum()))]
    rest = np.setdiff1d(np.flatnonzero(~apart), drawn)
    wanted = min(count - len(drawn), len(rest))
    centred = features[rest] - features[rest].mean(axis=0) if len(rest) else features[rest]
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    unit_length = centred / np.maximum(lengths, 1e-12)
    if margins is None:
        taken, why = _typical(unit_length, wanted, labelled), TYPICAL
    else:
        taken, why = _hard(unit_length, margins[rest], wanted), MARGIN
    others = [Proposal(int(place), why) for place in rest[taken]]
    found: list[Proposal] = []
    for place in drawn.tolist():
        found += others[: EACH - 1]
        del others[: EACH - 1]
        found.append(Proposal(place, RANDOM))
    return found + others


def _typical(points: Floats, count: int, labelled: int) -> Integers:
    """Return the most typical row of each of the largest clusters."""
    if not count:
        return np.array([], np.int64)
    clusters = _clusters(points, min(count + labelled, MOST_CLUSTERS, len(points)))
    sizes = np.bincount(clusters)
    order = np.argsort(-sizes, kind="stable")
    ranked = [_by_typicality(points, np.flatnonzero(clusters == one)) for one in order]
    taken: list[int] = []
    while len(taken) < count:  # further rounds if there are fewer clusters than proposals
        for rows in ranked:
            if rows and len(taken) < count:
                taken.append(rows.pop(0))
    return np.array(taken)


def _by_typicality(points: Floats, rows: Integers) -> list[int]:
    """Return rows of a cluster, those whose neighbours are nearest first."""
    some = rows[: 20 * NEAREST]  # of a large cluster a part is enough
    distances = 1 - points[some] @ points[some].T
    nearest = np.sort(distances, axis=1)[:, 1 : NEAREST + 1]
    mean = nearest.mean(axis=1) if nearest.shape[1] else np.zeros(len(some))
    return [*some[np.argsort(mean, kind="stable")].tolist(), *rows[len(some) :].tolist()]


def _hard(points: Floats, margins: Doubles, count: int) -> Integers:
    """Return rows with small margins, one for each cluster of the hardest ones."""
    if not count:
        return np.array([], np.int64)
    hardest = np.argsort(margins, kind="stable")[: HARD * count]
    clusters = _clusters(points[hardest], min(count, MOST_CLUSTERS))
    first = [np.flatnonzero(clusters == one).tolist() for one in np.unique(clusters)]
    taken: list[int] = []
    while len(taken) < count:
        for rows in first:
            if rows and len(taken) < count:
                taken.append(rows.pop(0))
    chosen: Integers = hardest[np.array(taken)]
    return chosen


def _clusters(points: Floats, count: int) -> Integers:
    """Return the cluster of each row: spherical k-means from spread-out starts (k-means++)."""
    random = np.random.default_rng(SEED)
    centres = np.empty((count, points.shape[1]), np.float32)
    distance = np.full(len(points), np.inf)
    place = int(random.integers(len(points)))
    for number in range(count):
        centres[number] = points[place]
        distance = np.minimum(distance, np.maximum(1 - points @ points[place], 0))
        total = distance.sum()
        place = int(random.choice(len(points), p=distance / total)) if total > 0 else 0
    for _ in range(ROUNDS):
        nearest = (points @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, points)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)
    found: Integers = (points @ centres.T).argmax(axis=1)
    return found

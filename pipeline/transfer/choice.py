"""Which backbone suits some labelled examples, alone or joined with others: by cross-validation.

Each candidate is judged by the loss of a linear head on its features, on examples that the head has
not seen: the log loss of one label or of several, half the squared error of numbers in units of
their standard deviation. Candidates are compared on the same examples, so that their difference is
known better than either figure.
"""

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from ..core.errors import DataError
from ..evaluation.comparing import surprise, value
from ..heads.head import one_thread
from ..tables import joined
from ..tables.features import Split
from ..tables.power import raised
from ..tables.task_names import CLASSIFICATION
from .quick_head import decays_for, quick_heads, units_for

Floats = npt.NDArray[np.float32]
Losses = npt.NDArray[np.float64]

FOLDS = 5
DECAYS = np.geomspace(1e-4, 1, 9).tolist()  # L2 penalties that each candidate's head may have
MOST_JOINED = 3
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Candidate:
    """A backbone, or several joined by `+`, on n examples.

    `losses` [n] are those of examples when they were held out, and `score` is the measure of
    `comparing` of all their answers. `milliseconds` is what an example costs when predicting, and
    `weight_decay` the penalty of the lowest loss.
    """

    name: str
    losses: Losses
    score: float
    milliseconds: float
    weight_decay: float


@dataclass(frozen=True)
class Difference:
    """By how much a candidate's mean loss is above that of the best, and the interval of that."""

    mean: float
    low: float
    high: float

    @property
    def holds_0(self) -> bool:
        """Whether the two cannot be told apart."""
        return self.low <= 0 <= self.high


def unions(networks: Sequence[str]) -> list[str]:
    """Each network, and each join of two or three."""
    return [
        "+".join(names)
        for count in range(1, min(MOST_JOINED, len(networks)) + 1)
        for names in itertools.combinations(networks, count)
    ]


def folds(labels: npt.NDArray[Any], groups: Sequence[str]) -> npt.NDArray[np.int64]:
    """Which of `FOLDS` folds each example is held out in, [n]; a group is in one fold.

    Folds have each class in its share; of several labels and of numbers they are drawn at random.

    Raises:
        DataError: a class has too few examples or groups to be both learned and asked about, or
            there are fewer groups than folds.
    """
    found = np.empty(len(labels), dtype=np.int64)
    if labels.ndim == 2:
        divide = GroupKFold(FOLDS, shuffle=True, random_state=0)
        parts = divide.split(groups, groups=groups)
    else:
        stratified = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
        parts = stratified.split(labels, labels, groups)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a class with fewer than FOLDS
            for fold, (_, held_out) in enumerate(parts):
                found[held_out] = fold
    except ValueError as error:
        raise DataError(f"choose: {' '.join(str(error).split())}") from None
    if labels.ndim == 2:
        return found
    everything = set(labels.tolist())
    for fold in range(FOLDS):
        if set(labels[found != fold].tolist()) != everything:
            raise DataError(
                "choose: a class has too few examples, or lies in one group; it needs some that are"
                " learned from and others that are asked about"
            )
    return found


def judged(
    name: str,
    parts: Sequence[Floats],
    labels: npt.NDArray[Any],
    held_out: npt.NDArray[np.int64],
    power: float,
    counts: bool,
    milliseconds: float,
    task: str = CLASSIFICATION,
) -> Candidate:
    """A candidate by cross-validation, with the penalty of its lowest loss.

    Args:
        name: of the candidate.
        parts: [n, d] of each of its networks.
        labels: as `tables.targets.of` gives them.
        held_out: [n], as `folds` gives it.
        power: that features are raised to.
        counts: whether features are counts of terms.
        milliseconds: that an example costs.
        task: of the labels.
    """
    features = raised(joined.beside(parts), power)
    classes = int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]
    units, decays = units_for(task, labels), decays_for(task, DECAYS)
    shorter = 1.0
    if features.shape[1] > len(features) and not counts:
        shorter = len(features) / features.shape[1]
        features = rotated(features)
    # `fit_heads` scales features by their mean square: of fewer numbers each is larger.
    penalties = [decay * shorter for decay in decays]
    losses = np.full((len(decays), len(labels)), np.inf)
    # What the score is made of: whether an answer is right, or the answer.
    kept = np.zeros((len(decays), len(labels), 1 if task == CLASSIFICATION else classes))
    for fold in range(FOLDS):
        asked = held_out == fold
        learnt, none = _rows(features, labels, ~asked), _rows(features, labels, asked & ~asked)
        heads = quick_heads(learnt, none, task, classes, penalties, counts)
        for number, trained in enumerate(heads):
            if trained.head is None:
                continue
            logits = trained.head.logits(features[asked])
            losses[number, asked] = surprise(task, logits, labels[asked], units)
            if task == CLASSIFICATION:
                logits = (logits.argmax(axis=1) == labels[asked])[:, None]
            kept[number, asked] = logits
    # An example of which no label is known says nothing of any candidate.
    losses = losses[:, ~np.isnan(losses).all(axis=0)]
    best = int(losses.mean(axis=1).argmin())
    score = float(kept[best].mean())
    if task != CLASSIFICATION:
        score = value(task, kept[best], labels)
    return Candidate(name, losses[best], score, milliseconds, decays[best])


def rotated(features: Floats) -> Floats:
    """Features [n, d] in as many numbers as there are rows, [n, n], for n below d.

    All products of rows are as before, and heads with an L2 penalty depend on nothing else: they
    answer the same, in a fraction of the time.
    """
    wide = (features - features.mean(axis=0)).astype(np.float64)
    with one_thread():
        values, vectors = np.linalg.eigh(wide @ wide.T)
    turned: Floats = (vectors * np.sqrt(np.maximum(values, 0))).astype(np.float32)
    return turned


def difference(one: Losses, best: Losses, confidence: float = CONFIDENCE) -> Difference:
    """How much more one loses than another on the same examples [n], with Student's interval."""
    apart = one - best
    error = float(apart.std(ddof=1)) / np.sqrt(len(apart))
    reach = float(stats.t.ppf((1 + confidence) / 2, len(apart) - 1)) * error
    mean = float(apart.mean())
    return Difference(mean, mean - reach, mean + reach)


def winner(candidates: Sequence[Candidate], budget: float | None) -> tuple[Candidate, Candidate]:
    """The candidate to take, and the one of the lowest loss.

    Of those that cannot be told from the one of the lowest loss, the cheapest is taken.

    Args:
        candidates: one or more.
        budget: milliseconds that an example may cost; None for any.

    Raises:
        DataError: none is within the budget.
    """
    within = [one for one in candidates if budget is None or one.milliseconds <= budget]
    if not within:
        least = min(candidates, key=lambda one: one.milliseconds)
        raise DataError(
            f"choose: no backbone answers within {budget:g} ms; the fastest, {least.name}, takes"
            f" {least.milliseconds:.1f} ms"
        )
    best = min(within, key=lambda one: (one.losses.mean(), one.milliseconds))
    alike = [one for one in within if one is best or difference(one.losses, best.losses).holds_0]
    return min(alike, key=lambda one: (one.milliseconds, one.losses.mean())), best


def _rows(features: Floats, labels: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> Split:
    numbers = np.flatnonzero(mask)
    names = numbers.astype(str)
    return Split(names, names, np.zeros(len(numbers), int), labels[mask], features[mask])

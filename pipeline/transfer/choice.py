"""Which backbone suits some labelled examples, alone or joined with others: by cross-validation.

Each candidate is judged by the log loss of a linear head on its features, on examples that the head
has not seen. Candidates are compared on the same examples, so that their difference is known better
than either figure.
"""

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.model_selection import StratifiedGroupKFold

from ..core.errors import DataError
from ..heads.fit import fit_heads
from ..heads.head import one_thread
from ..heads.hyperparameters import from_used
from ..heads.trained import Schedule
from ..tables import joined
from ..tables.features import Split
from ..tables.power import raised

Floats = npt.NDArray[np.float32]
Losses = npt.NDArray[np.float64]

FOLDS = 5
DECAYS = np.geomspace(1e-4, 1, 9).tolist()  # L2 penalties that each candidate's head may have
MOST_JOINED = 3
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Candidate:
    """A backbone, or several joined by `+`, on n examples.

    `losses` [n] are the log losses of examples when they were held out, and `right` [n] whether
    they were classified correctly. `milliseconds` is what an example costs when predicting, and
    `weight_decay` the penalty of the lowest loss.
    """

    name: str
    losses: Losses
    right: npt.NDArray[np.bool_]
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


def folds(labels: npt.NDArray[np.int64], groups: Sequence[str]) -> npt.NDArray[np.int64]:
    """Which of `FOLDS` folds each example is held out in, [n]; a group is in one fold.

    Raises:
        DataError: a class has too few examples or groups to be both learned and asked about.
    """
    found = np.empty(len(labels), dtype=np.int64)
    divide = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a class with fewer than FOLDS
            for fold, (_, held_out) in enumerate(divide.split(labels, labels, groups)):
                found[held_out] = fold
    except ValueError as error:
        raise DataError(f"choose: {' '.join(str(error).split())}") from None
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
    labels: npt.NDArray[np.int64],
    held_out: npt.NDArray[np.int64],
    power: float,
    counts: bool,
    milliseconds: float,
) -> Candidate:
    """A candidate by cross-validation, with the penalty of its lowest loss.

    Args:
        name: of the candidate.
        parts: [n, d] of each of its networks.
        labels: [n].
        held_out: [n], as `folds` gives it.
        power: that features are raised to.
        counts: whether features are counts of terms.
        milliseconds: that an example costs.
    """
    features, classes = raised(joined.beside(parts), power), int(labels.max()) + 1
    shorter = 1.0
    if features.shape[1] > len(features) and not counts:
        shorter = len(features) / features.shape[1]
        features = rotated(features)
    schedule = Schedule(1, 1, 0, np.ones(classes, np.float32), counts)
    # `fit_heads` scales features by their mean square: of fewer numbers each is larger.
    choices = [
        from_used({"optimizer": "lbfgs", "weight_decay": decay * shorter}) for decay in DECAYS
    ]
    losses = np.empty((len(DECAYS), len(labels)))
    right = np.empty((len(DECAYS), len(labels)), dtype=bool)
    for fold in range(FOLDS):
        asked = held_out == fold
        learnt, none = _rows(features, labels, ~asked), _rows(features, labels, asked & ~asked)
        for number, trained in enumerate(fit_heads(learnt, none, choices, schedule, "cpu")):
            if trained.head is None:
                losses[number, asked], right[number, asked] = np.inf, False
                continue
            shares = trained.head.answers(features[asked], 1.0)
            given = shares[np.arange(len(shares)), labels[asked]]
            losses[number, asked] = -np.log(np.maximum(given, 1e-15))
            right[number, asked] = shares.argmax(axis=1) == labels[asked]
    best = int(losses.mean(axis=1).argmin())
    return Candidate(name, losses[best], right[best], milliseconds, DECAYS[best])


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


def _rows(features: Floats, labels: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]) -> Split:
    numbers = np.flatnonzero(mask)
    names = numbers.astype(str)
    return Split(names, names, np.zeros(len(numbers), int), labels[mask], features[mask])

"""What `headstart label` knows so far: which examples to propose, and how good the head is.

The accuracy is measured on the examples that were drawn at random, with heads that were not trained
on them. On examples that were chosen, it would be far too low or too high.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.intervals import wilson
from pipeline.heads.fit import fit_heads
from pipeline.heads.head import Floats, Head, one_thread, probabilities
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.scaling import PER_FEATURE
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split

from .proposing import ENOUGH, Doubles, Proposal, proposals

# Linear discriminants have no hyperparameter to choose, and take milliseconds.
LDA = Hyperparameters("lda", scaling=PER_FEATURE)
CONFIDENCE = 0.95
SHOWN = 30  # random labels from which the command may advise to stop
GAIN = 0.01  # it does so if twice as many labels raised the accuracy by at most this
TRAIN, VAL, TEST = "train", "val", "test"

Right = npt.NDArray[np.bool_]


class Taught(NamedTuple):
    """A head and its classes."""

    head: Head
    classes: npt.NDArray[np.str_]


class Accuracy(NamedTuple):
    """Whether each random example is predicted right, [n]: now, and with half of the labels."""

    right: Right
    by_half: Right

    @property
    def interval(self) -> tuple[float, float]:
        """The confidence interval of the accuracy."""
        return wilson(self.right, CONFIDENCE)

    @property
    def enough(self) -> bool:
        """Whether the second half of the labels hardly raised the accuracy."""
        return len(self.right) >= SHOWN and self.right.mean() - self.by_half.mean() <= GAIN


class Learner:
    """The labels so far, and heads that learn from them.

    From `enough` labels of a class, on average, the head chooses what is proposed.
    """

    enough = ENOUGH

    def __init__(self, digests: list[str], features: Floats, pool: int, counts: bool) -> None:
        """Start without labels.

        Args:
            digests: of n examples: those of the pool, then others, which are never proposed.
            features: [n, d].
            pool: how many examples the pool has.
            counts: whether features are counts of terms.
        """
        self.digests, self.features, self.pool, self.counts = digests, features, pool, counts
        self.labels: dict[int, tuple[str, str]] = {}  # label and split, in the order of labelling
        self.left_out: set[int] = set()

    @property
    def rest(self) -> list[int]:
        """The examples of the pool that may be proposed."""
        gone = self.labels.keys() | self.left_out
        return [place for place in range(self.pool) if place not in gone]

    @property
    def taught(self) -> list[int]:
        """The labelled examples that heads learn from, in the order of labelling."""
        return [place for place, (_, split) in self.labels.items() if split == TRAIN]

    @property
    def drawn(self) -> list[int]:
        """The labelled examples of the pool that were drawn at random."""
        return [
            place
            for place, (_, split) in self.labels.items()
            if split != TRAIN and place < self.pool
        ]

    def batch(self, size: int) -> list[Proposal]:
        """Return at most `size` proposals, in the order in which to label."""
        rest = np.array(self.rest, np.int64)
        if not len(rest):
            return []
        classes = len({label for label, _ in self.labels.values()})
        with one_thread():
            margins = None
            # A head that knew the random ones would find their neighbours easy. None of these would
            # be chosen, and the accuracy on the random ones would be too low.
            if len(self.labels) >= self.enough * classes and (head := self._taught(self.taught)):
                margins = self._margins(head, rest)
            places = [*rest, *self.labels, *self.left_out]
            digests = [self.digests[place] for place in places]
            known = len(places) - len(rest)
            found = proposals(digests, self.features[places], known, margins, size)
        return [Proposal(int(rest[place]), why) for place, why in found]

    def accuracy(self) -> Accuracy | None:
        """Return how good the head is; None as long as nothing can be measured."""
        taught = self.taught
        own = [place for place in taught if place < self.pool]
        later = {*own[len(own) // 2 :]}
        with one_thread():
            whole = self._taught(taught)
            fewer = self._taught([place for place in taught if place not in later])
            if whole is None or not self.drawn:
                return None
            right = self._right(whole)
            return Accuracy(right, self._right(fewer) if fewer else np.zeros_like(right))

    def _right(self, head: Taught) -> Right:
        best = head.head.logits(self.features[self.drawn]).argmax(axis=1)
        truth = np.array([self.labels[place][0] for place in self.drawn])
        right: Right = head.classes[best] == truth
        return right

    def _margins(self, head: Taught, rest: npt.NDArray[np.int64]) -> Doubles:
        two = np.sort(probabilities(head.head.logits(self.features[rest])), axis=1)[:, -2:]
        margins: Doubles = two[:, 1] - two[:, 0]
        return margins

    def _taught(self, places: list[int]) -> Taught | None:
        """Return a head trained on some labels; None if they are of fewer than two classes."""
        names = np.array([self.labels[place][0] for place in places], str)
        classes, codes = np.unique(names, return_inverse=True)
        if len(classes) < 2:
            return None
        rows = Split(
            digests=np.array([self.digests[place] for place in places]),
            paths=np.array([""] * len(places)),
            views=np.zeros(len(places), np.int32),
            labels=codes,
            features=self.features[places],
        )
        schedule = Schedule(1, 1, 0, np.ones(len(classes), np.float32), self.counts)
        (trained,) = fit_heads(rows, rows.take(slice(0)), [LDA], schedule, "cpu")
        return None if trained.head is None else Taught(trained.head, classes)

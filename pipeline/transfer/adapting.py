"""Heads for another domain, of which there are examples without labels, and which one to take.

`prior_shift` gives the head's bias the classes' shares in the target, `coral` trains the head on
source features that are aligned with the target's, and `both` is the one after the other. One of
them is taken by what can be known without a label of the target (`choose`), or none.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..core.errors import TrainingError
from ..heads.fit import fit_heads, refit
from ..heads.head import Floats, Head, fit_temperature, one_thread, probabilities
from ..heads.hyperparameters import Hyperparameters
from ..heads.trained import Figures, Schedule
from ..tables.features import Split, view_0
from . import coral, domains, prior_shift

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NONE, PRIOR_SHIFT, CORAL, BOTH = "none", "prior_shift", "coral", "both"
APART = 0.05  # p-value below which the target is another domain
SURE = 0.01  # p-value below which shares, or the expected accuracy, are other ones


@dataclass(frozen=True)
class Source:
    """The labelled examples, and how the head that `train` left was trained on them.

    `train` holds every view; `refit` says whether it was trained again with `val` too.
    """

    train: Split
    val: Split
    hyperparameters: Hyperparameters
    schedule: Schedule
    device: str
    refit: bool

    def originals(self) -> Split:
        """View 0 of all examples, sorted by digest."""
        return view_0({"train": self.train, "val": self.val})

    def shares(self) -> Doubles:
        """The shares [c] of the classes that the head has learned: those of its loss."""
        weights = self.schedule.class_weights
        counts = np.bincount(self.originals().labels, minlength=len(weights)) * weights
        shares: Doubles = counts / counts.sum()
        return shares

    def aligned(self, alignment: coral.Alignment) -> "Source":
        """The same with features as the target has them."""
        train, val = (
            replace(rows, features=alignment.aligned(rows.features))
            for rows in (self.train, self.val)
        )
        return replace(self, train=train, val=val)


@dataclass(frozen=True)
class Way:
    """A head for the target, with the examples that it was trained on as it has seen them.

    `judge` is the head before it saw validation examples, `kept` its figures, and `temperature`
    what these examples say of it. `shares` are those of the classes [c] that the answers expect.
    """

    source: Source
    head: Head
    judge: Head
    kept: Figures
    temperature: float
    shares: Doubles

    def of_target(self, target: Floats) -> Doubles:
        """The probabilities [m, c] of the target's features, of the judge."""
        return probabilities(self.judge.logits(target), self.temperature)


def trained(source: Source) -> Way:
    """A head trained as `train` trains the one that it has chosen.

    Raises:
        TrainingError: it was lost.
    """
    of_head = source.hyperparameters, source.schedule, source.device
    (one,) = fit_heads(source.train, source.val, [of_head[0]], *of_head[1:])
    if one.head is None or one.kept is None:
        raise TrainingError(f"a head was {one.status}; lower train.learning_rate")
    temperature = fit_temperature(one.head.logits(source.val.features), source.val.labels)
    head = refit(one, source.train, source.val, *of_head[1:]) if source.refit else one.head
    return Way(source, head, one.head, one.kept, temperature, source.shares())


def with_shares(way: Way, shares: Doubles) -> Way:
    """The same for other shares of the classes: their ratio is added to the logits."""
    added = way.temperature * np.log(shares / way.shares)
    heads = {
        name: replace(head, bias=(head.bias + added).astype(np.float32))
        for name, head in (("head", way.head), ("judge", way.judge))
    }
    return replace(way, shares=shares, **heads)


def ways(source: Source, target: Floats) -> dict[str, Way]:
    """All heads, by name; of counts of terms, which cannot be turned, none is aligned.

    Args:
        source: the labelled examples.
        target: features [m, d] of examples of another domain, in random order.
    """
    found = {NONE: trained(source)}
    originals = source.originals()
    if not source.schedule.counts:
        with one_thread():
            alignment = coral.fitted(originals.features, target)
            aligned = source.aligned(alignment)
        found[CORAL] = trained(aligned)
    for name, after in ((NONE, PRIOR_SHIFT), (CORAL, BOTH)):
        if name in found:
            way = found[name]
            shares = prior_shift.shares(way.of_target(target), way.shares)
            found[after] = with_shares(way, shares)
    return found


@dataclass(frozen=True)
class Evidence:
    """What is known without a label of the target.

    `apart` is the p-value of that nothing but the classes' shares differs, `shares` that of that
    these do not, and `drop` that of that the head as it is does as well on the target.
    `expected` is the accuracy that each way is expected to have there, and `source` that of the
    head as it is on validation examples.
    """

    apart: float
    shares: float
    drop: float
    source: float
    expected: dict[str, float]


def evidence(found: dict[str, Way], target: Floats) -> Evidence:
    """Compare the target with the source, and say what to expect of each way."""
    way = found[NONE]
    originals = way.source.originals()
    shares = found[PRIOR_SHIFT].shares
    alike = domains.in_shares(originals.labels, shares)
    with one_thread():
        apart = domains.apart(originals.features[alike], target)
    val = way.source.val
    on_val = probabilities(way.judge.logits(val.features), way.temperature)
    on_target = way.of_target(target)
    other = domains.other_shares(on_val.argmax(axis=1), on_target.argmax(axis=1), len(shares))
    expected = {}
    for name, one in found.items():
        of_val = probabilities(one.judge.logits(one.source.val.features), one.temperature)
        expected[name] = expected_accuracy(of_val, val.labels, one.of_target(target))
    right = int((on_val.argmax(axis=1) == val.labels).sum())
    there = round(expected[NONE] * len(target))
    table = [[right, len(val.labels) - right], [there, len(target) - there]]
    drop = float(stats.fisher_exact(table, alternative="greater").pvalue)
    return Evidence(apart, other, drop, right / len(val.labels), expected)


def expected_accuracy(of_val: Doubles, labels: Integers, of_target: Doubles) -> float:
    """The accuracy to expect of a head on a target, from its largest probabilities there.

    It is the share of target examples whose largest probability is above a threshold, above which
    as many validation examples are as the head has right (average thresholded confidence; Garg et
    al., "Leveraging unlabeled data to predict out-of-distribution performance", ICLR 2022).

    Args:
        of_val: probabilities [n, c] of validation examples that the head has not learned from.
        labels: of these, [n].
        of_target: probabilities [m, c].
    """
    wrong = float((of_val.argmax(axis=1) != labels).mean())
    threshold = np.quantile(of_val.max(axis=1), wrong)
    return float((of_target.max(axis=1) >= threshold).mean())


def choose(known: Evidence) -> tuple[str, str]:
    """The way to take and why, in words; the rule of docs/adapt.md.

    Aligning features where only the classes' shares differ does much harm, and so does the other
    way round. So each is taken only where a test says that it is needed.
    """
    if known.apart >= APART:
        if known.shares < SURE:
            return PRIOR_SHIFT, "the target looks like the source with its classes in other shares"
        return NONE, "the target looks like the source"
    if known.drop >= SURE:
        return NONE, "the target differs, but the head is expected to be right there as often"
    if CORAL not in known.expected:
        return NONE, "the target differs, but counts of terms cannot be aligned"
    return CORAL, "the target differs, and the head is expected to be right there less often"

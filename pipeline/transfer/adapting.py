"""Unsupervised domain adaptation: heads for another domain without labels, and which to take.

`coral` trains the head on source features that are aligned with the target's. It is taken, or not,
by what can be known without a label of the target (`choose`).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..core.errors import TrainingError
from ..heads.calibration import calibrated
from ..heads.description import Calibration
from ..heads.fit import fit_heads, refit
from ..heads.head import (
    Floats,
    Head,
    against_thresholds,
    one_thread,
    probabilities,
    with_priors,
)
from ..heads.hyperparameters import Hyperparameters
from ..heads.trained import Figures, Schedule
from ..tables.features import Split, view_0
from ..tasks import UNNAMED
from . import coral

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NONE, CORAL = "none", "coral"
# Least gains of the answers' mutual information and certainty, as fractions of the most possible.
RISEN = 0.15
SURER = 0.05


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

    def aligned(self, alignment: coral.Alignment) -> "Source":
        """The same with features as the target has them."""
        train, val = (
            replace(rows, features=alignment.aligned(rows.features))
            for rows in (self.train, self.val)
        )
        return replace(self, train=train, val=val)


@dataclass(frozen=True)
class Method:
    """A head for the target, with the examples that it was trained on as it has seen them.

    `unrefitted` is the head before it saw validation examples, `kept` its figures, and
    `calibration` rests on these examples.
    """

    source: Source
    head: Head
    unrefitted: Head
    kept: Figures
    calibration: Calibration

    @property
    def temperature(self) -> float:
        """The divisor of the logits."""
        return self.calibration.temperature

    def of_target(self, target: Floats) -> Doubles:
        """The probabilities [m, c] of the target's features, by the head before validation."""
        return probabilities(self.unrefitted.logits(target), self.temperature)

    def answered(self, probabilities: Doubles) -> Integers:
        """The class [m] that is answered if probabilities are [m, c]."""
        strengths = against_thresholds(probabilities, self.calibration.thresholds)
        first: Integers = strengths.argmax(axis=1)
        return first


def trained(source: Source) -> Method:
    """A head trained as `train` trains the one that it has chosen.

    Raises:
        TrainingError: it was lost.
    """
    of_head = source.hyperparameters, source.schedule, source.device
    (one,) = fit_heads(source.train, source.val, [of_head[0]], *of_head[1:])
    if one.head is None or one.kept is None:
        raise TrainingError(f"a head was {one.status}; lower train.learning_rate")
    logits, weights = one.head.logits(source.val.features), source.schedule.class_weights
    calibration = calibrated(logits, source.val.labels, UNNAMED, weights)
    head = refit(one, source.train, source.val, *of_head[1:]) if source.refit else one.head
    head, unrefitted = (with_priors(each, calibration) for each in (head, one.head))
    return Method(source, head, unrefitted, one.kept, calibration)


def methods(source: Source, target: Floats) -> dict[str, Method]:
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
    return found


@dataclass(frozen=True)
class Evidence:
    """What is known without a label of the target.

    `information` is the mutual information between the target's examples and each method's answers,
    and `doubt` the mean entropy of an answer, both in nats.
    """

    information: dict[str, float]
    doubt: dict[str, float]


def evidence(found: dict[str, Method], target: Floats) -> Evidence:
    """Compare the methods by their answers for the target."""
    answers = {name: one.of_target(target) for name, one in found.items()}
    doubt = {name: float(entropy(one).mean()) for name, one in answers.items()}
    # Mutual information of example and class (Bridle, Heading and MacKay, "Unsupervised
    # classifiers, mutual information and phantom targets", 1991).
    information = {
        name: float(entropy(one.mean(axis=0))) - doubt[name] for name, one in answers.items()
    }
    return Evidence(information, doubt)


def entropy(probabilities: Doubles) -> Doubles:
    """The entropy in nats, over the last axis."""
    of_each = probabilities * np.log(np.maximum(probabilities, 1e-300))
    found: Doubles = -of_each.sum(axis=-1)
    return found


def choose(known: Evidence, classes: int) -> tuple[str, str]:
    """The method to take and why, in words; the rule of docs/adapt.md.

    Aligning features does much harm if only the class priors differ, so it is taken only if the
    answers that it leads to are much more informative.

    Args:
        known: of the target.
        classes: how many there are.
    """
    if CORAL not in known.information:
        return NONE, "counts of terms cannot be aligned"
    most = math.log(classes)
    risen = (known.information[CORAL] - known.information[NONE]) / most
    surer = (known.doubt[NONE] - known.doubt[CORAL]) / most
    if risen < RISEN or surer < SURER:
        return NONE, "aligned answers tell too little more of the target"
    return CORAL, "aligned answers tell more of the target, and are surer"

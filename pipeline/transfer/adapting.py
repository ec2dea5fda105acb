"""Unsupervised domain adaptation: heads for another domain without labels, and the choice of one.

`coral` trains the head on source features that are aligned with the target features. `choose`
decides without target labels whether to use it.
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
# Minimal gains in mutual information and certainty of predictions, as fractions of the maximum.
RISEN = 0.15
SURER = 0.05


@dataclass(frozen=True)
class Source:
    """The labelled examples, and the settings with which `train` trained its head on them.

    `train` has every view. `refit` says whether the head was refitted on `train` and `val`.
    """

    train: Split
    val: Split
    hyperparameters: Hyperparameters
    schedule: Schedule
    device: str
    refit: bool

    def originals(self) -> Split:
        """Return view 0 of all examples, sorted by digest."""
        return view_0({"train": self.train, "val": self.val})

    def aligned(self, alignment: coral.Alignment) -> "Source":
        """Return the source with its features aligned with those of the target."""
        train, val = (
            replace(rows, features=alignment.aligned(rows.features))
            for rows in (self.train, self.val)
        )
        return replace(self, train=train, val=val)


@dataclass(frozen=True)
class Method:
    """A head for the target, with its training examples as it saw them.

    `unrefitted` is the head before it was refitted with validation examples, and `kept` its
    metrics. `calibration` was fitted on the validation examples.
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
        """Return the probabilities [m, c] for target features, by the head before refitting."""
        return probabilities(self.unrefitted.logits(target), self.temperature)

    def answered(self, probabilities: Doubles) -> Integers:
        """Return the predicted classes [m] for probabilities [m, c]."""
        strengths = against_thresholds(probabilities, self.calibration.thresholds)
        first: Integers = strengths.argmax(axis=1)
        return first


def trained(source: Source) -> Method:
    """Train a head as `train` trains the chosen head.

    Raises:
        TrainingError: the training diverged.
    """
    of_head = source.hyperparameters, source.schedule, source.device
    (one,) = fit_heads(source.train, source.val, [of_head[0]], *of_head[1:])
    if one.head is None or one.kept is None:
        raise TrainingError(f"a head {one.status}; {of_head[0].remedy}")
    logits, weights = one.head.logits(source.val.features), source.schedule.class_weights
    calibration = calibrated(logits, source.val.labels, UNNAMED, weights)
    head = refit(one, source.train, source.val, *of_head[1:]) if source.refit else one.head
    head, unrefitted = (with_priors(each, calibration) for each in (head, one.head))
    return Method(source, head, unrefitted, one.kept, calibration)


def methods(source: Source, target: Floats) -> dict[str, Method]:
    """Return all heads by name; without an aligned head for term counts, which cannot be rotated.

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
    """What is known about the methods without target labels.

    `information` is the mutual information between the target examples and each method's
    predictions. `doubt` is the mean entropy of a prediction. Both are in nats.
    """

    information: dict[str, float]
    doubt: dict[str, float]


def evidence(found: dict[str, Method], target: Floats) -> Evidence:
    """Compare the methods by their predictions for the target."""
    answers = {name: one.of_target(target) for name, one in found.items()}
    doubt = {name: float(entropy(one).mean()) for name, one in answers.items()}
    # Mutual information of example and class (Bridle, Heading and MacKay, "Unsupervised
    # classifiers, mutual information and phantom targets", 1991).
    information = {
        name: float(entropy(one.mean(axis=0))) - doubt[name] for name, one in answers.items()
    }
    return Evidence(information, doubt)


def entropy(probabilities: Doubles) -> Doubles:
    """Return the entropy over the last axis, in nats."""
    of_each = probabilities * np.log(np.maximum(probabilities, 1e-300))
    found: Doubles = -of_each.sum(axis=-1)
    return found


def choose(known: Evidence, classes: int) -> tuple[str, str]:
    """Return the method to use, by the rule of docs/adapt.md, and the reason in words.

    Aligning features does much harm if only the class priors differ. The aligned head is therefore
    used only if its predictions are much more informative and more confident.
    """
    if CORAL not in known.information:
        return NONE, "term counts cannot be aligned"
    most = math.log(classes)
    risen = (known.information[CORAL] - known.information[NONE]) / most
    surer = (known.doubt[NONE] - known.doubt[CORAL]) / most
    if risen < RISEN or surer < SURER:
        return NONE, (
            "predictions of the aligned head are not much more informative and more confident"
        )
    return CORAL, "predictions of the aligned head are more informative and more confident"

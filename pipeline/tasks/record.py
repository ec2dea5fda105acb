"""The definition of a task, in plain values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

SEPARATOR = "|"  # between the labels of an example


class Measure(NamedTuple):
    """The meaning of a measure: whether less of it is better, its ends, and whether it has a unit.

    A measure with a unit is in the targets' own, and is rounded to digits rather than decimals.
    `words` are its name for people, if that is not the one that tables have.
    """

    lower_is_better: bool = False
    least: float = 0.0
    most: float = 1.0
    has_unit: bool = False
    words: str = ""


# The loss of probabilities.
LOG_LOSS = Measure(lower_is_better=True, most=math.inf)


@dataclass(frozen=True)
class Task:
    """A task: words, loss, form of an answer, first measure, and what it cannot do.

    `name` is that of its folder, and of `ingest.task`.
    """

    name: str
    # In words: what an output of a head stands for, and what an example is labelled with.
    noun: str  # "class"
    nouns: str  # "classes"
    truth: str  # "label"
    # From logits to answers. With softmax an example has exactly one of the outputs, and its label
    # is a position, [n]; else it has a value of each, [n, c].
    activation: Literal["softmax", "sigmoid", "identity"]
    # Names in `heads/losses.py`; if several, `train.loss` chooses.
    losses: tuple[str, ...]
    # The attributes of a prediction that have a meaning: `headstart.Prediction`.
    answers: tuple[str, ...]
    # The measure by which backbones, heads and models are compared.
    measure: str
    # The meaning of those that are not a fraction of which more is better.
    measures: Mapping[str, Measure]
    # One that `evaluate` writes for this task and for no other.
    only: str
    # The form of conformal prediction: sets of classes, or intervals of targets.
    conformal: Literal["sets", "intervals"] | None
    # The optimizer of linear probes, as in `train.optimizer`.
    probe: str = "lbfgs"
    # Parameters that have to keep their default, or of which one value is not for this task, as
    # `train.optimizer nearest_mean`; and `federated`.
    lacks: frozenset[str] = frozenset()

    def counted(self, outputs: int) -> str:
        """So many outputs, in words."""
        return f"{outputs} {self.noun if outputs == 1 else self.nouns}"

    @property
    def exclusive(self) -> bool:
        """Whether an example has exactly one of the outputs."""
        return self.activation == "softmax"

    @property
    def probabilities(self) -> bool:
        """Whether answers are probabilities, which are calibrated, and not targets."""
        return self.activation != "identity"

    @property
    def output(self) -> str:
        """The name of the answer in the graph of a bundle."""
        return "probabilities" if self.probabilities else "numbers"

    @property
    def thresholds(self) -> bool:
        """Whether each output has its own threshold, above which it is predicted."""
        return self.activation == "sigmoid"

"""The definition of a task, in plain values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

SEPARATOR = "|"  # between the labels of an example


class Measure(NamedTuple):
    """The meaning of a metric: whether lower is better, its range, and whether it has a unit.

    A metric with a unit has the unit of the targets, and is rounded to significant digits rather
    than decimals. `words` is its display name, if that differs from its name in tables.
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
    """A task: its words in texts, losses, form of predictions, main metric, and its limits.

    `name` is the name of its folder, and the value of `ingest.task` that selects the task.
    """

    name: str
    # Words for an output of a head, and for what an example is labelled with.
    noun: str  # "class"
    nouns: str  # "classes"
    truth: str  # "label"
    # From logits to predictions. With softmax an example has exactly one class, and labels are
    # positions, [n]; else it has a value for each output, [n, c].
    activation: Literal["softmax", "sigmoid", "identity"]
    # Names in `heads/losses.py`; if several, `train.loss` chooses.
    losses: tuple[str, ...]
    # The attributes of `headstart.Prediction` that this task has.
    answers: tuple[str, ...]
    # The metric by which backbones, heads and models are compared.
    measure: str
    # The meaning of metrics that are not fractions for which higher is better.
    measures: Mapping[str, Measure]
    # A metric that `evaluate` writes for this task only.
    only: str
    # The form of conformal prediction: sets of classes, or intervals of targets.
    conformal: Literal["sets", "intervals"] | None
    # The optimizer of linear probes, as in `train.optimizer`.
    probe: str = "lbfgs"
    # Parameters that must keep their default, or that have one unsupported value, such as
    # `train.optimizer lda`; and `federated`.
    lacks: frozenset[str] = frozenset()

    def counted(self, outputs: int) -> str:
        """Return the number of outputs in words."""
        return f"{outputs} {self.noun if outputs == 1 else self.nouns}"

    @property
    def exclusive(self) -> bool:
        """Whether an example has exactly one of the outputs."""
        return self.activation == "softmax"

    @property
    def probabilities(self) -> bool:
        """Whether predictions are calibrated probabilities rather than targets."""
        return self.activation != "identity"

    @property
    def output(self) -> str:
        """The name of the output in the graph of a bundle."""
        return "probabilities" if self.probabilities else "numbers"

    @property
    def thresholds(self) -> bool:
        """Whether each output is predicted if it reaches its own threshold."""
        return self.activation == "sigmoid"

"""What may differ from head to head, and every combination of it in the parameters."""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # which answering with a bundle does without
    from ..core.params import TrainParams

# The hyperparameters that a head in closed form uses; it is linear, so the others mean nothing.
CLOSED_FORMS = {"lbfgs": ("weight_decay",), "ridge": ("weight_decay",), "nearest_mean": ()}


@dataclass(frozen=True, order=True)
class Hyperparameters:
    """What may differ from head to head; `params.yaml` says what each is."""

    optimizer: str
    learning_rate: float
    weight_decay: float
    width: int
    dropout: float
    label_smoothing: float
    seed: int


def every_combination(settings: "TrainParams") -> list[Hyperparameters]:
    """The product of all lists; what would train the same head twice is left out."""
    listed = {
        name: list(dict.fromkeys(value if isinstance(value, list) else [value]))
        for name, value in settings
        if name in Hyperparameters.__dataclass_fields__
    }
    combinations: dict[Hyperparameters, None] = {}
    for values in itertools.product(*listed.values()):
        chosen = dict(zip(listed, values, strict=True))
        if chosen["optimizer"] in CLOSED_FORMS:
            read = ("optimizer", *CLOSED_FORMS[chosen["optimizer"]])
            chosen = {name: value if name in read else 0 for name, value in chosen.items()}
        combinations[Hyperparameters(**chosen)] = None
    return list(combinations)


def used(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """The hyperparameters that the optimizer uses, by name."""
    read = CLOSED_FORMS.get(hyperparameters.optimizer)
    return {
        name: value
        for name, value in vars(hyperparameters).items()
        if read is None or name == "optimizer" or name in read
    }


def from_used(used: dict[str, Any]) -> Hyperparameters:
    """The other way round; what the optimizer does not use is 0."""
    return Hyperparameters(**dict.fromkeys(Hyperparameters.__dataclass_fields__, 0) | used)

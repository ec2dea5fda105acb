"""The hyperparameters of a head, and their grid in `params.yaml`."""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .scaling import GLOBAL

if TYPE_CHECKING:  # not needed to predict with a bundle
    from ..core.params import TrainParams

# The hyperparameters that a head in closed form uses; it is linear, so the others have no effect.
CLOSED_FORMS = {
    "lbfgs": ("weight_decay",),
    "ridge": ("weight_decay",),
    "lda": (),
    "nearest_mean": (),
}


@dataclass(frozen=True, order=True)
class Hyperparameters:
    """The settings that may differ between heads; `params.yaml` explains each.

    Hyperparameters that the optimizer does not use are 0. `scaling` is one of `scaling.SCALINGS`;
    it is not a parameter, and only `penalty.choose` and `floor` use any but `global`.
    """

    optimizer: str
    learning_rate: float = 0
    weight_decay: float = 0
    width: int = 0
    dropout: float = 0
    label_smoothing: float = 0
    seed: int = 0
    scaling: str = GLOBAL

    @property
    def remedy(self) -> str:
        """What to do if training diverged."""
        if self.optimizer in CLOSED_FORMS:  # without a learning rate
            return "scale the features, whose values are too large or too small"
        return "lower train.learning_rate"


def every_combination(settings: "TrainParams") -> list[Hyperparameters]:
    """Return all combinations of the lists, except those that would train the same head.

    A weight decay of `auto` is 0 here; `penalty.choose` chooses it.
    """
    listed = {
        name: list(dict.fromkeys(value if isinstance(value, list) else [value]))
        for name, value in settings
        if name in Hyperparameters.__dataclass_fields__
    }
    if settings.weight_decay == "auto":
        listed["weight_decay"] = [0]
    combinations: dict[Hyperparameters, None] = {}
    for values in itertools.product(*listed.values()):
        chosen = dict(zip(listed, values, strict=True))
        if chosen["optimizer"] in CLOSED_FORMS:
            read = ("optimizer", *CLOSED_FORMS[chosen["optimizer"]])
            chosen = {name: value if name in read else 0 for name, value in chosen.items()}
        combinations[Hyperparameters(**chosen)] = None
    return list(combinations)


def used(hyperparameters: Hyperparameters) -> dict[str, str | float]:
    """Return the hyperparameters that the optimizer uses, by name; `scaling` unless `global`."""
    read = CLOSED_FORMS.get(hyperparameters.optimizer)
    found = {
        name: value
        for name, value in vars(hyperparameters).items()
        if read is None or name in ("optimizer", "scaling", *read)
    }
    if hyperparameters.scaling == GLOBAL:
        del found["scaling"]
    return found

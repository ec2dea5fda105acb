"""The settings of a run, and what is written of the head that comes of it."""

import json
from dataclasses import dataclass
from typing import Any, get_type_hints

from pipeline.core.errors import ParamsError
from pipeline.heads.head import Head

from .agreement import Agreement
from .softmax import Judged

KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


@dataclass(frozen=True)
class Settings:
    """`[tool.flwr.app.config]`, with `_` for `-`."""

    out: str
    sites: int
    min_sites: int
    wait: float
    rounds: int
    round_timeout: float
    local_epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    proximal_mu: float
    secure: bool

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Settings":
        """Read and check them.

        Raises:
            ParamsError: one makes no sense.
        """
        kinds = {name.replace("_", "-"): kind for name, kind in get_type_hints(cls).items()}
        for name, value in config.items():
            if name not in kinds:
                raise ParamsError(f"there is no setting {name}; there are {', '.join(kinds)}")
            kind = float if kinds[name] is float and type(value) is int else type(value)
            if kind is not kinds[name]:
                raise ParamsError(f"{name} is {value!r:.40}, and has to be {KINDS[kinds[name]]}")
        found = cls(**{name.replace("-", "_"): value for name, value in config.items()})
        for name in ("sites", "min_sites", "rounds", "local_epochs", "batch_size"):
            if getattr(found, name) < 1:
                raise ParamsError(f"{name.replace('_', '-')} has to be 1 or more")
        for name in ("wait", "round_timeout", "learning_rate"):
            if not getattr(found, name) > 0:
                raise ParamsError(f"{name.replace('_', '-')} has to be above 0")
        if not (found.weight_decay >= 0 and found.proximal_mu >= 0):
            raise ParamsError("weight-decay and proximal-mu cannot be below 0")
        if found.secure and found.min_sites < 3:
            raise ParamsError(
                "secure=true needs min-sites of 3 or more: of two sites each knows the other's"
                " numbers from the average"
            )
        if found.sites < found.min_sites:
            raise ParamsError(
                f"sites is {found.sites}, and has to be min-sites, {found.min_sites}, or more: no"
                " others are waited for"
            )
        return found


def description(
    agreement: Agreement, settings: Settings, head: Head, figures: Judged | None, rounds: int
) -> dict[str, Any]:
    """What `save_head` is told of the head: what `train` tells, and how sites took part.

    Args:
        agreement: the classes, and what made the features.
        settings: of the run.
        head: on features as they are.
        figures: on all sites' validation examples; None where there are none.
        rounds: that counted.
    """
    about: dict[str, Any] = {
        "classes": list(agreement.classes),
        "dimension": head.dimension,
        "width": 0,
        # The objective is the one that L-BFGS lowers, and so `evaluate` trains heads like this one.
        "hyperparameters": {"optimizer": "lbfgs", "weight_decay": settings.weight_decay},
        "power": json.loads(agreement.made_by["power"]),
        "refit": False,
        "epoch": rounds * settings.local_epochs,
        "training": {"loss": None, "accuracy": None},
        "validation": {"pictures": 0, "loss": None, "accuracy": None},
        "temperature": figures.temperature if figures else 1.0,
        "federated": {
            "strategy": "FedProx" if settings.proximal_mu else "FedAvg",
            "proximal_mu": settings.proximal_mu,
            "rounds": rounds,
            "local_epochs": settings.local_epochs,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "secure": settings.secure,
            "made_by": dict(agreement.made_by),
        },
    }
    if figures:
        about["validation"] = {
            "pictures": figures.examples,
            "loss": float(f"{figures.loss:.6g}"),
            "accuracy": float(f"{figures.accuracy:.6g}"),
        }
    return about

"""The server's side: FedAvg or FedProx over the sites, and the head that comes of it."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, FedProx

from pipeline.core.errors import HeadstartError, ParamsError, TrainingError
from pipeline.heads.head import Head, save_head

from .agreement import Agreement
from .records import ARRAYS, record_of
from .sites import Round, Sites
from .softmax import TEMPERATURES, Judged, in_raw_units, judged, scale_of

app = ServerApp()


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
        found = cls(**{name.replace("-", "_"): value for name, value in config.items()})
        for name in ("sites", "min_sites", "rounds", "local_epochs", "batch_size"):
            if getattr(found, name) < 1:
                raise ParamsError(f"{name.replace('_', '-')} has to be 1 or more")
        for name in ("wait", "round_timeout", "learning_rate"):
            if not getattr(found, name) > 0:
                raise ParamsError(f"{name.replace('_', '-')} has to be above 0")
        if found.weight_decay < 0 or found.proximal_mu < 0:
            raise ParamsError("weight-decay and proximal-mu cannot be below 0")
        if found.secure and found.min_sites < 3:
            raise ParamsError(
                "secure=true needs min-sites of 3 or more: of two sites each knows the other's"
                " numbers from the average"
            )
        return found


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train a head across the sites; an error is one line."""
    try:
        federate(grid, context, Settings.of(dict(context.run_config)))
    except HeadstartError:
        sys.tracebacklimit = 0  # Flower logs what is raised; the line is enough
        raise


def say(line: str) -> None:
    """A line in the run's log, which `flwr run --stream` and `flwr log` show."""
    print(f"federated: {line}", flush=True)


def federate(grid: Grid, context: Context, settings: Settings) -> None:
    """Gather the sites, train, and write head and rounds into `settings.out`.

    Raises:
        DataError: too few sites.
        TrainingError: no round counted.
    """
    sites = Sites(
        grid, context, settings.min_sites, settings.wait, settings.round_timeout,
        settings.secure, say,
    )  # fmt: skip
    agreement = sites.gather(settings.sites)
    dimension = int(agreement.made_by["dimension"])
    say(
        f"{len(sites.names)} sites, {len(agreement.classes)} classes, "
        f"{dimension} features of {agreement.made_by['backbone']}"
    )
    # Centre and scale of all rows: an average of the sites' as any other.
    start = {"mean": np.zeros(dimension), "square": np.zeros(1)}
    first = _averaged(sites, settings, {"what": "moments"}, start, 0)
    if first is None:
        raise TrainingError("no round counted; see above")
    mean = first["mean"].astype(np.float32)
    scale = scale_of(first["mean"], float(first["square"][0]))

    shape = len(agreement.classes), dimension
    arrays = {
        "weight": np.zeros(shape, np.float32),
        "bias": np.zeros(shape[0], np.float32),
        "told": np.zeros(3 + len(TEMPERATURES)),
    }
    config: dict[str, Any] = {
        "what": "head",
        "classes": json.dumps(agreement.classes),
        "mean": mean.tobytes(),
        "scale": scale,
        "epochs": settings.local_epochs,
        "batch": settings.batch_size,
        "rate": settings.learning_rate,
        "decay": settings.weight_decay,
    }
    course: list[Judged | None] = []
    for number in range(1, settings.rounds + 2):
        last = number > settings.rounds  # no training: how good the head of the last round is
        asked = config | {"epochs": 0} if last else config
        found = _averaged(sites, settings, asked, arrays, number)
        ended = sites.rounds[-1]
        figures = judged(found["told"], len(ended.there)) if found is not None else None
        course.append(figures)
        if figures and number > 1:
            say(
                f"after round {number - 1}: loss {figures.loss:.4f}, accuracy "
                f"{figures.accuracy:.4f} on {figures.examples} validation examples "
                f"({len(ended.there)} sites)"
            )
        if found is not None and not last:
            arrays = found | {"told": np.zeros_like(arrays["told"])}
    counted = sum(one.counted for one in sites.rounds[1 : settings.rounds + 1])
    if not counted:
        raise TrainingError("no round counted; see above")
    head = in_raw_units(arrays["weight"], arrays["bias"], mean, scale)
    out = Path(settings.out)
    about = description(agreement, settings, head, course[-1], counted)
    save_head(head, about, out / "head.safetensors", out / "head.json")
    _write_rounds(out / "rounds.csv", sites.rounds, course)
    say(f"the head of {counted} rounds is in {out.resolve()}")


def _averaged(
    sites: Sites,
    settings: Settings,
    config: dict[str, Any],
    arrays: dict[str, np.ndarray],
    number: int,
) -> dict[str, np.ndarray] | None:
    """What Flower's strategy makes of a round; None where the round did not count."""
    usual: dict[str, Any] = {
        "fraction_evaluate": 0.0,
        "min_train_nodes": settings.min_sites,
        "min_available_nodes": settings.min_sites,
    }
    training = settings.proximal_mu > 0 and config.get("epochs", 0) > 0
    strategy = FedProx(**usual, proximal_mu=settings.proximal_mu) if training else FedAvg(**usual)
    record, asked = record_of(arrays, 0)[ARRAYS], ConfigRecord(config)
    messages = strategy.configure_train(number, record, asked, sites)
    averaged, _ = strategy.aggregate_train(number, sites.send_and_receive(messages))
    return None if averaged is None else {n: a.numpy() for n, a in averaged.items()}


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
        "hyperparameters": {
            "optimizer": "sgd",
            "learning_rate": settings.learning_rate / head.dimension,
            "weight_decay": settings.weight_decay,
            "width": 0,
            "dropout": 0.0,
            "label_smoothing": 0.0,
            "seed": 0,
        },
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


def _write_rounds(file: Path, rounds: Sequence[Round], course: Sequence[Judged | None]) -> None:
    """A row a round, with the loss and accuracy of the head that it ended with.

    The first is of the sums of features, and has none.
    """
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["round", "counted", "sites", "left_out", "seconds", "loss", "accuracy"])
        for one in rounds[:-1]:
            after = course[one.number] if one.number else None
            table.writerow(
                [
                    one.number,
                    str(one.counted).lower(),
                    " ".join(one.there),
                    "; ".join(f"{name}: {why}" for name, why in one.left_out.items()),
                    f"{one.seconds:.2f}",
                    *([f"{after.loss:.6g}", f"{after.accuracy:.6g}"] if after else ["", ""]),
                ]
            )

"""The server's side: FedAvg or FedProx over the sites, and the head that comes of it."""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, FedProx

from pipeline.core.errors import HeadstartError, TrainingError
from pipeline.heads.head import save_head

from .records import ARRAYS, record_of
from .settings import Settings, description
from .sites import Round, Sites
from .softmax import TEMPERATURES, Judged, in_raw_units, judged, scale_of

app = ServerApp()
PATIENCE = 3  # times that a round is tried


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
        DataError: too few sites; the head of the rounds that counted is written all the same.
        TrainingError: rounds did not count, `PATIENCE` in a row.
    """
    sites = Sites(
        grid, context, settings.min_sites, settings.wait, settings.round_timeout,
        settings.secure, say,
    )  # fmt: skip
    agreement, strategy = sites.gather(settings.sites), _strategy(settings)
    dimension = int(agreement.made_by["dimension"])
    say(
        f"{len(sites.names)} sites, {len(agreement.classes)} classes, "
        f"{dimension} features of {agreement.made_by['backbone']}"
    )
    # Centre and scale of all rows: an average over the sites as any other.
    start = {"mean": np.zeros(dimension), "square": np.zeros(1)}
    sums = _averaged(sites, strategy, {"what": "moments"}, start, 0)
    mean = sums["mean"].astype(np.float32)
    scale = scale_of(sums["mean"], float(sums["square"][0]))

    shape = len(agreement.classes), dimension
    arrays: dict[str, np.ndarray] = {
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
    stopped: HeadstartError | None = None
    for number in range(1, settings.rounds + 2):
        last = number > settings.rounds  # no training: how good the head of the last round is
        asked = config | {"epochs": 0} if last else config
        try:
            found = _averaged(sites, strategy, asked, arrays, number)
        except HeadstartError as error:
            stopped = error
            break
        course.append(judged(found["told"], len(sites.rounds[-1].there)))
        if number > 1:
            say(f"after round {number - 1}: {_in_words(course[-1], len(sites.rounds[-1].there))}")
        if not last:
            arrays = found | {"told": np.zeros_like(arrays["told"])}
    trained = min(len(course), settings.rounds)
    out = Path(settings.out)
    if trained:
        head = in_raw_units(arrays["weight"], arrays["bias"], mean, scale)
        figures = course[trained] if trained < len(course) else None
        about = description(agreement, settings, head, figures, trained)
        save_head(head, about, out / "head.safetensors", out / "head.json")
        _write_rounds(out / "rounds.csv", sites.rounds, course, trained)
        say(f"the head of {trained} round{'s' * (trained > 1)} is in {out.resolve()}")
    if stopped:
        raise stopped


def _in_words(figures: Judged | None, sites: int) -> str:
    if figures is None:
        return f"no validation example at {sites} sites"
    return (
        f"loss {figures.loss:.4f}, accuracy {figures.accuracy:.4f} on {figures.examples} "
        f"validation examples of {sites} sites"
    )


def _strategy(settings: Settings) -> FedAvg:
    """Flower's, over all sites that take part; evaluation is part of training here (`told`)."""
    usual: dict[str, Any] = {
        "fraction_evaluate": 0.0,
        "min_train_nodes": settings.min_sites,
        "min_available_nodes": settings.min_sites,
    }
    if settings.proximal_mu:
        return FedProx(**usual, proximal_mu=settings.proximal_mu)
    return FedAvg(**usual)


def _averaged(
    sites: Sites,
    strategy: FedAvg,
    config: dict[str, Any],
    arrays: dict[str, np.ndarray],
    number: int,
) -> dict[str, np.ndarray]:
    """What the strategy makes of a round; one that does not count is tried again.

    Raises:
        DataError: too few sites are there.
        TrainingError: the round did not count, `PATIENCE` times.
    """
    for _ in range(PATIENCE):
        sites.ready()
        record, asked = record_of(arrays, 0)[ARRAYS], ConfigRecord(config)
        messages = strategy.configure_train(number, record, asked, sites)
        averaged, _ = strategy.aggregate_train(number, sites.send_and_receive(messages))
        if averaged is not None:
            return {name: array.numpy() for name, array in averaged.items()}
    raise TrainingError(f"round {number} did not count {PATIENCE} times; see why above")


def _write_rounds(
    file: Path, rounds: Sequence[Round], course: Sequence[Judged | None], trained: int
) -> None:
    """A row a round, with the loss and accuracy of the head that it ended with.

    Round 0 is of the sums of features, and has none, nor has one that did not count.
    """
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["round", "counted", "sites", "left_out", "seconds", "loss", "accuracy"])
        for one in rounds:
            if one.counted and one.number > trained:
                continue  # the one without training
            after = course[one.number] if one.counted and 0 < one.number < len(course) else None
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

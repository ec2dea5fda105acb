"""The server's side: FedAvg over the sites, first of what centres features, then of heads."""

import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

WAIT = 120  # seconds for sites, and for an answer

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train a head across the sites and write it.

    Raises:
        RuntimeError: sites are missing, or their features are of different backbones.
    """
    settings = context.run_config
    sites = int(settings["sites"])
    classes, dimension = agreed(grid, sites)
    every_site = FedAvg(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)

    # The mean over all sites' examples is an average as any other.
    start = {"mean": np.zeros(dimension), "square": np.zeros(1)}
    moments = averaged(every_site, grid, start, 1, {"task": "moments"})
    mean = moments["mean"]
    scale = float(np.sqrt(moments["square"][0] - np.square(mean).mean())) or 1.0

    head = {
        "weight": np.zeros((len(classes), dimension), np.float32),
        "bias": np.zeros(len(classes), np.float32),
    }
    asked = {
        "task": "head",
        "classes": classes,
        "mean": mean.astype(np.float32).tobytes(),
        "scale": scale,
        "epochs": settings["local-epochs"],
        "rate": settings["learning-rate"],
        "decay": settings["weight-decay"],
    }
    head = averaged(every_site, grid, head, int(settings["rounds"]), asked)
    # Written for features as they are, neither centred nor scaled.
    weight = head["weight"] / scale
    bias = head["bias"] - weight @ mean
    np.savez(str(settings["out"]), weight=weight, bias=bias, classes=classes)
    print(f"flower: the head of {len(classes)} classes is in {settings['out']}", flush=True)


def agreed(grid: Grid, sites: int) -> tuple[list[str], int]:
    """The classes of all sites, sorted, and the number of features."""
    end = time.monotonic() + WAIT
    while len(nodes := list(grid.get_node_ids())) < sites:
        if time.monotonic() > end:
            raise RuntimeError(f"{len(nodes)} of {sites} sites are there after {WAIT} s")
        time.sleep(1)
    asked = [Message(RecordDict(), dst_node_id=node, message_type="query") for node in nodes]
    replies = list(grid.send_and_receive(asked, timeout=WAIT))
    if failed := [reply.error.reason for reply in replies if reply.has_error()]:
        raise RuntimeError(f"a site cannot take part: {failed[0]}")
    if len(replies) < len(nodes):
        raise RuntimeError(f"{len(replies)} of {len(nodes)} sites answered within {WAIT} s")
    offers = [reply.content["offer"] for reply in replies]
    if len(made_by := {(offer["made_by"], offer["dimension"]) for offer in offers}) > 1:
        raise RuntimeError(f"the sites' features were made differently: {sorted(made_by)}")
    classes = sorted({name for offer in offers for name in offer["classes"]})
    return classes, int(offers[0]["dimension"])


def averaged(
    strategy: FedAvg,
    grid: Grid,
    arrays: dict[str, np.ndarray],
    rounds: int,
    config: dict[str, object],
) -> dict[str, np.ndarray]:
    """What FedAvg makes of `arrays` in so many rounds; a site that fails is left out of a round."""
    result = strategy.start(
        grid,
        ArrayRecord({name: Array(array) for name, array in arrays.items()}),
        num_rounds=rounds,
        timeout=WAIT,
        train_config=ConfigRecord(config),
    )
    if not result.arrays:
        raise RuntimeError("no site answered; the log above has why")
    return {name: array.numpy() for name, array in result.arrays.items()}

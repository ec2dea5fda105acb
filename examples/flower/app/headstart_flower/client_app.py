"""A site's side; `--node-config` names its file: `features="/srv/clinic/sites/site-1.npz"`."""

import numpy as np
import numpy.typing as npt
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

Floats = npt.NDArray[np.float32]
BATCH = 32

app = ClientApp()


@app.query()
def offer(message: Message, context: Context) -> Message:
    """Say which classes the site has, and what made its features."""
    with np.load(context.node_config["features"]) as site:
        offered = {
            "classes": sorted(set(site["labels"].tolist())),
            "made_by": str(site["made_by"]),
            "dimension": site["features"].shape[1],
        }
    return Message(RecordDict({"offer": ConfigRecord(offered)}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Return the moments of the features, or the head after training at this site."""
    config = message.content["config"]
    with np.load(context.node_config["features"]) as site:
        features, names = site["features"], site["labels"]
    arrays = {name: one.numpy() for name, one in message.content["arrays"].items()}
    metrics: dict[str, float] = {"num-examples": len(features)}
    if config["task"] == "moments":
        wide = features.astype(np.float64)
        arrays = {"mean": wide.mean(axis=0), "square": np.array([np.square(wide).mean()])}
    else:
        classes = list(config["classes"])
        labels = np.array([classes.index(name) for name in names.tolist()])
        mean = np.frombuffer(bytes(config["mean"]), np.float32)
        scaled = (features - mean) / np.float32(config["scale"])
        metrics["loss"] = loss(arrays["weight"], arrays["bias"], scaled, labels)
        arrays = descended(
            arrays["weight"], arrays["bias"], scaled, labels,
            int(config["epochs"]), float(config["rate"]), float(config["decay"]),
            seed=int(config["server-round"]),
        )  # fmt: skip
    record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    content = {"arrays": record, "metrics": MetricRecord(metrics)}
    return Message(RecordDict(content), reply_to=message)


def descended(
    weight: Floats,
    bias: Floats,
    features: Floats,
    labels: npt.NDArray[np.int64],
    epochs: int,
    rate: float,
    decay: float,
    seed: int,
) -> dict[str, Floats]:
    """The head after `epochs` passes of SGD over the rows, from `weight` and `bias` on.

    Args:
        weight: [classes, dimension].
        bias: [classes].
        features: [rows, dimension], centred and scaled.
        labels: [rows], positions of classes.
        epochs: passes over the rows.
        rate: of learning, in units of 1 / dimension.
        decay: `decay / 2 * |weight|²` is added to the mean cross-entropy.
        seed: of the order of the rows.
    """
    order, rate = np.random.default_rng(seed), rate / features.shape[1]
    weight, bias = weight.copy(), bias.copy()
    for _ in range(epochs):
        rows = order.permutation(len(labels))
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            error = np.exp(log_probabilities(weight, bias, features[some]))
            error[np.arange(len(some)), labels[some]] -= 1
            error /= len(some)
            weight -= rate * (error.T @ features[some] + decay * weight)
            bias -= rate * error.sum(axis=0)
    return {"weight": weight, "bias": bias}


def loss(weight: Floats, bias: Floats, features: Floats, labels: npt.NDArray[np.int64]) -> float:
    """The mean cross-entropy of the rows."""
    found = log_probabilities(weight, bias, features)
    return float(-found[np.arange(len(labels)), labels].mean())


def log_probabilities(weight: Floats, bias: Floats, features: Floats) -> Floats:
    """The log probability of each class, [rows, classes]."""
    logits = features @ weight.T + bias
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

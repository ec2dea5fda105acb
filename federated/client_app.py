"""The site's side: answers the server's questions from `data/federated.safetensors`.

Flower starts a process of it for each message. The SuperNode's `--node-config` tells which project
is meant: `project="/srv/clinic" name="clinic" secure=true`.
"""

import json
import zlib
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from pipeline.core.errors import DataError
from pipeline.heads.head import Floats

from .agreement import Offer, rounded_up
from .examples import Examples, read
from .records import CONFIG, OFFER, arrays_of, offer_record, record_of
from .secure import masked
from .softmax import Recipe, moments, told, trained

MOST = 50.0  # a share above it is of a temperature that is not the best, and need not be exact

app = ClientApp(mods=[masked])


def _site(context: Context) -> tuple[str, Path]:
    """What the site is called, and its project's folder."""
    project = Path(str(context.node_config.get("project", "."))).resolve()
    return str(context.node_config.get("name", project.name)), project


@app.query()
def offer(message: Message, context: Context) -> Message:
    """Say what the site has; where its file cannot be used, why."""
    name, project = _site(context)
    try:
        found = read(project)
    except DataError as error:
        said = ConfigRecord({"name": name, "error": str(error)})
        return Message(RecordDict({OFFER: said}), reply_to=message)
    rows = rounded_up(len(found.train_labels))
    made = Offer(name, tuple(found.classes), rows, found.made_by)
    return Message(offer_record(made), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Give sums of the features, or train a head from the one that came.

    Raises:
        DataError: the site's file cannot be used, or training went out of bounds.
    """
    name, project = _site(context)
    found, config = read(project), message.content[CONFIG]
    if config["what"] == "moments":
        mean, square = moments(found.train)
        arrays = {"mean": mean, "square": np.array([square])}
    else:
        arrays = _trained(found, dict(arrays_of(message.content)), config, name)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise DataError("training gave numbers that are not finite; lower learning-rate")
    return Message(record_of(arrays, len(found.train_labels)), reply_to=message)


def _trained(
    found: Examples, arrays: dict[str, np.ndarray], config: ConfigRecord, name: str
) -> dict[str, np.ndarray]:
    """The head after this site's epochs, and what its validation examples say of the one it got.

    The latter are sums, and a 1 behind them, each divided by the rows by which the average weighs
    it: so they add up, and the 1 tells of how many rows the sum is.
    """
    classes = json.loads(str(config["classes"]))
    place = np.array([classes.index(one) for one in found.classes])
    mean = np.frombuffer(bytes(config["mean"]), np.float32)
    scale = np.float32(config["scale"])

    def scaled(features: Floats) -> Floats:
        return (features - mean) / scale

    weight, bias = (arrays[one].astype(np.float32) for one in ("weight", "bias"))
    sums = told(weight, bias, scaled(found.val), place[found.val_labels])
    recipe = Recipe(
        epochs=int(config["epochs"]),
        batch=int(config["batch"]),
        rate=float(config["rate"]),
        decay=float(config["decay"]),
        proximal=float(config.get("proximal-mu", 0.0)),
    )
    if recipe.epochs:
        seed = zlib.crc32(f"{name} {config['server-round']}".encode())
        features, labels = scaled(found.train), place[found.train_labels]
        weight, bias = trained(weight, bias, features, labels, recipe, seed)
    rows = len(found.train_labels)
    shares = np.minimum(np.append(sums, 1) / rows, MOST)
    return {"weight": weight, "bias": bias, "told": shares}

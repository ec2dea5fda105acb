"""The form of the messages between server and site: named arrays, and how much they weigh."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from .agreement import Offer

ARRAYS, CONFIG, METRICS, OFFER = "arrays", "config", "metrics", "offer"
WEIGHT = "num-examples"


def record_of(arrays: Mapping[str, np.ndarray], weight: float) -> RecordDict:
    """Arrays, and how much a reply that carries them weighs in the average."""
    named = ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
    return RecordDict({ARRAYS: named, METRICS: MetricRecord({WEIGHT: weight})})


def arrays_of(content: RecordDict) -> dict[str, np.ndarray]:
    """The named arrays of a message."""
    return {name: array.numpy() for name, array in content[ARRAYS].items()}


def offer_record(offer: Offer) -> RecordDict:
    """What a site says of itself, as a reply."""
    made_by = offer.made_by
    told: dict[str, Any] = {
        "name": offer.name,
        "classes": list(offer.classes),
        "at_most": offer.at_most,
        "protocol": offer.protocol,
        "names": list(made_by),
        "values": list(made_by.values()),
    }
    return RecordDict({OFFER: ConfigRecord(told)})


def offer_in(content: RecordDict) -> Offer:
    """The other way round.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    told = content[OFFER]
    made_by = dict(zip(map(str, told["names"]), map(str, told["values"]), strict=True))
    classes = tuple(map(str, told["classes"]))
    return Offer(str(told["name"]), classes, int(told["at_most"]), made_by, int(told["protocol"]))

"""A toy task: labels that have an order. The answer is the median, and a miss counts its ranks."""

import math

from pipeline.tasks import Measure, Task

TASK = Task(
    name="ordinal",
    noun="grade",
    nouns="grades",
    truth="grade",
    activation="softmax",
    losses=("softmax",),
    answers=("label", "probability", "labels", "probabilities"),
    measure="exact",
    measures={"rank_error": Measure(lower_is_better=True, most=math.inf)},
    only="rank_error",
    conformal=None,
    lacks=frozenset({"adapt.run", "federated", "ingest.targets", "train.loss"}),
)

"""Multi-label tasks: each example has several labels or none; some labels may be unknown."""

from ..record import LOG_LOSS, Task

TASK = Task(
    name="multilabel",
    noun="label",
    nouns="labels",
    truth="label",
    activation="sigmoid",
    losses=("binary",),
    answers=("labels", "probabilities"),
    measure="mean_average_precision",
    measures={"loss": LOG_LOSS},
    only="exact_match",
    conformal=None,
    lacks=frozenset({"adapt.run", "federated", "train.loss", "train.optimizer lda"}),
)

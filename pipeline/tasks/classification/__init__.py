"""Classification: each example has one class."""

from ..record import LOG_LOSS, Measure, Task

TASK = Task(
    name="classification",
    noun="class",
    nouns="classes",
    truth="label",
    activation="softmax",
    losses=("softmax",),
    answers=("label", "probability", "labels", "probabilities"),
    measure="accuracy",
    measures={"loss": LOG_LOSS, "calibration_error": Measure(lower_is_better=True)},
    only="accuracy",
    conformal="sets",
    lacks=frozenset({"ingest.targets", "train.loss"}),
)

"""One label of each example, a class."""

from ..record import Task

TASK = Task(
    name="classification",
    noun="class",
    nouns="classes",
    truth="label",
    activation="softmax",
    losses=("softmax",),
    answers=("label", "probability", "labels", "probabilities"),
    measure="accuracy",
    only="accuracy",
    conformal="sets",
    lacks=frozenset({"ingest.targets", "train.loss"}),
)

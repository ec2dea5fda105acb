"""Numbers of each example, its targets."""

from ..record import Task

TASK = Task(
    name="regression",
    noun="target",
    nouns="targets",
    truth="target",
    activation="identity",
    losses=("squared", "huber"),
    answers=("numbers",),
    measure="r2",
    only="mae",
    conformal="intervals",
    probe="ridge",
    lacks=frozenset(
        {
            "adapt.run",
            "federated",
            "ingest.classes_without_training",
            "train.class_weights",
            "train.label_smoothing",
            "train.optimizer nearest_mean",
        }
    ),
)

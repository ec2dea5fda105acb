"""Regression: each example has one or more targets, which are numbers."""

import math

from ..record import Measure, Task

TASK = Task(
    name="regression",
    noun="target",
    nouns="targets",
    truth="target",
    activation="identity",
    losses=("squared", "huber"),
    answers=("numbers",),
    measure="r2",
    measures={
        "mae": Measure(lower_is_better=True, most=math.inf, has_unit=True, words="MAE"),
        "rmse": Measure(lower_is_better=True, most=math.inf, has_unit=True, words="RMSE"),
        "r2": Measure(least=-math.inf, words="R²"),
    },
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
            "train.optimizer lda",
            "train.optimizer nearest_mean",
        }
    ),
)

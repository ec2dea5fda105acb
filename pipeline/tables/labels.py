"""Checks of the labels and splits that the stages need.

`ingest` runs the checks too, so that errors of later stages show before features are computed.
"""

from collections.abc import Sequence

import pandas as pd

from ..core.errors import DataError
from .manifest import UNLABELLED

NAMED_AT_MOST = 10  # labels in a message
ALL_AT_MOST = 100  # labels that the user has to fix, so that one run names all of them

# The split that a stage needs, its purpose there, and the alternative to adding examples.
NEEDS = {
    "train": ("val", "to choose a head with", ", or give each hyperparameter of train one value"),
    "evaluate": ("test", "to measure on", ""),
    "learning_curve": ("val", "to measure on", ", or set learning_curve.run to []"),
    "finetune": ("val", "to choose an epoch with", ", or set finetune.run to []"),
    "from_scratch": ("val", "to choose an epoch with", ", or set from_scratch.run to []"),
    "adapt": ("val", "to calibrate with", ", or set adapt.run to []"),
}

LEAST_UNLABELLED = 20  # of another domain; with fewer, even the mean is uncertain


def require(manifest: pd.DataFrame, stage: str) -> None:
    """Check that the split that `stage` needs has examples.

    Raises:
        DataError: the split has no examples.
    """
    split, purpose, otherwise = NEEDS[stage]
    if not (manifest["split"] == split).any():
        word = {"val": "validation", "test": "test"}[split]
        raise DataError(
            f"{stage} has no {word} example {purpose}; raise ingest.shares.{split} or add examples"
            f" of that split{otherwise}"
        )


def require_unlabelled(count: int) -> None:
    """Check that the stage `adapt` has enough examples of the other domain.

    Raises:
        DataError: there are too few.
    """
    if count < LEAST_UNLABELLED:
        raise DataError(
            f"adapt needs {LEAST_UNLABELLED} examples of split {UNLABELLED}, but there are {count}:"
            " add examples of the other domain, or set adapt.run to []"
        )


def class_names(manifest: pd.DataFrame) -> list[str]:
    """Return the sorted labels of the training examples, the order of a head's outputs.

    Raises:
        DataError: there are fewer than two labels, or another split has a label without training
            examples.
    """
    classes = sorted(manifest.loc[manifest["split"] == "train", "label"].unique())
    if not classes:
        raise DataError("there is no training example; check ingest.shares or the folders")
    if len(classes) == 1:
        raise DataError(
            f"every training example is labelled {classes[0]!r}; "
            "a classifier needs examples of at least two classes"
        )
    others = sorted(set(manifest["label"]) - set(classes))
    if others:
        of = "it" if len(others) == 1 else f"these {len(others)} classes"
        raise DataError(
            f"no training example is labelled {listed(others, ALL_AT_MOST)}, but other splits have"
            f" such examples; add training examples of {of}, try another ingest.seed, or set"
            " ingest.classes_without_training to leave_out"
        )
    return classes


def listed(labels: Sequence[str], most: int = NAMED_AT_MOST) -> str:
    """Join at most `most` labels with commas, and add the number of the others."""
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more

"""Which classes, labels (by the examples that have them) or targets have few training examples."""

import pandas as pd

from ..tables import targets
from ..tables.manifest import SPLITS


def few_examples(manifest: pd.DataFrame, task: str, least: int) -> pd.DataFrame:
    """One row per class with fewer than `least` training examples: its examples in each split.

    If there are several labels, an example counts for each that it has; in regression, for each
    target.
    """
    counts = targets.of_task(task).counts(manifest).reindex(columns=SPLITS, fill_value=0)
    scarce = counts[counts["train"] < least].sort_index()
    return scarce.rename_axis("class").rename_axis(columns=None).reset_index()

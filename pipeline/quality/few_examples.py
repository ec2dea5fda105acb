"""Classes, labels or targets with few training examples."""

import pandas as pd

from ..tables import targets
from ..tables.manifest import SPLITS


def few_examples(manifest: pd.DataFrame, task: str, least: int) -> pd.DataFrame:
    """Return the number of examples per split of classes with fewer than `least` training examples.

    In multi-label tasks, an example counts for each label that it has; in regression, for each
    target that it has.
    """
    counts = targets.of_task(task).counts(manifest).reindex(columns=SPLITS, fill_value=0)
    scarce = counts[counts["train"] < least].sort_index()
    return scarce.rename_axis("class").rename_axis(columns=None).reset_index()

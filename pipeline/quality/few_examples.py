"""What has few training examples: classes, labels by the examples that have them, or numbers."""

import pandas as pd

from ..tables import targets
from ..tables.manifest import SPLITS, TARGET
from ..tables.task_names import CLASSIFICATION, MULTILABEL


def few_examples(manifest: pd.DataFrame, task: str, least: int) -> pd.DataFrame:
    """A row a class with fewer than `least` training examples: its examples in each split.

    Of several labels an example counts for each that it has, and of numbers for each.
    """
    if task == CLASSIFICATION:
        counts = manifest.groupby(["label", "split"]).size().unstack(fill_value=0)
    else:
        names = targets.target_names(manifest)
        values = manifest[[TARGET + name for name in names]].set_axis(names, axis="columns")
        count = values == 1 if task == MULTILABEL else values.notna()
        counts = count.groupby(manifest["split"]).sum().T
    counts = counts.reindex(columns=SPLITS, fill_value=0)
    scarce = counts[counts["train"] < least].sort_index()
    return scarce.rename_axis("class").rename_axis(columns=None).reset_index()

"""The features that the checks use: view 0 of every example."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.paths import FEATURES
from ..heads.tf_idf import fitted, weighed
from ..tables import targets
from ..tables.features import are_counts, read_splits
from ..tables.large import chunks, empty
from ..tables.manifest import SPLITS
from ..tables.power import raised

# Features are raised to this power, the default power of features for heads.
POWER = 0.5


def originals(manifest: pd.DataFrame) -> tuple[pd.DataFrame, npt.NDArray[np.float32]]:
    """Return the row of the manifest and the features [n, d] of view 0 of every example, by digest.

    In classification, the rows' column `number` is the position of the label among the sorted
    labels. In other tasks there is no such column: each label or target has a column of its own.
    """
    names = targets.target_names(manifest)
    classes = names or sorted(manifest["label"].unique())
    splits = [
        split.take(split.views == 0) if split.views.any() else split
        for split in read_splits(FEATURES, manifest, classes, SPLITS).values()
    ]
    digests = np.concatenate([split.digests for split in splits])
    order = np.argsort(digests)
    powers = empty(len(order), splits[0].features.shape[1])
    ends = np.cumsum([len(split.digests) for split in splits])[:-1]
    for split, places in zip(splits, np.split(np.argsort(order), ends), strict=True):
        for some in chunks(*split.features.shape):
            powers[places[some]] = raised(split.features[some], POWER)
    rows = manifest.set_index("digest").loc[digests[order]].reset_index()
    if not names:
        rows["number"] = pd.Index(classes).get_indexer(rows["label"])
    return rows, weighed(powers, fitted(powers)) if are_counts(FEATURES) else powers

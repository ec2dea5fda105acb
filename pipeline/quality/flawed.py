"""Single examples that are hardly usable, such as blurred pictures.

A measure of an example is too low if it is more than three interquartile ranges below the
lower quartile of the training examples (Tukey, "Exploratory Data Analysis", 1977), and also below a
fixed limit. In a set of night pictures, therefore, not all are too dark, and in a set of evenly lit
pictures none is.
"""

import numpy as np
import pandas as pd

from ..kinds import Kind

FAR = 3.0  # interquartile ranges
NARROW = 0.1  # octaves; a smaller interquartile range counts as this one


def flawed(table: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """Return `path`, `split`, `label`, `problem` and `beyond` of each flawed example.

    `beyond` is how far the example is beyond the limit, in octaves. Rows are sorted by problem, the
    worst of each first. If an example has several flaws, only the first is returned.

    Args:
        table: the manifest, with the kind's measures.
    """
    training = (table["split"] == "train").to_numpy()
    problem, beyond = np.full(len(table), "", dtype=object), np.zeros(len(table))
    for flaw in kind.flaws(table):
        known = flaw.values[training & np.isfinite(flaw.values)]
        if not len(known):
            continue
        lower, upper = np.quantile(known, [0.25, 0.75])
        limit = min(flaw.least, lower - FAR * max(upper - lower, NARROW))
        new = (flaw.values < limit) & (problem == "")
        problem[new], beyond[new] = flaw.name, limit - flaw.values[new]
    found = table[["path", "split", "label"]].assign(problem=problem, beyond=beyond)
    order = ["problem", "beyond", "path"]
    found = found[problem != ""].sort_values(order, ascending=[True, False, True])
    return found.reset_index(drop=True)

"""The contact sheet: some training vectors by class, each as a row of colours."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...examples.files import read
from .parse import vector

OF_CLASS = 4  # vectors per class
CLASSES = 12
MOST_COLUMNS = 512  # dimensions of a vector that are shown


def contact_sheet(training: pd.DataFrame, file: Path) -> None:
    """Draw the first vectors of the first classes; each dimension is a colour, white at 0."""
    first = sorted(training["label"].unique())[:CLASSES]
    some = training[training["label"].isin(first)].sort_values(["label", "digest"])
    some = some.groupby("label").head(OF_CLASS)
    rows = [vector(read(Path(row.path), row.digest)) for row in some.itertuples()]
    numbers = np.stack(rows)[:, :MOST_COLUMNS]
    largest = float(np.quantile(np.abs(numbers), 0.99)) or 1.0
    figure = Figure(figsize=(10, 1 + 0.22 * len(rows)), layout="constrained", dpi=100)
    axes = figure.add_subplot()
    axes.imshow(numbers, aspect="auto", cmap="RdBu_r", vmin=-largest, vmax=largest)
    axes.set_yticks(range(len(rows)), some["label"].str.slice(0, 30), fontsize=8)
    axes.set_xlabel("dimension of the vector")
    figure.savefig(file, metadata={"Software": None})

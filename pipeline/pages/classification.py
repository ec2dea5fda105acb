"""What the report shows of answers with one label."""

from typing import Any

import pandas as pd

from ..core.paths import CLASSES, PLOTS
from . import charts, tables
from .tables import Thumbnails


def parts(predictions: pd.DataFrame, classes: list[str], shown: Thumbnails) -> dict[str, Any]:
    """What `report_classification.html` is filled with.

    Args:
        predictions: as `evaluate` writes them.
        classes: by name.
        shown: the examples.
    """
    in_matrix = tables.in_matrix(predictions, classes)
    return {
        "learned": f"{len(classes)} classes",
        "unit": {"one": "class", "many": "classes"},
        "widest": max(34, 6 + 1.4 * len(in_matrix)),
        "mistakes": tables.mistakes(predictions, shown),
        "in_matrix": len(in_matrix),
        "confusion": tables.confusion(predictions, in_matrix),
        "confused": tables.confused(predictions, len(classes)),
        "of_class": tables.of_class(tables.table(CLASSES)),
        "reliability": tables.drawing(charts.reliability(tables.table(PLOTS / "reliability.csv"))),
    }

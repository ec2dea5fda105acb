"""What the report shows of answers that are numbers."""

from typing import Any

import pandas as pd

from ..core.paths import BUNDLE, CLASSES, PLOTS
from ..serving.classifier import Classifier
from . import charts, tables
from .tables import Thumbnails

MOST_CHARTS = 6  # numbers that have one each


def parts(predictions: pd.DataFrame, names: list[str], shown: Thumbnails) -> dict[str, Any]:
    """What `report_regression.html` is filled with.

    Args:
        predictions: as `evaluate` writes them.
        names: of the numbers.
        shown: the examples.
    """
    residuals = tables.table(PLOTS / "residuals.csv")
    # In other tables what was predicted is a class, and stays a text.
    residuals["predicted"] = residuals["predicted"].astype(float)
    numbers = "one number" if len(names) == 1 else f"{len(names)} numbers"
    return {
        "learned": numbers,
        "unit": {"one": "number", "many": "numbers"},
        "widest": 34,
        "several": len(names) > 1,
        "errors": errors(residuals, shown),
        "of_number": of_number(tables.table(CLASSES)),
        "charts": [
            tables.drawing(charts.against(residuals[residuals["name"] == name], name))
            for name in names[:MOST_CHARTS]
        ],
        "reliability": None,
    }


def of_number(measured: pd.DataFrame) -> list[dict[str, Any]]:
    """The table of numbers, to four digits."""
    shown = measured.astype(object)
    for name in measured.columns.difference(["class", "pictures"]):
        shown[name] = measured[name].map("{:.4g}".format, na_action="ignore")
    return tables.rows(shown.fillna("–"))


def errors(residuals: pd.DataFrame, shown: Thumbnails) -> list[dict[str, Any]]:
    """The largest errors, each in units of its number's standard deviation, and their examples."""
    if not len(residuals):
        return []
    spread = residuals.groupby("name")["target"].transform("std").fillna(1).clip(lower=1e-12)
    far = residuals.assign(far=(residuals["residual"].abs() / spread))
    far = far.sort_values(["far", "path", "name"], ascending=[False, True, True])
    classifier = Classifier(BUNDLE, explains=True)
    cards = []
    for row in far.head(tables.SHOWN).itertuples():
        answer = classifier.answer(
            shown.data(row.path), neighbours=tables.NEAR, side=tables.THUMBNAIL
        )
        cards.append(
            {
                "path": shown.name(row.path),
                "name": row.name,
                "target": f"{row.target:.4g}",
                "predicted": f"{row.predicted:.4g}",
                "shown": shown(row.path),
                "neighbours": tables.neighbours(answer, shown),
            }
        )
    return cards

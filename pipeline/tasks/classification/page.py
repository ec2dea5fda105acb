"""The part of the report for classification."""

import json

import pandas as pd

from ...core.paths import CLASSES, PLOTS
from ...pages import charts, tables
from ...pages.embed import Row
from ...pages.mistakes import SHOWN, Mistake

OF_CLASS = "class pictures precision recall f1 f1_low f1_high"


class Classes:
    """Implements `Page` for classification."""

    columns = "path label predicted probability correct"

    def mistakes(self, predictions: pd.DataFrame) -> list[Mistake]:
        """Return the wrong predictions with the highest probabilities."""
        wrong = predictions[~predictions["correct"]].sort_values(
            ["probability", "path"], ascending=[False, True]
        )
        return [
            Mistake(
                row.path,
                {
                    "label": row.label,
                    "predicted": row.predicted,
                    "probability": f"{row.probability:.3f}",
                },
                heat_of=row.predicted,
            )
            for row in wrong.head(SHOWN).itertuples()
        ]

    def parts(self, predictions: pd.DataFrame, classes: list[str]) -> Row:
        """Return the values that fill `page.html`."""
        in_matrix = tables.in_matrix(predictions, classes)
        return {
            "widest": max(34, 6 + 1.4 * len(in_matrix)),
            "in_matrix": len(in_matrix),
            "matrix_names": json.dumps(in_matrix),
            "confusion": tables.confusion(predictions, in_matrix),
            "confused": tables.confused(predictions, len(classes)),
            "of_class": tables.of_class(tables.table(CLASSES, OF_CLASS)),
            "reliability": tables.drawing(
                charts.reliability(tables.table(PLOTS / "reliability.csv"))
            ),
        }


PART = Classes()

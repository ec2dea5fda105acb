"""The part of the report for multi-label tasks."""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ...core.paths import CLASSES, PLOTS
from ...pages import charts, tables
from ...pages.embed import Row
from ...pages.mistakes import SHOWN, Mistake
from ..record import SEPARATOR

MOST_IN_CHART = 30  # labels
OF_LABEL = "class pictures threshold precision recall f1 f1_low f1_high"
OF_LABEL += " average_precision average_precision_low average_precision_high"


class Labels:
    """Implements `Page` for multi-label tasks."""

    columns = "path label predicted"

    def mistakes(self, predictions: pd.DataFrame) -> list[Mistake]:
        """Return the false positive and false negative labels, most confident errors first.

        Confidence is the distance of the probability from the label's threshold, as a fraction of
        the largest distance that is possible.
        """
        measured = tables.table(CLASSES, OF_LABEL)
        thresholds = dict(zip(measured["class"], measured["threshold"], strict=True))
        found = []
        for row in predictions.to_dict("records"):
            has, predicted = (
                set(filter(None, str(row[n]).split(SEPARATOR))) for n in ("label", "predicted")
            )
            unknown = set(filter(None, str(row.get("unknown", "")).split(SEPARATOR)))
            probabilities = of_labels(row)
            for label in sorted((has ^ predicted) - unknown):
                probability, least = probabilities.get(label), thresholds.get(label, 0.5)
                if probability is None:
                    continue
                room = 1 - least if label in predicted else least
                sure = abs(probability - least) / max(room, 1e-9)
                found.append((-sure, row["path"], label, label in predicted, probability))
        return [
            Mistake(
                path,
                {"label": label, "predicted": was_predicted, "probability": f"{probability:.3f}"},
                heat_of=label if was_predicted else None,
            )
            for _, path, label, was_predicted, probability in sorted(found)[:SHOWN]
        ]

    def parts(self, predictions: pd.DataFrame, labels: list[str]) -> Row:
        """Return the values that fill `page.html`."""
        measured = tables.table(CLASSES, OF_LABEL)
        reliability = PLOTS / "reliability.csv"
        return {
            "widest": 34,
            "of_label": of_label(measured),
            "precisions": tables.drawing(
                charts.dots(
                    measured.sort_values(["average_precision", "class"]).head(MOST_IN_CHART),
                    "average_precision",
                    "average precision",
                )
            ),
            "reliability": tables.drawing(charts.reliability(tables.table(reliability))),
        }


def of_label(measured: pd.DataFrame) -> list[Row]:
    """Return the table of labels in per cent; of many, those with the lowest average precision."""
    if len(measured) > tables.MOST_DRAWN:
        measured = measured.sort_values(["average_precision", "class"]).head(tables.MOST_ROWS)
    shown = measured.astype(object)
    for name in measured.columns:
        if name == "threshold":
            shown[name] = measured[name].map("{:.2f}".format, na_action="ignore")
        elif name not in ("class", "pictures", "unknown", "predicted"):
            shown[name] = measured[name].map(lambda fraction: f"{100 * fraction:.0f} %", "ignore")
    return tables.rows(shown.fillna("–"))


def of_labels(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the probabilities in a row of the predictions, by label."""
    found = {
        name[2:-1]: float(value)
        for name, value in row.items()
        if name.startswith("p(") and name.endswith(")")
    }
    for name, value in row.items():
        if place := re.fullmatch(r"class_(\d+)", name):
            found[str(value)] = float(row[f"probability_{place[1]}"])
    return found


PART = Labels()

"""What the report shows of answers that are numbers."""

import pandas as pd

from ..core.paths import CLASSES, PLOTS
from . import charts, tables
from .embed import Row
from .mistakes import SHOWN, Mistake

MOST_CHARTS = 6  # numbers that have one each
UNIT = {"one": "number", "many": "numbers"}


def residuals() -> pd.DataFrame:
    """The residuals, as `evaluate` writes them."""
    found = tables.table(PLOTS / "residuals.csv")
    # In other tables what was predicted is a class, and stays a text.
    return found.assign(predicted=found["predicted"].astype(float))


def mistakes(_: pd.DataFrame) -> list[Mistake]:
    """The largest errors, each in units of its number's standard deviation."""
    found = residuals()
    spread = found.groupby("name")["target"].transform("std").fillna(1).clip(lower=1e-12)
    far = found.assign(far=(found["residual"].abs() / spread))
    far = far.sort_values(["far", "path", "name"], ascending=[False, True, True])
    return [
        Mistake(
            row.path,
            {"name": row.name, "target": f"{row.target:.4g}", "predicted": f"{row.predicted:.4g}"},
        )
        for row in far.head(SHOWN).itertuples()
    ]


def parts(predictions: pd.DataFrame, names: list[str]) -> Row:
    """What `report_regression.html` is filled with.

    Args:
        predictions: as `evaluate` writes them.
        names: of the numbers.
    """
    measured = residuals()
    numbers = "one number" if len(names) == 1 else f"{len(names)} numbers"
    return {
        "learned": numbers,
        "widest": 34,
        "several": len(names) > 1,
        "of_number": of_number(tables.table(CLASSES)),
        "charts": [
            tables.drawing(charts.against(measured[measured["name"] == name], name))
            for name in names[:MOST_CHARTS]
        ],
        "reliability": None,
    }


def of_number(measured: pd.DataFrame) -> list[Row]:
    """The table of numbers, to four digits."""
    shown = measured.astype(object)
    for name in measured.columns.difference(["class", "pictures"]):
        shown[name] = measured[name].map("{:.4g}".format, na_action="ignore")
    return tables.rows(shown.fillna("–"))

"""The part of the report for regression."""

import pandas as pd

from ...core.paths import CLASSES, PLOTS
from ...pages import charts, tables
from ...pages.embed import Row
from ...pages.mistakes import SHOWN, Mistake

MOST_CHARTS = 6  # targets that have a chart
OF_NUMBER = "class pictures mae mae_low mae_high rmse r2 r2_low r2_high"


class Numbers:
    """Implements `Page` for regression."""

    columns = "path"

    def mistakes(self, _: pd.DataFrame) -> list[Mistake]:
        """Return the largest errors, each in standard deviations of its target."""
        found = residuals()
        spread = found.groupby("name")["target"].transform("std").fillna(1).clip(lower=1e-12)
        far = found.assign(far=(found["residual"].abs() / spread))
        far = far.sort_values(["far", "path", "name"], ascending=[False, True, True])
        return [
            Mistake(
                row.path,
                {
                    "name": row.name,
                    "target": f"{row.target:.4g}",
                    "predicted": f"{row.predicted:.4g}",
                },
            )
            for row in far.head(SHOWN).itertuples()
        ]

    def parts(self, predictions: pd.DataFrame, names: list[str]) -> Row:
        """Return the values that fill `page.html`."""
        measured = residuals()
        return {
            "widest": 34,
            "several": len(names) > 1,
            "of_number": of_number(tables.table(CLASSES, OF_NUMBER)),
            "charts": [
                tables.drawing(charts.against(measured[measured["name"] == name], name))
                for name in names[:MOST_CHARTS]
            ],
            "reliability": None,
        }


def residuals() -> pd.DataFrame:
    """Return the residuals, as `evaluate` writes them."""
    found = tables.table(PLOTS / "residuals.csv", "path name target predicted residual")
    # `tables.table` reads `predicted` as text, because it is a class in other tasks.
    return found.assign(predicted=found["predicted"].astype(float))


def of_number(measured: pd.DataFrame) -> list[Row]:
    """Return the table of targets, to four significant digits."""
    shown = measured.astype(object)
    for name in measured.columns.difference(["class", "pictures"]):
        shown[name] = measured[name].map("{:.4g}".format, na_action="ignore")
    return tables.rows(shown.fillna("–"))


PART = Numbers()

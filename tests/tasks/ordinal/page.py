"""The report names the grades."""

import pandas as pd

from pipeline.pages.embed import Row
from pipeline.pages.mistakes import Mistake


class OrdinalPage:
    """Without mistakes."""

    columns = "path"

    def mistakes(self, predictions: pd.DataFrame) -> list[Mistake]:
        return []

    def parts(self, predictions: pd.DataFrame, names: list[str]) -> Row:
        return {"widest": 34, "reliability": None, "grades": " < ".join(names)}


PART = OrdinalPage()

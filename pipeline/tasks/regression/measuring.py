"""Regression: what evaluate measures, writes and draws."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...core.params import EvaluateParams
from ...evaluation import Array, Asked
from ...evaluation.answered import Pair, differing
from ...evaluation.metrics import Weigh
from ...tables.labels import listed
from ...tables.manifest import TARGET
from .metrics import weighted
from .targets import shown

MOST_DIGITS = 15


OF_NUMBERS = ("mae", "rmse", "r2")


class Regression:
    """Implements `Measuring` for regression."""

    shown = ("mae", "rmse", "r2")
    needs = "training examples that differ in every target"

    def learnable(self, training: Array, every: Array) -> bool:
        """Return whether every target has more than one value in the training examples."""
        return len(training) > 1 and bool((training != training[0]).any(axis=0).all())

    def weigh(
        self,
        labels: Array,
        answers: Array,
        thresholds: Sequence[float],
        settings: EvaluateParams,
    ) -> Weigh:
        """Return the function that computes the metrics of `metrics.py`."""
        return partial(weighted, targets=labels, answers=answers)

    def proportions(self, asked: Asked) -> dict[str, Array]:
        """Return no metrics, because predicted targets are not right or wrong."""
        return {}

    def warnings(self, asked: Asked) -> list[str]:
        """Return a warning about targets that are the same in all test examples."""
        same = (asked.test.labels == asked.test.labels[0]).all(axis=0)
        alike = [name for name, one in zip(asked.names, same, strict=True) if one]
        if not alike:
            return []
        return [f"all test examples have the same {listed(alike)}, so its R² is not defined"]

    def classes(self, asked: Asked) -> pd.DataFrame:
        """Return the names of the targets, and how many examples each is measured on."""
        return pd.DataFrame({"class": asked.names, "pictures": len(asked.test.labels)})

    def predictions(self, asked: Asked) -> pd.DataFrame:
        """Return each target and its prediction, and the ends of its interval if there is one."""
        targets, answers = asked.test.labels, asked.answers
        columns = {"target": targets, "predicted": answers}
        if len(asked.reach):
            reach = np.array(asked.reach)
            columns |= {"low": answers - reach, "high": answers + reach}
        table: dict[str, Any] = {"path": asked.test.paths}
        table["label"] = [shown(asked.names, row) for row in targets]
        for place, name in enumerate(asked.names):
            digits = digits_of(targets[:, place])
            for words, values in columns.items():
                table[f"{words}({name})"] = [f"{one:.{digits}g}" for one in values[:, place]]
        return pd.concat([pd.DataFrame(table), asked.slices], axis=1).sort_values("path")

    def slices(self, asked: Asked) -> pd.DataFrame:
        """Return the slices by the mean absolute error."""
        from ...evaluation.slices import slice_errors

        errors = np.abs(asked.answers - asked.test.labels).mean(axis=1)
        return slice_errors(asked.slices, errors, asked.settings.confidence, asked.groups)

    def plots(self, asked: Asked, folder: Path) -> dict[str, pd.DataFrame]:
        """Draw the residuals; return the table of predictions and residuals."""
        from .residuals import draw_residuals, residual_table

        table = residual_table(asked.test.paths, asked.names, asked.test.labels, asked.answers)
        draw_residuals(table, folder / "residuals.png")
        return {"residuals": table}

    def paired(self, old: pd.DataFrame, new: pd.DataFrame, measure: str, bins: int) -> Pair | None:
        """Return both models' predictions of the targets that `new` has."""
        columns = [name for name in new.columns if name.startswith(TARGET)]
        names = [name.removeprefix(TARGET) for name in columns]
        targets = new[columns].to_numpy(float)
        predicted = [f"predicted({name})" for name in names]
        if measure not in OF_NUMBERS or not set(predicted) <= set(old.columns) & set(new.columns):
            return None
        answers = [table[predicted].to_numpy(float) for table in (old, new)]
        weigh = tuple(partial(weighted, targets=targets, answers=a) for a in answers)
        return Pair(weigh=weigh, outputs=len(names), differing=differing(*answers))


def digits_of(targets: Array) -> int:
    """Return how many significant digits it takes to show six digits of targets' differences."""
    spread, size = float(np.ptp(targets)), float(np.abs(targets).max())
    offset = math.floor(math.log10(size / spread)) if spread > 0 else 0
    return min(6 + max(offset, 0), MOST_DIGITS)


PART = Regression()

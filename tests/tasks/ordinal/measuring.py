"""How far answers are from the truth, in ranks."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.core.params import EvaluateParams
from pipeline.evaluation import Array, Asked
from pipeline.evaluation.metrics import Scores, Weigh
from pipeline.evaluation.slices import slice_errors
from pipeline.evaluation.tables import prediction_table
from pipeline.tasks.classification.measuring import Classification


def median(shares: Array) -> npt.NDArray[np.int64]:
    """The first grade [n] that half of the probability does not exceed."""
    found: npt.NDArray[np.int64] = (np.cumsum(shares, axis=1) >= 0.5 - 1e-9).argmax(axis=1)
    return found


def weighted(weights: Array, missed: npt.NDArray[np.int64]) -> Scores:
    """The measures for weightings [B, n] of examples that are missed by so many ranks [n]."""
    total = weights.sum(axis=1)
    return Scores(
        {"exact": weights @ (missed == 0) / total, "rank_error": weights @ missed / total}, {}
    )


class Ordinal(Classification):
    """Classes, but for what is measured."""

    shown = ("exact", "rank_error")

    def weigh(
        self,
        labels: npt.NDArray[np.int64],
        answers: Array,
        thresholds: Sequence[float],
        settings: EvaluateParams,
    ) -> Weigh:
        return partial(weighted, missed=np.abs(median(answers) - labels))

    def proportions(self, asked: Asked) -> dict[str, Array]:
        return {"exact": (median(asked.answers) == asked.test.labels).astype(np.float64)}

    def predictions(self, asked: Asked) -> pd.DataFrame:
        return prediction_table(
            asked.test, asked.answers, median(asked.answers), asked.names, asked.slices, 3
        )

    def slices(self, asked: Asked) -> pd.DataFrame:
        missed = np.abs(median(asked.answers) - asked.test.labels).astype(np.float64)
        return slice_errors(asked.slices, missed, asked.settings.confidence, asked.groups)


PART = Ordinal()

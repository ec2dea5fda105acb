"""One label of each example: what evaluate measures, writes and draws."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.params import EvaluateParams
from ..core.paths import PROBABILITIES
from ..heads.head import against_thresholds
from ..tables.labels import listed
from . import Array, Asked
from .metrics import Weigh, ranks, weighted

Integers = npt.NDArray[np.int64]


class Classification:
    """Answers what `Measuring` asks."""

    shown = ("accuracy", "loss")
    needs = "training examples of every class"

    def learnable(self, training: npt.NDArray[Any], every: npt.NDArray[Any]) -> bool:
        """Every class has a training example."""
        return len(np.unique(training)) == len(np.unique(every))

    def weigh(
        self,
        labels: npt.NDArray[np.int64],
        answers: Array,
        thresholds: Sequence[float],
        settings: EvaluateParams,
    ) -> Weigh:
        """The measures of `metrics.py`."""
        top_k, bins = settings.top_k, settings.calibration_bins
        predicted = answered(answers, thresholds)
        return partial(
            weighted, labels=labels, shares=answers, top_k=top_k, bins=bins, predicted=predicted
        )

    def proportions(self, asked: Asked) -> dict[str, Array]:
        """Accuracy, and that of the k most probable classes."""
        rank, top_k = ranks(asked.test.labels, asked.answers), asked.settings.top_k
        correct = of_asked(asked) == asked.test.labels
        measures = {"accuracy": correct, f"top_{top_k}_accuracy": rank < top_k}
        return {name: right.astype(np.float64) for name, right in measures.items()}

    def warnings(self, asked: Asked) -> list[str]:
        """Classes without a test example."""
        present = set(asked.test.labels.tolist())
        absent = [name for number, name in enumerate(asked.names) if number not in present]
        if not absent:
            return []
        return [
            f"no test example of {listed(absent)}; balanced accuracy and macro F1 are means over"
            " the other classes"
        ]

    def classes(self, asked: Asked) -> dict[str, Any]:
        """How many examples a class has, and how many are taken for it."""
        classes = len(asked.names)
        return {
            "class": asked.names,
            "pictures": np.bincount(asked.test.labels, minlength=classes),
            "predicted": np.bincount(of_asked(asked), minlength=classes),
        }

    def predictions(self, asked: Asked) -> pd.DataFrame:
        """The predicted class and the probability of each."""
        from .tables import prediction_table

        top_k = asked.settings.top_k
        return prediction_table(
            asked.test, asked.answers, of_asked(asked), asked.names, asked.slices, top_k
        )

    def slices(self, asked: Asked) -> pd.DataFrame:
        """By accuracy."""
        from .slices import slice_table

        correct = of_asked(asked) == asked.test.labels
        return slice_table(asked.slices, correct, asked.settings.confidence, groups=asked.groups)

    def plots(self, asked: Asked, folder: Path) -> dict[str, pd.DataFrame]:
        """The confusion matrix, curves of each class against the rest, and calibration."""
        from . import tables
        from .plots import draw_confusion

        test, shares, names = asked.test, asked.answers, asked.names
        predicted = of_asked(asked)
        draw_confusion(test.labels, predicted, names, folder / "confusion_matrix.png")
        if asked.settings.all_probabilities:
            file, labels = folder / PROBABILITIES.name, np.array(names)[test.labels]
            tables.write_probabilities(file, test.paths, labels, shares, names)
        against = partial(tables.one_against_rest, test, shares, names)
        right, bins = predicted == test.labels, asked.settings.calibration_bins
        drawn = tables.drawn(test, right, names)
        confidence = shares[np.arange(len(shares)), predicted]
        return {
            "confusion": tables.confusion_table(test, predicted, names),
            "roc": tables.roc_table(against(), drawn),
            "precision_recall": tables.precision_recall_table(against(), drawn),
            "reliability": tables.reliability_table(confidence, right, bins),
        }


def answered(shares: Array, thresholds: Sequence[float]) -> Integers:
    """The class [n] that is answered to each example, of probabilities [n, c]."""
    found: Integers = against_thresholds(shares, thresholds).argmax(axis=1)
    return found


def of_asked(asked: Asked) -> Integers:
    """The same of what was asked."""
    return answered(asked.answers, asked.thresholds)


TASK = Classification()

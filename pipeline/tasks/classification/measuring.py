"""Classification: what evaluate measures, writes and draws."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...core.params import EvaluateParams
from ...evaluation import Array, Asked
from ...evaluation.answered import Pair, differing, every_probability
from ...evaluation.metrics import Weigh, ranks, weighted
from ...heads.head import against_thresholds
from ...tables.labels import listed

Integers = npt.NDArray[np.int64]


MEASURES = r"loss|balanced_accuracy|macro_f1|calibration_error|top_(\d+)_accuracy"
OF_PREDICTED = ("balanced_accuracy", "macro_f1")  # metrics that need no probabilities


class Classification:
    """Implements `Measuring` for classification."""

    shown = ("accuracy", "loss")
    needs = "training examples of every class"

    def learnable(self, training: npt.NDArray[Any], every: npt.NDArray[Any]) -> bool:
        """Return whether every class has a training example."""
        return len(np.unique(training)) == len(np.unique(every))

    def weigh(
        self,
        labels: npt.NDArray[np.int64],
        answers: Array,
        thresholds: Sequence[float],
        settings: EvaluateParams,
    ) -> Weigh:
        """Return the function that computes the metrics of `evaluation/metrics.py`."""
        top_k, bins = settings.top_k, settings.calibration_bins
        predicted = answered(answers, thresholds)
        return partial(
            weighted,
            labels=labels,
            probabilities=answers,
            top_k=top_k,
            bins=bins,
            predicted=predicted,
        )

    def proportions(self, asked: Asked) -> dict[str, Array]:
        """Return accuracy and top-k accuracy."""
        rank, top_k = ranks(asked.test.labels, asked.answers), asked.settings.top_k
        correct = of_asked(asked) == asked.test.labels
        measures = {"accuracy": correct, f"top_{top_k}_accuracy": rank < top_k}
        return {name: right.astype(np.float64) for name, right in measures.items()}

    def warnings(self, asked: Asked) -> list[str]:
        """Return a warning about classes without a test example."""
        present = set(asked.test.labels.tolist())
        absent = [name for number, name in enumerate(asked.names) if number not in present]
        if not absent:
            return []
        return [
            f"there is no test example of {listed(absent)}; balanced accuracy and macro F1 are"
            " means over the other classes"
        ]

    def classes(self, asked: Asked) -> pd.DataFrame:
        """Return how many examples each class has, and for how many it was predicted."""
        classes = len(asked.names)
        return pd.DataFrame(
            {
                "class": asked.names,
                "pictures": np.bincount(asked.test.labels, minlength=classes),
                "predicted": np.bincount(of_asked(asked), minlength=classes),
            }
        )

    def predictions(self, asked: Asked) -> pd.DataFrame:
        """Return the predicted class and the probability of each class."""
        from ...evaluation.tables import prediction_table

        top_k = asked.settings.top_k
        return prediction_table(
            asked.test, asked.answers, of_asked(asked), asked.names, asked.slices, top_k
        )

    def slices(self, asked: Asked) -> pd.DataFrame:
        """Return the slices by accuracy."""
        from ...evaluation.slices import slice_table

        correct = of_asked(asked) == asked.test.labels
        return slice_table(asked.slices, correct, asked.settings.confidence, groups=asked.groups)

    def plots(self, asked: Asked, folder: Path) -> dict[str, pd.DataFrame]:
        """Draw the confusion matrix; return tables of confusion, curves and calibration."""
        from ...evaluation import tables
        from .plots import draw_confusion

        test, probabilities, names = asked.test, asked.answers, asked.names
        predicted = of_asked(asked)
        draw_confusion(test.labels, predicted, names, folder / "confusion_matrix.png")
        if asked.settings.all_probabilities:
            labels = np.array(names)[test.labels]
            tables.write_probabilities(folder, test.paths, labels, probabilities, names)
        against = partial(tables.one_against_rest, test, probabilities, names)
        right, bins = predicted == test.labels, asked.settings.calibration_bins
        drawn = tables.drawn(test, right, names)
        confidence = probabilities[np.arange(len(probabilities)), predicted]
        return {
            "confusion": tables.confusion_table(test, predicted, names),
            "roc": tables.roc_table(against(), drawn),
            "precision_recall": tables.precision_recall_table(against(), drawn),
            "reliability": tables.reliability_table(confidence, right, bins),
        }

    def paired(self, old: pd.DataFrame, new: pd.DataFrame, measure: str, bins: int) -> Pair | None:
        """Return the predictions of both models; the true class is the label of `new`."""
        given = new["label"]
        if measure == "accuracy":
            was, now = ((answers["predicted"] == given).to_numpy() for answers in (old, new))
            return Pair(right=(was, now))
        known = re.fullmatch(MEASURES, measure)
        found = [_probabilities(answers, measure) for answers in (old, new)]
        if not known or not all(len(probabilities.columns) for probabilities in found):
            return None
        names = sorted({*given}.union(*(table.columns for table in found)))
        labels = pd.Index(names).get_indexer(given).astype(np.int64)
        probabilities = [
            table.reindex(columns=names, fill_value=0).to_numpy(float) for table in found
        ]
        top_k = int(known[1] or 1)
        weigh = tuple(
            partial(weighted, labels=labels, probabilities=one, top_k=top_k, bins=bins)
            for one in probabilities
        )
        counted = [_counted(measure, labels, one, top_k) for one in probabilities]
        return Pair(weigh=weigh, outputs=len(names), differing=differing(*counted))


def _probabilities(answers: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return probabilities, one column per class; no column if `measure` needs missing ones.

    Loss and top-k accuracy need the probability of every class. The other metrics only need the
    probability of the predicted class.
    """
    if measure == "loss" or measure.startswith("top_"):
        return every_probability(answers)
    one_hot = pd.get_dummies(answers["predicted"], dtype=float)
    return one_hot.mul(answers["probability"].to_numpy(float), axis=0)


def _counted(measure: str, labels: Integers, probabilities: Array, top_k: int) -> npt.NDArray[Any]:
    """Return what `measure` uses of each example's probabilities, [n, k].

    The probabilities of two models differ for nearly every example, and the predicted classes for
    few. A measure that only uses the latter must not count the others as evidence.
    """
    if measure.startswith("top_"):
        return (ranks(labels, probabilities) < top_k)[:, None]
    if measure in OF_PREDICTED:
        predicted: Integers = probabilities.argmax(axis=1)[:, None]
        return predicted
    return probabilities


def answered(probabilities: Array, thresholds: Sequence[float]) -> Integers:
    """Return the predicted class of each example, [n], from probabilities [n, c]."""
    found: Integers = against_thresholds(probabilities, thresholds).argmax(axis=1)
    return found


def of_asked(asked: Asked) -> Integers:
    """Return the predicted classes of `asked`."""
    return answered(asked.answers, asked.thresholds)


PART = Classification()

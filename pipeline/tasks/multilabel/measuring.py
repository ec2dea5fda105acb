"""Multi-label tasks: what evaluate measures, writes and draws.

A label that is unknown for an example counts neither for nor against a prediction.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...core.params import EvaluateParams
from ...evaluation import Array, Asked
from ...evaluation.answered import Pair, differing, every_probability
from ...evaluation.metrics import Weigh
from ...tables.labels import listed
from ...tables.manifest import TARGET
from ..record import SEPARATOR
from .metrics import Answers, weighted

OF_LABELS = ("loss", "mean_average_precision", "micro_f1", "macro_f1", "exact_match")
OF_CHOSEN = ("micro_f1", "macro_f1")  # metrics that need no probabilities


class Multilabel:
    """Implements `Measuring` for multi-label tasks."""

    shown = ("mean_average_precision", "micro_f1", "exact_match")
    needs = "training examples with and without each label"

    def learnable(self, training: Array, every: Array) -> bool:
        """Return whether each label has positive and negative training examples."""
        return bool(((training == 1).any(axis=0) & (training == 0).any(axis=0)).all())

    def weigh(
        self,
        labels: Array,
        answers: Array,
        thresholds: Sequence[float],
        settings: EvaluateParams,
    ) -> Weigh:
        """Return the function that computes the metrics of `metrics.py`."""
        about = Answers.of(labels, answers, answers >= np.array(thresholds))
        return partial(weighted, about=about)

    def proportions(self, asked: Asked) -> dict[str, Array]:
        """Return the exact match, for examples with at least one known label."""
        some = ~np.isnan(asked.test.labels).all(axis=1)
        return {"exact_match": np.where(some, _right(asked), np.nan)}

    def warnings(self, asked: Asked) -> list[str]:
        """Return warnings about labels that no test example has, or that none is known to lack."""
        means = "mean average precision is the mean over the other labels"
        lines = []
        for value, words, also in (
            (1, "has", f"{means}, and so is macro F1"),
            (0, "is known to lack", means),
        ):
            there = (asked.test.labels == value).any(axis=0)
            absent = [name for name, one in zip(asked.names, there, strict=True) if not one]
            if absent:
                lines.append(f"no test example {words} {listed(absent)}; {also}")
        return lines

    def classes(self, asked: Asked) -> pd.DataFrame:
        """For each label, return how many have it, how many are unknown, and its threshold."""
        return pd.DataFrame(
            {
                "class": asked.names,
                "pictures": (asked.test.labels == 1).sum(axis=0),
                "unknown": np.isnan(asked.test.labels).sum(axis=0),
                "threshold": asked.thresholds,
            }
        )

    def predictions(self, asked: Asked) -> pd.DataFrame:
        """Return the labels above their thresholds, and the probability of each label.

        A prediction is correct if it is right about all known labels. Unknown labels are in a
        separate column.
        """
        from ...evaluation.tables import of_each

        chosen = asked.answers >= np.array(asked.thresholds)
        table = pd.DataFrame(
            {
                "path": asked.test.paths,
                "label": _texts(asked.test.labels == 1, asked.names),
                "predicted": _texts(chosen, asked.names),
                "correct": _right(asked),
                "unknown": _texts(np.isnan(asked.test.labels), asked.names),
            }
        )
        of_label = of_each(asked.answers, asked.names, asked.settings.top_k)
        return pd.concat([table, asked.slices, of_label], axis=1).sort_values("path")

    def slices(self, asked: Asked) -> pd.DataFrame:
        """Return the slices by exact match."""
        from ...evaluation.slices import slice_table

        confidence, groups = asked.settings.confidence, asked.groups
        return slice_table(asked.slices, _right(asked), confidence, "exact_match", groups)

    def plots(self, asked: Asked, folder: Path) -> dict[str, pd.DataFrame]:
        """Return the curves of each label, and the calibration over all labels."""
        from ...evaluation import tables

        test, probabilities, names = asked.test, asked.answers, asked.names
        if asked.settings.all_probabilities:
            labels = np.array(_texts(test.labels == 1, names))
            tables.write_probabilities(folder, test.paths, labels, probabilities, names)
        drawn = names
        if len(names) > tables.MANY:
            about = Answers.of(
                test.labels, probabilities, probabilities >= np.array(asked.thresholds)
            )
            found = weighted(np.ones((1, len(probabilities))), about).of_class["average_precision"][
                0
            ]
            places = np.argsort(found, kind="stable")[: tables.DRAWN]  # NaN comes last
            drawn = [names[c] for c in places]
        known = ~np.isnan(test.labels)
        bins = asked.settings.calibration_bins
        return {
            "roc": tables.roc_table(_curves(asked), drawn),
            "precision_recall": tables.precision_recall_table(_curves(asked), drawn),
            "reliability": tables.reliability_table(
                probabilities[known], test.labels[known] == 1, bins
            ),
        }

    def paired(self, old: pd.DataFrame, new: pd.DataFrame, measure: str, bins: int) -> Pair | None:
        """Return both models' predictions of the labels of `new`, even if `old` lacked some."""
        columns = [name for name in new.columns if name.startswith(TARGET)]
        names = [name.removeprefix(TARGET) for name in columns]
        targets = new[columns].to_numpy(float)
        if measure not in OF_LABELS or not all("predicted" in table for table in (old, new)):
            return None
        chosen = [_chosen(answers, names) for answers in (old, new)]
        known = ~np.isnan(targets)
        if measure == "exact_match":
            was, now = (((one == targets) | ~known).all(axis=1) for one in chosen)
            return Pair(right=(was, now))
        probabilities = [one.astype(float) for one in chosen]
        if measure not in OF_CHOSEN:  # the probability of every label is needed
            tables = [every_probability(answers) for answers in (old, new)]
            if not all(len(table.columns) for table in tables):
                return None
            probabilities = [t.reindex(columns=names, fill_value=0).to_numpy(float) for t in tables]
        about = [Answers.of(targets, *one) for one in zip(probabilities, chosen, strict=True)]
        weigh = tuple(partial(weighted, about=one) for one in about)
        apart = differing(*(np.where(known, one, 0) for one in probabilities))
        return Pair(weigh=weigh, outputs=len(names), differing=apart)


def _chosen(answers: pd.DataFrame, names: list[str]) -> npt.NDArray[np.bool_]:
    """Return which of the labels were predicted, [n, c]."""
    predicted = [set(text.split(SEPARATOR)) for text in answers["predicted"]]
    return np.array([[name in one for name in names] for one in predicted])


def _texts(there: npt.NDArray[np.bool_], names: list[str]) -> list[str]:
    """Return the labels of each example as one text, as in the manifest."""
    order = np.argsort(names)
    ordered = np.array(names)[order]
    return [SEPARATOR.join(ordered[row].tolist()) for row in there[:, order]]


def _right(asked: Asked) -> npt.NDArray[np.bool_]:
    """Return whether all known labels of each example were predicted correctly, [n]."""
    chosen = asked.answers >= np.array(asked.thresholds)
    unknown = np.isnan(asked.test.labels)
    right: npt.NDArray[np.bool_] = ((chosen == asked.test.labels) | unknown).all(axis=1)
    return right


def _curves(asked: Asked) -> Iterator[tuple[str, npt.NDArray[np.bool_], Array]]:
    """Yield each label that some test examples have and some lack, without unknown cases."""
    for name, labels, probabilities in zip(
        asked.names, asked.test.labels.T, asked.answers.T, strict=True
    ):
        known = ~np.isnan(labels)
        if 0 < (labels == 1).sum() < known.sum():
            yield name, labels[known] == 1, probabilities[known]


PART = Multilabel()

"""Several labels of each example: what evaluate measures, writes and draws.

A label that is not known of an example counts neither for nor against an answer.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

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
OF_CHOSEN = ("micro_f1", "macro_f1")  # those of them that need no probabilities


class Multilabel:
    """Answers what `Measuring` asks."""

    shown = ("mean_average_precision", "micro_f1", "exact_match")
    needs = "training examples with and without every label"

    def learnable(self, training: Array, every: Array) -> bool:
        """Every label has training examples that have it, and such that lack it."""
        return bool(((training == 1).any(axis=0) & (training == 0).any(axis=0)).all())

    def weigh(
        self,
        labels: Array,
        answers: Array,
        thresholds: Sequence[float],
        settings: EvaluateParams,
    ) -> Weigh:
        """The measures of `metrics.py`."""
        about = Answers.of(labels, answers, answers >= np.array(thresholds))
        return partial(weighted, about=about)

    def proportions(self, asked: Asked) -> dict[str, Array]:
        """Exact match, for the examples of which some label is known."""
        some = ~np.isnan(asked.test.labels).all(axis=1)
        return {"exact_match": np.where(some, _right(asked), np.nan)}

    def warnings(self, asked: Asked) -> list[str]:
        """Labels that no test example has, or that none lacks."""
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

    def classes(self, asked: Asked) -> dict[str, Any]:
        """How many examples have a label, of how many that is unknown, and its threshold."""
        return {
            "class": asked.names,
            "pictures": (asked.test.labels == 1).sum(axis=0),
            "unknown": np.isnan(asked.test.labels).sum(axis=0),
            "threshold": asked.thresholds,
        }

    def predictions(self, asked: Asked) -> pd.DataFrame:
        """The labels above their thresholds, and the probability of each.

        An answer is correct if it is right about all labels that are known. Those that are not are
        in a column of their own.
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
        """The slices by exact match."""
        from ...evaluation.slices import slice_table

        confidence, groups = asked.settings.confidence, asked.groups
        return slice_table(asked.slices, _right(asked), confidence, "exact_match", groups)

    def plots(self, asked: Asked, folder: Path) -> dict[str, pd.DataFrame]:
        """Curves of each label, and calibration over all of them."""
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
        """Those labels that `new` has targets for, whatever labels `old` knew."""
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
    """Which of the labels are among those that were answered, [n, c]."""
    predicted = [set(text.split(SEPARATOR)) for text in answers["predicted"]]
    return np.array([[name in one for name in names] for one in predicted])


def _texts(there: npt.NDArray[np.bool_], names: list[str]) -> list[str]:
    """The labels that are there, of each example [n, c], as one text like that in the manifest."""
    order = np.argsort(names)
    ordered = np.array(names)[order]
    return [SEPARATOR.join(ordered[row].tolist()) for row in there[:, order]]


def _right(asked: Asked) -> npt.NDArray[np.bool_]:
    """Whether all known labels of each example were answered rightly, [n]."""
    chosen = asked.answers >= np.array(asked.thresholds)
    unknown = np.isnan(asked.test.labels)
    right: npt.NDArray[np.bool_] = ((chosen == asked.test.labels) | unknown).all(axis=1)
    return right


def _curves(asked: Asked) -> Iterator[tuple[str, npt.NDArray[np.bool_], Array]]:
    """The labels that some test examples have and others lack, among those of which it is known."""
    for name, labels, probabilities in zip(
        asked.names, asked.test.labels.T, asked.answers.T, strict=True
    ):
        known = ~np.isnan(labels)
        if 0 < (labels == 1).sum() < known.sum():
            yield name, labels[known] == 1, probabilities[known]


PART = Multilabel()

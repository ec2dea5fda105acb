"""Metrics of multi-label tasks, with example weights as in `evaluation/metrics.py`."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...evaluation.metrics import Array, Scores, ratio
from ...heads.head import one_thread

Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

IN_CACHE = 2**16  # weights that are sorted at once; three times as fast as sorting all


class Ranking(NamedTuple):
    """The m examples for which a label is known, in descending order of its probability.

    `order` [m] has their rows. For each of the p examples that have the label, `positives` [p] is
    its place among the m examples, `ends` [p] is the last place with the same probability, and
    `last` [p] is the last of the p examples with the same probability.
    """

    order: Places
    positives: Places
    ends: Places
    last: Places

    @classmethod
    def of(cls, labels: Array, probabilities: Array) -> "Ranking":
        """Return the ranking for one label: `labels` [n] are 1, 0 or NaN (unknown)."""
        rows = np.flatnonzero(~np.isnan(labels))
        order = rows[np.argsort(-probabilities[rows], kind="stable")]
        falling = -probabilities[order]
        positives = np.flatnonzero(labels[order] == 1)
        own = falling[positives]
        ends = np.searchsorted(falling, own, side="right") - 1
        return cls(order, positives, ends, np.searchsorted(own, own, side="right") - 1)

    def average_precision(self, weights: Array) -> Array:
        """Return the average precision [B] for each row of `weights` [B, n].

        It is the sum, over the thresholds from high to low, of the precision times the increase in
        recall. It is NaN if the examples that have the label have no weight. Examples are sorted
        once, not for each row of weights.
        """
        if not len(self.positives):
            return np.full(len(weights), np.nan)
        rows = max(1, IN_CACHE // len(self.order))
        parts = [weights[start : start + rows] for start in range(0, len(weights), rows)]
        return np.concatenate([self._average_precision(part) for part in parts])

    def _average_precision(self, weights: Array) -> Array:
        of_known = weights[:, self.order]
        own = of_known[:, self.positives]
        answered = np.cumsum(of_known, axis=1)[:, self.ends]
        right = np.cumsum(own, axis=1)
        precision = np.divide(right[:, self.last], answered, out=np.zeros_like(own), where=own > 0)
        return ratio((own * precision).sum(axis=1), right[:, -1])


@dataclass(frozen=True)
class Answers:
    """The truth and the predictions for n examples and c labels, ready to be weighted.

    `there`, `known` and `chosen` are [n, c]: whether the example has the label, whether this is
    known, and whether the label was predicted. `loss` [n] is the sum of the cross-entropies of an
    example's known labels.
    """

    there: Mask
    known: Mask
    chosen: Mask
    loss: Array
    rankings: list[Ranking]

    @classmethod
    def of(cls, labels: Array, probabilities: Array, chosen: Mask) -> "Answers":
        """Prepare labels [n, c], 1, 0 or NaN (unknown), and their probabilities [n, c]."""
        there, known = labels == 1, ~np.isnan(labels)
        least = np.finfo(np.float64).eps  # as in scikit-learn's log_loss
        of_truth = np.clip(np.where(there, probabilities, 1 - probabilities), least, 1 - least)
        loss = np.where(known, -np.log(of_truth), 0).sum(axis=1)
        rankings = [Ranking.of(*columns) for columns in zip(labels.T, probabilities.T, strict=True)]
        return cls(there, known, chosen & known, loss, rankings)


def weighted(weights: Array, about: Answers) -> Scores:
    """Return the metrics for each row of `weights` [B, n].

    Overall: loss (the mean cross-entropy of the known labels), mean_average_precision (over labels
    that some examples have and others lack), micro_f1, macro_f1 (over labels that some examples
    have) and exact_match (the fraction of examples whose known labels are all predicted correctly).
    Per label: average_precision, precision, recall and f1.
    """
    there, known, chosen = about.there, about.known, about.chosen
    has = there.any(axis=0)
    both = has & (known & ~there).any(axis=0)
    right, some = ((chosen == there) | ~known).all(axis=1), known.any(axis=1)
    with one_thread():
        support, predictions = weights @ there, weights @ chosen
        hits = weights @ (there & chosen)
        cells = weights @ known.sum(axis=1)
        loss = ratio(weights @ about.loss, cells)
        exact = ratio(weights @ (right & some), weights @ some)
    ranked = np.stack([one.average_precision(weights) for one in about.rankings], axis=1)
    ranked[:, ~both] = np.nan
    f1 = ratio(2 * hits, support + predictions)
    micro = ratio(2 * hits.sum(axis=1), (support + predictions).sum(axis=1))
    f1[:, ~has] = np.nan
    overall = {
        "loss": loss,
        "mean_average_precision": _mean(ranked),
        "micro_f1": micro,
        "macro_f1": _mean(f1),
        "exact_match": exact,
    }
    of_class = {
        "average_precision": ranked,
        "precision": ratio(hits, predictions),
        "recall": ratio(hits, support),
        "f1": f1,
    }
    return Scores(overall, of_class)


def _mean(values: Array) -> Array:
    """Return the mean [B] over the defined columns; NaN if there are none."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1).astype(np.float64))

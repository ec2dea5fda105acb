"""Label issues: examples that are mislabelled rather than hard, by out-of-fold scores.

If classes overlap, a head contradicts many labels that are right. The out-of-fold scores are
therefore fitted by a model that has both overlapping classes and a rate of wrong labels (after
Lawrence and Schölkopf, "Estimating a kernel Fisher discriminant in the presence of label noise",
ICML 2001). A label is an issue if the overlap does not explain it.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...core import memory
from ...core.params import ChecksParams
from ...heads.head import probabilities
from ...quality.doubtful import Doubts
from ...quality.held_out import FOLDS, Floats, Integers, Regressions, folds_of
from ...tables import large
from ...tables.large import chunks, zeros

Mask = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

# The expected number of wrong labels before the fit, whatever the number of examples.
EXPECTED = 2.0
# A label is an issue if it is wrong with at least this probability (`benchmarks/alarms.md`).
LEAST_WRONG = 0.35
# The mean over the classes of the fraction that is recognised. Below it, most alarms are false.
LEAST_RECOGNISED = 0.7
# Rates of wrong labels to start the fit from; the fit of the highest likelihood is used.
STARTS = (0.001, 0.03, 0.15)
# The fit ends after `ROUNDS`, or if a round changes the log-likelihood by less than `ENOUGH`.
ROUNDS, ENOUGH = 200, 1e-5
# Scores that the fit uses; rows sorted by digest are in random order.
MOST_SCORES = 4_000_000
COPIES = 7  # of the scores in memory, at most: one-hot labels, probabilities


class LabelIssues:
    """Implements `Issues` for classification."""

    def require_memory(self, manifest: pd.DataFrame) -> None:
        """Check that the scores of each class and example fit into memory."""
        examples, classes = len(manifest), manifest["label"].nunique()
        memory.require(
            COPIES * large.held(examples * classes),
            f"checks: label issues of {examples:,} examples of {classes:,} classes",
            "take a machine with more memory, or put fewer examples or classes into the project",
        )

    def find(self, rows: pd.DataFrame, features: Floats, settings: ChecksParams) -> Doubts:
        """Return the result of `label_issues`."""
        return label_issues(rows, features, settings)


def label_issues(rows: pd.DataFrame, features: Floats, settings: ChecksParams) -> Doubts:
    """Return a row per example whose label is an issue, the most doubtful first, and all answers.

    `wrong` is the probability that the given label is wrong. `probability` is the probability of
    the suggested label from the features alone, `given_probability` the probability of the given
    label. All examples of a group are in the same fold.

    If a head recognises less than `LEAST_RECOGNISED` of a class on average, there are no rows, and
    the text of the result has the reason; otherwise the text is empty.
    """
    classes, labels = rows.groupby("number")["label"].first(), rows["number"].to_numpy()
    fold = folds_of(rows, labels, settings.seed, numbers=False)
    scores = Scores.of(features, labels, len(classes), fold)
    tested = scores.tested
    first = np.flatnonzero(tested)[: max(1, MOST_SCORES // len(classes))]
    scale, rate = noise(scores.of_rows(first), labels[first])
    hits, suggested, probability, given = _softmaxed(scores, labels, scale)
    found = recognised(hits[tested], labels[tested])
    table = rows[["path", "split", "label"]].assign(
        suggested=classes.to_numpy()[suggested],
        probability=probability,
        given_probability=given,
        wrong=wrong(given, rate, len(classes)),
    )
    margin = table["probability"] - table["given_probability"]
    issue = tested & (margin >= settings.label_issue_margin) & (table["wrong"] >= LEAST_WRONG)
    why = ""
    if found < LEAST_RECOGNISED:
        why = f"a head that has not seen the examples recognises only {100 * found:.0f} %"
        why += " of a class on average, so it cannot distinguish wrong labels from hard examples"
        issue &= False
    answers = {
        "suggested": table["suggested"].where(tested, ""),
        "right": (table["suggested"] == table["label"]).astype(float).where(tested),
        "doubt": table["wrong"].where(tested),
    }
    chosen = table[issue].sort_values(["wrong", "path"], ascending=[False, True])
    return Doubts(chosen, why, pd.DataFrame(answers))


@dataclass(frozen=True)
class Scores:
    """The scores of n examples by ridge classifiers that were trained on the other folds.

    Up to 0.5 GB are computed once. If there are more, they are computed each time they are used.
    `tested` [n] are the examples whose label also occurs in a different fold.
    """

    shape: tuple[int, int]
    tested: Mask
    regressions: Regressions
    known: Floats | None

    @classmethod
    def of(cls, features: Floats, labels: Integers, classes: int, fold: Integers) -> Self:
        """Fit the classifiers.

        Args:
            features: [n, d].
            labels: [n], positions of the classes.
            fold: [n], as `held_out.folds_of` returns it.
        """
        every, shape = np.arange(len(labels)), (len(labels), classes)
        known = None
        if 4 * shape[0] * classes <= large.LARGE:
            wanted = zeros(*shape)
            wanted[every, labels] = 1
            regressions = Regressions.of(features, wanted, fold)
            known = regressions.every()
        else:
            from scipy.sparse import csr_array  # slow to import, and rarely needed

            ones = csr_array((np.ones(len(labels), np.float32), (every, labels)), shape)
            regressions = Regressions.of(features, ones, fold)
        tested = regressions.tested
        for number in range(FOLDS):
            out = fold == number
            tested[out] &= np.isin(labels[out], labels[~out])
        return cls(shape, tested, regressions, known)

    def of_rows(self, rows: Integers | slice) -> Floats:
        """Return the scores [m, c] of some rows."""
        return self.regressions.predicted(rows) if self.known is None else self.known[rows]


def _softmaxed(
    scores: Scores, labels: Integers, scale: float
) -> tuple[Mask, Integers, Doubles, Doubles]:
    """Return whether labels score highest, the most probable classes, and probabilities.

    All are [n]; the probabilities are those of the most probable classes and of the labels.
    """
    hits, suggested = np.empty(len(labels), bool), np.empty(len(labels), int)
    probability, given = np.empty((2, len(labels)))
    for some in chunks(*scores.shape):
        part = scores.of_rows(some)
        hits[some] = part.argmax(axis=1) == labels[some]
        softmaxed = probabilities(part, 1 / scale)
        every = np.arange(len(softmaxed))
        suggested[some] = softmaxed.argmax(axis=1)
        probability[some] = softmaxed[every, suggested[some]]
        given[some] = softmaxed[every, labels[some]]
    return hits, suggested, probability, given


def recognised(hits: Mask, labels: Integers) -> float:
    """Return the fraction of each class that is recognised, as a mean; 1 if there are no labels."""
    if not len(labels):
        return 1.0
    sizes = np.bincount(labels)
    return float((np.bincount(labels, hits) / np.maximum(sizes, 1))[sizes > 0].mean())


def noise(scores: Floats, labels: Integers) -> tuple[float, float]:
    """Return the factor that turns scores into logits, and the rate of wrong labels.

    In the model, the softmax of the logits is the distribution of the right label. The rate of
    wrong labels is the probability that the right label was replaced by a different class. Both
    parameters are fitted by expectation maximisation.

    Args:
        scores: [n, c], the out-of-fold scores.
        labels: [n].

    Returns:
        factor and rate, to six significant digits; 1 and 0 if there is nothing to fit.
    """
    examples, classes = scores.shape
    if not examples or classes < 2:
        return 1.0, 0.0
    below = scores - scores.max(axis=1, keepdims=True)
    found = max(_fitted(below, labels, start) for start in STARTS)
    return float(f"{found[1]:.6g}"), float(f"{found[2]:.6g}")


def _fitted(below: Floats, labels: Integers, rate: float) -> tuple[float, float, float]:
    """Return log-likelihood, scale and rate of the fit that starts with this rate."""
    examples, classes = below.shape
    every, exact = np.arange(examples), below.astype(np.float64)
    # Smoothing after Platt (1999): if all labels are right, the best scale would be infinite.
    soft = 1 / (examples + 1)
    scale, likelihood = 1 / max(float(exact.std()), 1e-12), -np.inf
    for _ in range(ROUNDS):
        softmaxed = probabilities(below, 1 / scale)
        given = softmaxed[every, labels]
        seen = (1 - rate) * given + rate * (1 - given) / (classes - 1)
        before, likelihood = likelihood, float(np.log(seen + 1e-300).sum())
        likelihood += EXPECTED * math.log(rate)
        if abs(likelihood - before) < ENOUGH:
            break
        doubt = wrong(given, rate, classes)
        rate = float((doubt.sum() + EXPECTED) / (examples + EXPECTED))
        target = softmaxed * (doubt / np.maximum(1 - given, 1e-300))[:, None]
        target[every, labels] = 1 - doubt
        target = (1 - soft) * target + soft / classes
        mean = (softmaxed * exact).sum(axis=1)
        slope = float((target * exact).sum() - mean.sum())
        bend = float((softmaxed * np.square(exact)).sum() - np.square(mean).sum())
        scale = max(scale + max(slope / max(bend, 1e-9), -scale / 2), 1e-3)
    return likelihood, scale, rate


def wrong(given: Doubles, rate: float, classes: int) -> Doubles:
    """Return the probability that labels are wrong, from their softmax probability `given`."""
    drawn = rate * (1 - given) / max(classes - 1, 1)
    probable: Doubles = drawn / np.maximum((1 - rate) * given + drawn, 1e-300)
    return probable


PART = LabelIssues()

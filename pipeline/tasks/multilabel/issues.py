"""Label issues in multi-label tasks: each label of each example is tested.

The model is the one of `label_issues`, with two outcomes. The probability that an example has a
label is a logistic curve of the out-of-fold score, and a fraction of the given labels is flipped.
Each label has its own curve. The rate of wrong labels is shared by all labels, because most have
too few positives to estimate their own.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...core.params import ChecksParams
from ...quality.doubtful import Doubts, unanswered
from ...quality.held_out import Floats, Integers, folds_of, predicted
from ...tables.targets import of, target_names
from ..classification.issues import ENOUGH, EXPECTED, MOST_SCORES, ROUNDS, STARTS, wrong

Doubles = npt.NDArray[np.float64]

# A label is tested if at least this many examples have it and at least this many lack it. With
# fewer, an out-of-fold head recognises none of them, and each would look wrong.
LEAST_OF_BOTH = 10
# A rate of wrong labels needs this gain in log-likelihood over `EXPECTED` wrong labels, in nats per
# label that it considers wrong. If scores hardly predict a label, a curve and a rate look alike.
LEAST_GAIN = 0.2
# A label is an issue if it is wrong with at least this probability. There are more false alarms to
# avoid than in classification.
LEAST_WRONG = 0.35


class LabelIssues:
    """Implements `Issues` for multi-label tasks."""

    def require_memory(self, manifest: pd.DataFrame) -> None:
        """Do nothing, because the check needs no more memory than other stages."""

    def find(self, rows: pd.DataFrame, features: Floats, settings: ChecksParams) -> Doubts:
        """Return the result of `label_issues_of_several`."""
        names = target_names(rows)
        given = of(rows, names).astype(np.float64)
        found = label_issues_of_several(rows, features, given, names, settings)
        return Doubts(found, "", unanswered(len(rows)))


def label_issues_of_several(
    rows: pd.DataFrame, features: Floats, given: Doubles, names: list[str], settings: ChecksParams
) -> pd.DataFrame:
    """Return one row per example and label that is an issue, the most doubtful first.

    `label` is the label's name, preceded by `not` if the example lacks it. `suggested` is the
    opposite, and `probability` is the probability of the opposite from the features alone.

    Args:
        rows: n rows, as `originals` returns them.
        features: [n, d].
        given: [n, c], 1, 0 or NaN (unknown).
        settings: the threshold for issues, and the seed of the folds.
    """
    known = np.isfinite(given)
    has, lacks = (given == 1).sum(axis=0), (given == 0).sum(axis=0)
    known &= (np.minimum(has, lacks) >= LEAST_OF_BOTH)[None]
    fold = folds_of(rows, given, settings.seed, numbers=False)
    scores, tested = held_out(features, given, known, fold)
    curves, rate = noise(scores, given == 1, tested)
    there = probability(scores, curves)
    of_given = np.where(given == 1, there, 1 - there)
    doubt = wrong(of_given, rate, 2)
    margin = 1 - 2 * of_given
    issue = tested & (margin >= settings.label_issue_margin) & (doubt >= LEAST_WRONG)
    at, label = np.nonzero(issue)
    opposite = {True: [f"not {name}" for name in names], False: names}
    has_it = given[at, label] == 1
    table = rows[["path", "split"]].iloc[at].reset_index(drop=True)
    table["label"] = [opposite[not has][one] for has, one in zip(has_it, label, strict=True)]
    table["suggested"] = [opposite[bool(has)][one] for has, one in zip(has_it, label, strict=True)]
    table["probability"] = 1 - of_given[issue]
    table["given_probability"] = of_given[issue]
    table["wrong"] = doubt[issue]
    return table.sort_values(["given_probability", "path", "label"], ignore_index=True)


def held_out(
    features: Floats, given: Doubles, known: npt.NDArray[np.bool_], fold: Integers
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the scores of one ridge regression per label, for examples with a known label.

    Labels that are known for the same examples are fitted together.

    Args:
        features: [n, d].
        given: [n, c], 1 or 0 if the label is known.
        known: [n, c], whether the label is known.
        fold: [n], as `folds_of` returns it.

    Returns:
        scores [n, c], and which of them were tested, [n, c].
    """
    scores = np.zeros(given.shape, dtype=np.float32)
    tested = np.zeros(given.shape, dtype=bool)
    patterns, which = np.unique(known, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):
        at = np.flatnonzero(pattern)
        if len(at):
            cells = np.ix_(at, np.flatnonzero(which.ravel() == number))
            predictions, seen = predicted(features[at], given[cells].astype(np.float32), fold[at])
            scores[cells], tested[cells] = predictions, seen[:, None]
    return scores, tested


def noise(
    scores: Floats, given: npt.NDArray[np.bool_], tested: npt.NDArray[np.bool_]
) -> tuple[Doubles, float]:
    """Return each label's curve, and the rate of wrong labels.

    Args:
        scores: [n, c], the out-of-fold scores.
        given: [n, c], whether the example has the label.
        tested: [n, c], which scores to use.

    Returns:
        slope and offset of each label's logit, [c, 2], and the rate, to six significant digits.
    """
    most = max(1, MOST_SCORES // max(scores.shape[1], 1))
    wide, given, tested = scores[:most].astype(np.float64), given[:most], tested[:most]
    if not tested.any():
        return np.zeros((scores.shape[1], 2)), 0.0
    found = max((_fitted(wide, given, tested, start) for start in STARTS), key=lambda one: one[0])
    cells = int(tested.sum())
    few = _fitted(wide, given, tested, EXPECTED / (cells + EXPECTED), fixed=True)
    if found[0] - few[0] < LEAST_GAIN * found[2] * cells:
        found = few
    digits = [[float(f"{number:.6g}") for number in curve] for curve in found[1]]
    return np.array(digits), float(f"{found[2]:.6g}")


def probability(scores: Floats | Doubles, curves: Doubles) -> Doubles:
    """Return the probability that each example has each label, [n, c]."""
    logits = np.clip(scores * curves[:, 0] + curves[:, 1], -700, 700)
    there: Doubles = 1 / (1 + np.exp(-logits))
    return there


def _fitted(
    scores: Doubles,
    given: npt.NDArray[np.bool_],
    tested: npt.NDArray[np.bool_],
    rate: float,
    fixed: bool = False,
) -> tuple[float, Doubles, float]:
    """Return log-likelihood, curves and rate, fitted from this rate by Newton's method."""
    counts = np.maximum(tested.sum(axis=0), 1)
    soft = 1 / (counts + 1)  # as in `label_issues`
    mean = (scores * tested).sum(axis=0) / counts
    spread = np.sqrt((np.square(scores - mean) * tested).sum(axis=0) / counts)
    unit = np.maximum(spread, 1e-12)
    standard = (scores - mean) / unit
    base = ((given & tested).sum(axis=0) + 1) / (counts + 2)
    slope, offset = np.ones_like(base), np.log(base / (1 - base))
    likelihood = -np.inf
    cells = int(tested.sum())
    for _ in range(ROUNDS):
        there = probability(standard, np.stack([slope, offset], axis=1))
        of_given = np.where(given, there, 1 - there)
        seen = (1 - rate) * of_given + rate * (1 - of_given)
        before, likelihood = likelihood, float((np.log(seen + 1e-300) * tested).sum())
        likelihood += EXPECTED * float(np.log(rate))
        if abs(likelihood - before) < ENOUGH:
            break
        doubt = wrong(of_given, rate, 2)
        if not fixed:
            rate = float(((doubt * tested).sum() + EXPECTED) / (cells + EXPECTED))
        target = np.where(given, 1 - doubt, doubt)
        target = (1 - soft) * target + soft / 2
        gap, bend = (target - there) * tested, np.maximum(there * (1 - there), 1e-9) * tested
        first, second = (gap * standard).sum(axis=0), gap.sum(axis=0)
        aa, ab, bb = (
            (bend * np.square(standard)).sum(axis=0),
            (bend * standard).sum(axis=0),
            bend.sum(axis=0),
        )
        aa, bb = aa + 1e-6, bb + 1e-6
        determinant = np.maximum(aa * bb - ab * ab, 1e-12)
        step = np.clip((bb * first - ab * second) / determinant, -2, 2)
        shift = np.clip((aa * second - ab * first) / determinant, -2, 2)
        slope, offset = np.maximum(slope + step, 1e-3), offset + shift
    return likelihood, np.stack([slope / unit, offset - slope * mean / unit], axis=1), rate


PART = LabelIssues()

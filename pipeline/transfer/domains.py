"""Whether examples come from another domain, or are other examples, or another mix, of the same.

Two tests without a label of the target. A kernel two-sample test of features (Gretton et al., "A
kernel two-sample test", JMLR 13, 2012) compares the target with the source: once as it is, and once
with its classes in the shares that the target seems to have. If the latter looks like the target,
the shares are all that differs. And a chi-squared test of predicted classes says whether the shares
do differ (black box shift detection; Lipton, Wang and Smola, ICML 2018).
"""

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PERMUTATIONS = 999
MOST = 500  # rows of a side that are compared


def apart(source: Floats, target: Floats, seed: int = 0) -> float:
    """The p-value of that rows [n, d] and [m, d] are drawn from the same features.

    The statistic is the maximum mean discrepancy, of a Gaussian kernel as wide as the median
    distance; its distribution is that under permutations of all rows.

    Args:
        source: rows in random order, of which the first `MOST` are looked at.
        target: the same.
        seed: draws other permutations.
    """
    ours, theirs = source[:MOST], target[:MOST]
    rows = np.concatenate([ours, theirs]).astype(np.float64)
    squares = np.square(rows).sum(axis=1)
    between = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)
    width = float(np.median(between[np.triu_indices(len(between), 1)]))
    kernel = np.exp(-between / max(width, 1e-12))
    sides = np.repeat([1 / len(ours), -1 / len(theirs)], [len(ours), len(theirs)])
    tiled = np.tile(sides, (PERMUTATIONS, 1))
    weights = np.concatenate([sides[None], np.random.default_rng(seed).permuted(tiled, axis=1)])
    found = ((weights @ kernel) * weights).sum(axis=1)
    # A permutation that changes nothing must not fall behind by a rounding.
    return float(1 + (found[1:] >= found[0] - 1e-9).sum()) / (1 + PERMUTATIONS)


def in_shares(labels: Integers, shares: Doubles) -> Integers:
    """Which rows to take so that the classes are in these shares; as many as there are for that.

    Args:
        labels: [n], of rows in random order; each class has one.
        shares: [c], none of them 0.
    """
    counts = np.bincount(labels, minlength=len(shares))
    wanted = np.maximum(1, np.floor(shares * (counts / shares).min())).astype(int)
    taken = [np.flatnonzero(labels == label)[:count] for label, count in enumerate(wanted)]
    return np.sort(np.concatenate(taken))


def other_shares(predicted: Integers, of_target: Integers, classes: int) -> float:
    """The p-value of that classes are predicted as often of the target as of the source.

    Args:
        predicted: for source examples that the head has not learned from.
        of_target: for examples of the target.
        classes: how many there are.
    """
    counts = np.stack([np.bincount(p, minlength=classes) for p in (predicted, of_target)])
    seen = counts[:, counts.any(axis=0)]
    if seen.shape[1] < 2:
        return 1.0
    return float(stats.chi2_contingency(seen, correction=False).pvalue)

"""From which probability on a label is said to be there, label by label."""

import numpy as np
import numpy.typing as npt

Floats64 = npt.NDArray[np.float64]

USUAL = 0.5  # where nothing tells
NEAREST = 1e-6  # to 0 and to 1


def fit_thresholds(shares: Floats64, labels: Floats64) -> list[float]:
    """For each label the threshold with the best F1 on examples that the head has not seen.

    Of several that are as good, the one nearest to 0.5: where examples are few, many are. A
    threshold lies in the middle between two probabilities.

    Args:
        shares: [n, c], the probability of each label.
        labels: [n, c]: 1, 0, or NaN where it is unknown.

    Returns:
        c numbers between 0 and 1; 0.5 where no example is known to have the label, or none to
        lack it.
    """
    return [
        _best(column[known], wanted[known] == 1)
        for column, wanted, known in zip(shares.T, labels.T, ~np.isnan(labels).T, strict=True)
    ]


def _best(shares: Floats64, there: npt.NDArray[np.bool_]) -> float:
    if not there.any() or there.all():
        return USUAL
    order = np.argsort(-shares, kind="stable")
    ranked = shares[order]
    taken, right = np.arange(1, len(ranked) + 1), np.cumsum(there[order])
    quality = 2 * right / (taken + there.sum())
    # A threshold takes all examples of one probability, or none.
    ends = np.flatnonzero(np.append(ranked[:-1] > ranked[1:], True))
    middles = (ranked[ends] + np.append(ranked[1:], 0.0)[ends]) / 2
    best = np.flatnonzero(quality[ends] == quality[ends].max())
    chosen = middles[best[np.argmin(np.abs(middles[best] - USUAL))]]
    return float(f"{np.clip(chosen, NEAREST, 1 - NEAREST):.6g}")

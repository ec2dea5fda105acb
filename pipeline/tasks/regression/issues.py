"""Label issues in regression: targets that are far from their out-of-fold predictions.

The typical error is estimated from quantiles of the out-of-fold residuals, which a few wrong
targets do not affect (Hampel, "The influence curve and its role in robust estimation", JASA 1974).
Residuals often have long tails although every target is right. The threshold is therefore high, and
higher still if the quantiles of the residuals show a long tail.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...core.params import ChecksParams
from ...quality.doubtful import Doubts, unanswered
from ...quality.held_out import Floats, folds_of, predicted
from ...tables.targets import of, target_names

Doubles = npt.NDArray[np.float64]

# L2 penalties over the mean square of a feature; the one with the lowest squared error is used.
PENALTIES = (0.0001, 0.001, 0.01, 0.1, 1.0)
# Standard deviations that contain half, and nine tenths, of a normal distribution.
HALF, MOST = 0.6745, 1.6449
# A target is an issue if it is at least this many spreads away.
FAR = 6.0
# With fewer examples, the spread of the residuals cannot be estimated well.
LEAST_EXAMPLES = 20


class NumberIssues:
    """Implements `Issues` for regression."""

    def require_memory(self, manifest: pd.DataFrame) -> None:
        """Do nothing, because the check needs no more memory than other stages."""

    def find(self, rows: pd.DataFrame, features: Floats, settings: ChecksParams) -> Doubts:
        """Return the result of `number_issues`."""
        names = target_names(rows)
        given = of(rows, names).astype(np.float64)
        found = number_issues(rows, features, given, names, settings)
        return Doubts(found, "", unanswered(len(rows)))


def number_issues(
    rows: pd.DataFrame, features: Floats, given: Doubles, names: list[str], settings: ChecksParams
) -> pd.DataFrame:
    """Return one row per example and target that is an issue, the largest errors first.

    `suggested` is the prediction. `spreads` is the prediction minus the target, in typical errors.

    Args:
        rows: n rows, as `originals` returns them.
        features: [n, d].
        given: [n, t], the targets; NaN if a target is not known.
        settings: `seed` is the seed of the folds.
    """
    fold = folds_of(rows, given, settings.seed, numbers=True)
    parts = []
    for number, name in enumerate(names):
        known = np.flatnonzero(np.isfinite(given[:, number]))
        if len(known) < LEAST_EXAMPLES:
            continue
        targets = given[known, number]
        fitted, apart = spreads(features[known], targets, fold[known])
        far = np.flatnonzero(np.abs(apart) >= FAR)
        before = f"{name}=" if len(names) > 1 else ""
        table = rows[["path", "split"]].iloc[known[far]].reset_index(drop=True)
        table["label"] = [f"{before}{targets[one]:.6g}" for one in far]
        table["suggested"] = [f"{before}{fitted[one]:.6g}" for one in far]
        parts.append(table.assign(spreads=apart[far]))
    columns = ["path", "split", "label", "suggested", "spreads"]
    found = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
    order = found["spreads"].astype(float).abs()
    return found.assign(order=-order).sort_values(["order", "path"]).drop(columns="order")


def spreads(
    features: Floats, targets: Doubles, fold: npt.NDArray[np.int64]
) -> tuple[Doubles, Doubles]:
    """Return each example's out-of-fold prediction, and its error in typical errors, both [n].

    Args:
        features: [n, d].
        targets: [n], finite.
        fold: [n], as `folds_of` returns it.
    """
    middle, unit = float(np.median(targets)), float(targets.std())
    if unit == 0:
        return targets, np.zeros(len(targets))
    wanted = ((targets - middle) / unit).astype(np.float32)[:, None]
    tried = [predicted(features, wanted, fold, penalty) for penalty in PENALTIES]
    fitted, tested = min(tried, key=lambda one: float(np.square(one[0] - wanted).mean()))
    if not tested.any():
        return targets, np.zeros(len(targets))
    missed = (fitted - wanted)[:, 0].astype(np.float64)
    missed -= np.median(missed[tested])
    half, most = np.quantile(np.abs(missed[tested]), [0.5, 0.9])
    # If the 90 % quantile is larger than for a normal distribution, the tail is longer still.
    tail = (most / MOST) / max(half / HALF, 1e-9)
    scale = (most / MOST) * max(1.0, tail)
    apart = np.where(tested, missed / max(scale, 1e-9), 0.0)
    predictions: Doubles = fitted[:, 0].astype(np.float64) * unit + middle
    return predictions, apart


PART = NumberIssues()

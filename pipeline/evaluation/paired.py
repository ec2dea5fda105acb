"""Tests of whether one model is better than another on the same test examples.

Predictions for the same examples are correlated, so the difference of two models can be estimated
far more precisely than either metric. Accuracy, and the exact match of multi-label tasks, is
compared with McNemar's test (1947) in its exact form: only the examples that one model gets right
and the other wrong count. Every other metric is compared by a paired bootstrap: both models are
measured on the same resamples. Their difference is significant if it is larger than its bootstrap
standard error times the quantile of Student's t (Efron and Tibshirani, 1993, chapter 12).
Percentile intervals would call equal models different in up to 10 of 100 draws of 60 examples.

Examples of one group (a patient, a recording) are correlated too. If some of the shared examples
belong to one group, the tests count groups. Accuracy is then compared with the permutation test
that flips the sign of each group's difference (Fisher, 1935); with single examples it is McNemar's
test. The bootstrap draws whole groups.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from ..tables.manifest import groups as groups_of
from ..tasks import UNNAMED
from . import measuring
from .metrics import Array, resample, whole

LEVEL = 0.05  # significance level: how often equal models may be called different
POWER = 0.8  # power of the test with the predicted number of examples
SURE = 0.999  # power of the test for a difference that is reported as `unseen`
RESAMPLES = 2000
FEWEST = 6  # groups; with fewer, no outcome is significant at the level of 5 %

Answer = Literal["better", "worse", "cannot tell", "not tested: too few groups"]
Needed = Callable[[float, float], float]  # examples to find a difference with a power


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison on the `shared` examples, which belong to `groups` groups.

    `old` and `new` are the metric of each model; `found` describes their difference in words. If
    the answer is 'cannot tell', about `more` further examples would show a `difference` with power
    `POWER`; `more` is 0 if that is not known. The test finds a true difference of `unseen` with
    power `SURE`, and a smaller one less often; `unseen` is NaN if that is not known.
    """

    answer: Answer
    shared: int
    old: float
    new: float
    found: str
    more: int = 0
    difference: float = 0
    groups: int = 0
    unseen: float = math.nan


def compare(
    old: pd.DataFrame,
    new: pd.DataFrame,
    measure: str,
    lower_is_better: bool,
    difference: float,
    bins: int,
    level: float = LEVEL,
    task: str = UNNAMED,
) -> Comparison | None:
    """Compare two models on the test examples that both were evaluated on.

    The labels or targets, and the groups, are from `new`, because some may have been corrected.

    Args:
        old: predictions, as `answered.read_answers` returns them; without a column `group`, each
            example is its own group.
        measure: a name in the `Scores.overall` of their task.
        lower_is_better: whether a lower metric is better, as with the loss.
        difference: the difference of the metric for which the number of examples is predicted.
        level: significance level: how often equal models may be called different.

    Returns:
        None if the metric cannot be computed from the predictions.
    """
    shared = new.index.intersection(old.index)
    if not len(shared):
        nothing = "the two runs have no test example in common"
        return Comparison("cannot tell", 0, math.nan, math.nan, nothing, 0, difference)
    old, new = old.loc[shared], new.loc[shared]
    pair = measuring(task).paired(old, new, measure, bins)
    if pair is None:
        return None
    groups = groups_of(new.rename_axis("digest").reset_index())
    if pair.right is not None:
        was, now = (float(right.mean()) for right in pair.right)
        if few := _too_few(groups, level):
            return _untested(was, now, groups, few)
        return _of_right(*pair.right, groups, difference, level)
    # Both use the same seed, so that each resample has the same examples.
    (was, resampled_old), (now, resampled_new) = (
        (
            float(whole(weigh, len(shared)).overall[measure][0]),
            resample(weigh, len(shared), pair.outputs, RESAMPLES, 0, groups).overall[measure],
        )
        for weigh in pair.weigh
    )
    if math.isnan(was) or math.isnan(now):
        return None
    if few := _too_few(groups, level):
        return _untested(was, now, groups, few)
    differing = len(np.unique(groups[pair.differing]))
    gains = resampled_new - resampled_old
    return _bootstrapped(was, now, gains, differing, groups, lower_is_better, difference, level)


def _count(groups: npt.NDArray[np.int64]) -> int:
    return int(groups.max()) + 1


def _too_few(groups: npt.NDArray[np.int64], level: float) -> int:
    """Return how many groups a test would need, if there are fewer; else 0.

    Each of the 2^G patterns of signs has a mirror image, so the lowest p-value is 2 / 2^G.
    """
    needed = max(FEWEST, 1 + math.ceil(-math.log2(level)))
    return needed if _count(groups) < min(needed, len(groups)) else 0


def _untested(was: float, now: float, groups: npt.NDArray[np.int64], needed: int) -> Comparison:
    found = f"{_count(groups)} groups, of at least {needed}"
    answer: Answer = "not tested: too few groups"
    return Comparison(answer, len(groups), was, now, found, groups=_count(groups))


def _of_right(
    before: npt.NDArray[np.bool_],
    now: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64],
    difference: float,
    level: float,
) -> Comparison:
    """Compare two models by which of their predictions are right, [n], before and now."""
    examples, count = len(now), _count(groups)
    gained, lost = int((now & ~before).sum()), int((before & ~now).sum())
    differing = gained + lost
    found = f"{gained} right that were wrong, {lost} wrong that were right"
    needed: Needed
    if count == examples:
        p_value = float(stats.binomtest(gained, differing).pvalue) if differing else 1.0
        # Two wins and two losses are added (Agresti and Coull, 1998): with few examples, the
        # fraction on which the models differ is poorly known, and a low estimate of it would
        # predict too few examples.
        fraction = (differing + 4) / (examples + 4)
        needed = partial(_examples, fraction, level)
    else:
        sums = np.bincount(groups, weights=now.astype(float) - before)
        p_value = flipped(np.rint(sums).astype(np.int64))
        found += f", in {np.count_nonzero(sums)} of {count} groups"
        error = math.sqrt(float((sums**2).sum()) + 4) / (examples + 4)
        needed = _by_error(error, examples, count, level)
    figures = examples, float(before.mean()), float(now.mean()), f"{found}; p = {p_value:.2g}"
    unseen = min(_unseen(needed, examples), 1.0)
    if p_value <= level:
        answer: Answer = "better" if gained > lost else "worse"
        return Comparison(answer, *figures, groups=count, unseen=unseen)
    wanted = _wanted(lambda size: needed(size, POWER), difference, examples)
    return Comparison("cannot tell", *figures, *wanted, count, unseen)


def flipped(sums: npt.NDArray[np.int64]) -> float:
    """Return the exact p-value of the test that flips the signs of integers [G] at random.

    It is the fraction of all 2^G patterns of signs whose total is at least as far from 0 as the
    total of `sums`. No patterns are drawn: the distribution of the total is the inverse Fourier
    transform of a product of cosines.
    """
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    farthest = int((sizes * counts).sum())
    length = 2 * farthest + 1
    angles = 2 * np.pi / length * np.arange(length)
    product = np.ones(length)
    for size, count in zip(sizes, counts, strict=True):
        product *= np.cos(size * angles) ** int(count)
    chances = np.fft.ifft(product).real
    far = np.abs(np.fft.fftfreq(length, 1 / length)) > abs(int(sums.sum())) - 0.5
    # Rounding leaves about 1e-16 in place of 0; the rarest outcome is known exactly.
    return min(1.0, max(float(chances[far].sum()), 2.0 ** (1 - int(counts.sum()))))


def _reach(level: float, power: float) -> tuple[float, float]:
    """Return the normal quantiles of a two-sided level and of a power, in standard errors."""
    return float(stats.norm.ppf(1 - level / 2)), float(stats.norm.ppf(power))


def _examples(fraction: float, level: float, difference: float, power: float) -> float:
    """Return how many examples McNemar's test needs if models differ on a `fraction` of them.

    The formula is from Connor (1987), with a correction because the exact test is discrete.
    """
    fraction, reaches = max(fraction, difference), _reach(level, power)
    reach = reaches[0] * math.sqrt(fraction) + reaches[1] * math.sqrt(
        max(fraction - difference**2, 0)
    )
    root = (reach + math.sqrt(reach**2 + 4 * difference)) / (2 * difference)
    return root**2


def _by_error(error: float, examples: int, groups: int, level: float) -> Needed:
    """Return a function for the number of examples that a test needs, from its standard error."""

    def needed(size: float, power: float) -> float:
        reach = sum(_reach(level, power)) * error / size
        return examples * reach**2 * (1 + 3 / math.sqrt(groups))

    return needed


def _bootstrapped(
    before: float,
    now: float,
    resampled: Array,
    differing: int,
    groups: npt.NDArray[np.int64],
    lower_is_better: bool,
    difference: float,
    level: float,
) -> Comparison:
    """Return the result of the paired bootstrap, from the metric's difference on each resample.

    `differing` is the number of groups in which the models' predictions differ.
    """
    gain, examples, count = now - before, len(groups), _count(groups)
    # With a single example all resamples are equal, and show nothing.
    freedom = max(count - 1, 1)
    error = float(np.nanstd(resampled, ddof=1)) * math.sqrt(count / freedom)
    reach = error * float(stats.t.ppf(1 - level / 2, freedom))
    found = f"{100 * (1 - level):g} % interval of the difference"
    found += f" {gain - reach:+.3g} to {gain + reach:+.3g}"
    figures = examples, before, now, found
    needed = _by_error(error, examples, count, level)
    unseen = _unseen(needed, examples) if error else math.nan
    # As in McNemar's test, a few differences prove nothing, even if all favour one model.
    if abs(gain) > reach and 2 ** (1 - differing) <= level:
        answer: Answer = "worse" if (gain > 0) == lower_is_better else "better"
        return Comparison(answer, *figures, groups=count, unseen=unseen)
    wanted = (0, difference)
    if error:
        wanted = _wanted(lambda size: needed(size, POWER), difference, examples)
    return Comparison("cannot tell", *figures, *wanted, count, unseen)


def _unseen(needed: Needed, examples: int) -> float:
    """Return the smallest difference that a test on `examples` finds with power `SURE`."""
    low, high = 0.0, 1.0
    while needed(high, SURE) > examples:
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if needed(middle, SURE) > examples else (low, middle)
    return high


def _wanted(
    needed: Callable[[float], float], difference: float, examples: int
) -> tuple[int, float]:
    """Return how many more examples would show a difference, and that difference.

    The difference is the requested one, or a half, a quarter and so on of it: the first that needs
    more examples than there are.

    Args:
        needed: the function that returns how many examples a difference needs.
        examples: how many examples there are.
    """
    while needed(difference) <= examples:
        difference /= 2
    more = math.ceil(needed(difference) - examples)
    digits = 1 - math.floor(math.log10(more))
    return max(1, round(more, min(digits, 0))), difference

"""Whether one model is better than another, by their answers about the same test examples.

Answers about the same examples go up and down together, so their difference is known far better
than either figure. Accuracy, and the exact match of several labels, is compared with McNemar's test
(1947) in its exact form: only the examples count on which one model is right and the other wrong.
Every other measure is compared by a paired bootstrap: both models are measured on the same
resamples, and their difference is told from zero where it is larger than its standard error there,
times the quantile of Student's t (Efron and Tibshirani, 1993, chapter 12). The percentiles of the
resamples would call equal models different in up to 10 of 100 draws, of 60 examples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from .answered import paired
from .metrics import Array, resample, whole

LEVEL = 0.05  # equal models are called different in at most this share of draws
POWER = 0.8  # share of draws in which a difference is seen, at the number of examples foretold
RESAMPLES = 2000
REACH = float(stats.norm.ppf(1 - LEVEL / 2)), float(stats.norm.ppf(POWER))  # standard errors


@dataclass(frozen=True)
class Comparison:
    """What became of a comparison on the `shared` examples.

    `old` and `new` are the measure of each model; `found` says in words how far apart they are.
    Where the answer is 'cannot tell', about `more` further examples would tell a `difference` in
    `POWER` of draws; 0 where that is not known.
    """

    answer: Literal["better", "worse", "cannot tell"]
    shared: int
    old: float
    new: float
    found: str
    more: int = 0
    difference: float = 0


def compare(
    old: pd.DataFrame,
    new: pd.DataFrame,
    measure: str,
    lower_is_better: bool,
    difference: float,
    bins: int,
) -> Comparison | None:
    """Compare two models on the test examples that both were asked about.

    The labels, or numbers, are those of `new`: some may have been corrected since.

    Args:
        old: answers, as `answered.read_answers` gives them.
        new: those of the other model.
        measure: a name in the `Scores.overall` of their task.
        lower_is_better: as with the loss.
        difference: of the measure, for which the number of examples is foretold.
        bins: of the calibration error.

    Returns:
        None where the answers do not tell the measure.
    """
    shared = new.index.intersection(old.index)
    if not len(shared):
        nothing = "the two runs share no test example"
        return Comparison("cannot tell", 0, math.nan, math.nan, nothing, 0, difference)
    old, new = old.loc[shared], new.loc[shared]
    pair = paired(old, new, measure, bins)
    if pair is None:
        return None
    if pair.right is not None:
        return _mcnemar(*pair.right, difference)
    # One seed for both, so that each resample holds the same examples.
    (was, resampled_old), (now, resampled_new) = (
        (
            float(whole(weigh, len(shared)).overall[measure][0]),
            resample(weigh, len(shared), pair.outputs, RESAMPLES, 0).overall[measure],
        )
        for weigh in pair.weigh
    )
    if math.isnan(was) or math.isnan(now):
        return None
    gains = resampled_new - resampled_old
    return _bootstrapped(was, now, gains, pair.differing, len(shared), lower_is_better, difference)


def _mcnemar(
    before: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_], difference: float
) -> Comparison:
    """McNemar's test of whether each answer is right, [n], before and now."""
    examples = len(now)
    gained, lost = int((now & ~before).sum()), int((before & ~now).sum())
    differing = gained + lost
    p_value = float(stats.binomtest(gained, differing).pvalue) if differing else 1.0
    found = f"{gained} right that were wrong, {lost} wrong that were right; p = {p_value:.2g}"
    figures = examples, float(before.mean()), float(now.mean()), found
    if p_value <= LEVEL:
        return Comparison("better" if gained > lost else "worse", *figures)
    # Two wins and two losses more than were seen (Agresti and Coull, 1998): of few examples, the
    # share on which the models differ is known badly, and a low guess would foretell too little.
    share = (differing + 4) / (examples + 4)
    wanted = _wanted(lambda size: _examples(share, size), difference, examples)
    return Comparison("cannot tell", *figures, *wanted)


def _examples(share: float, difference: float) -> float:
    """How many examples McNemar's test needs, for models that differ on a `share` of them.

    Connor (1987), with a correction for that the exact test counts whole examples.
    """
    share = max(share, difference)
    reach = REACH[0] * math.sqrt(share) + REACH[1] * math.sqrt(share - difference**2)
    root = (reach + math.sqrt(reach**2 + 4 * difference)) / (2 * difference)
    return root**2


def _bootstrapped(
    before: float,
    now: float,
    resampled: Array,
    differing: int,
    examples: int,
    lower_is_better: bool,
    difference: float,
) -> Comparison:
    """The paired bootstrap's answer, from the difference of the measure on each resample."""
    gain = now - before
    # Of a single example nothing can be known; the resamples are then all alike.
    freedom = max(examples - 1, 1)
    error = float(np.nanstd(resampled, ddof=1)) * math.sqrt(examples / freedom)
    reach = error * float(stats.t.ppf(1 - LEVEL / 2, freedom))
    found = f"95 % interval of the difference {gain - reach:+.3g} to {gain + reach:+.3g}"
    figures = examples, before, now, found
    # As in McNemar's test, few answers that differ prove nothing, even if all go one way.
    if abs(gain) > reach and 2 ** (1 - differing) <= LEVEL:
        rose = gain > 0
        return Comparison("worse" if rose == lower_is_better else "better", *figures)

    def needed(size: float) -> float:
        return examples * (sum(REACH) * error / size) ** 2 * (1 + 3 / math.sqrt(examples))

    wanted = _wanted(needed, difference, examples) if error else (0, difference)
    return Comparison("cannot tell", *figures, *wanted)


def _wanted(
    needed: Callable[[float], float], difference: float, examples: int
) -> tuple[int, float]:
    """How many more examples would tell a difference, and which one.

    It is the difference that was asked for, or the first half of it, half of that, and so on, for
    which there are too few.

    Args:
        needed: how many examples a difference needs.
        difference: what is asked for.
        examples: how many there are.
    """
    while needed(difference) <= examples:
        difference /= 2
    more = math.ceil(needed(difference) - examples)
    digits = 1 - math.floor(math.log10(more))
    return max(1, round(more, min(digits, 0))), difference

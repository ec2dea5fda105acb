"""Whether one model is better than another, by their answers about the same test examples.

Answers about the same examples go up and down together, so their difference is known far better
than either figure. Accuracy is compared with McNemar's test (1947) in its exact form: only the
examples count on which one model is right and the other wrong. Every other measure is compared by
a paired bootstrap: both models are measured on the same resamples, and their difference is told
from zero where it is larger than its standard error there, times the quantile of Student's t
(Efron and Tibshirani, 1993, chapter 12). The percentiles of the resamples would call equal models
different in up to 10 of 100 draws, of 60 examples.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy import stats

from .metrics import Array, bootstrap, scores

LEVEL = 0.05  # equal models are called different in at most this share of draws
POWER = 0.8  # share of draws in which a difference is seen, at the number of examples foretold
RESAMPLES = 2000
MEASURES = r"loss|balanced_accuracy|macro_f1|calibration_error|top_(\d+)_accuracy"
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


def read_answers(predictions: Path, manifest: Path) -> pd.DataFrame | None:
    """A model's answers, a row a test example, by its digest; None where there are none.

    Args:
        predictions: as `evaluate` writes it.
        manifest: of the same run.
    """
    try:
        texts = {"path": str, "label": str, "predicted": str}
        answers: pd.DataFrame = pd.read_csv(predictions, dtype=texts, keep_default_na=False)
        digests = pd.read_parquet(manifest, columns=["path", "digest"]).set_index("path")["digest"]
    except (FileNotFoundError, ValueError, pa.ArrowException):
        return None
    if not {"label", "predicted", "probability"} <= set(answers.columns):
        return None  # another project's
    return answers.set_index(pd.Index(digests.reindex(answers["path"]), name="digest"))


def compare(
    old: pd.DataFrame,
    new: pd.DataFrame,
    measure: str,
    lower_is_better: bool,
    difference: float,
    bins: int,
) -> Comparison | None:
    """Compare two models on the test examples that both were asked about.

    The labels are those of `new`: some may have been corrected since.

    Args:
        old: answers, as `read_answers` gives them.
        new: those of the other model.
        measure: a name in `metrics.Scores.overall`.
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
    given = new["label"]
    if measure == "accuracy":
        right, was_right = (answers["predicted"] == given for answers in (new, old))
        return _mcnemar(was_right.to_numpy(), right.to_numpy(), difference)

    known = re.fullmatch(MEASURES, measure)
    found = [_shares(answers, measure) for answers in (old, new)]
    if not known or not all(len(shares.columns) for shares in found):
        return None
    names = sorted({*given}.union(*(table.columns for table in found)))
    labels = pd.Index(names).get_indexer(given).astype(np.int64)
    before, now = (table.reindex(columns=names, fill_value=0).to_numpy(float) for table in found)
    top_k = int(known[1] or 1)
    figures = [scores(labels, shares, top_k, bins).overall for shares in (before, now)]
    # One seed for both, so that each resample holds the same examples.
    resampled = [
        bootstrap(labels, shares, top_k, bins, RESAMPLES, 0).overall[measure]
        for shares in (before, now)
    ]
    differing = int((before != now).any(axis=1).sum())
    return _bootstrapped(
        float(figures[0][measure][0]),
        float(figures[1][measure][0]),
        resampled[1] - resampled[0],
        differing,
        len(shared),
        lower_is_better,
        difference,
    )


def _shares(answers: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Probabilities, a column a class; without columns where the answers lack what is asked for.

    Loss and top-k accuracy need the probability of every class. For the others that of the
    predicted class will do.
    """
    if measure == "loss" or measure.startswith("top_"):
        every = [name for name in answers.columns if name.startswith("p(") and name.endswith(")")]
        return answers[every].rename(columns=lambda name: name[2:-1])
    one_hot = pd.get_dummies(answers["predicted"], dtype=float)
    return one_hot.mul(answers["probability"].to_numpy(float), axis=0)


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

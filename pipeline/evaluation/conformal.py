"""Calibrates sets of labels and intervals of numbers on examples that their heads had not seen.

The head that answers was trained on all train and validation examples, so its own answers about
them promise too much. The examples are divided into folds, the same head is trained on all folds
but one, and asked about that one (cross-conformal prediction; Vovk, 2015). A head that was not
trained again on the validation examples is asked about these itself (split conformal prediction).

With n scores, the quantile is the one at rank ceil((n + 1) * coverage). Had the head seen none of
the examples, a new one's score would be at most that with the probability that was asked for,
whatever the head and the data are, as long as new examples come from where these came from. The
heads of the folds saw a tenth less, so their scores promise a little less than the head keeps.

Examples of one group are no independent ones, and a group with many must not speak for the others.
So each group weighs one: a score weighs one over the size of its group, and the rank is that among
the groups, ceil((G + 1) * coverage) (Dunn, Wasserman and Ramdas, "Distribution-free prediction sets
for two-layer hierarchical models", 2022; Lee, Barber and Willett, "Distribution-free inference with
hierarchical data", 2023). The promise is then one for an example drawn from a new group.

Intervals of numbers reach to either side by that quantile of the absolute residuals. It is the
centre of CV+ (Barber, Candès, Ramdas and Tibshirani, "Predictive inference with the jackknife+",
2021) with the one head that the bundle has: CV+ itself would need the heads of all folds to answer.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.params import TrainParams
from ..heads.description import HeadDescription
from ..heads.head import (
    Floats,
    Head,
    against_thresholds,
    probabilities,
    without_priors,
)
from ..heads.sets import Doubles, Integers, LabelSets, before, label_sets, reach, sizes
from ..tables.features import Split
from ..tables.manifest import group_keys
from ..tasks import TASKS
from .intervals import Groups
from .tables import OF_SETS

FOLDS = 10
ENOUGH = 5000  # examples that are held out; where there are more, some folds are not asked about
MISSES = 10  # to be expected among the examples, or the quantile is a lottery
PENALTIES = (0.001, 0.01, 0.1, 0.2, 0.5)  # lambda: those that the paper of RAPS tries
OF_NO_SCALE = ("ridge", "nearest_mean")  # whose scores on subsets are right in order only
DIGITS = 6  # of a quantile, which is rounded up
MANY = 5  # numbers that a line tells of
SURE = 0.01  # a promise that is kept looks broken in at most this share of test splits
LEAST_GROUPS = 6  # of test examples; of fewer, no test can tell chance from a broken promise


class Held(NamedTuple):
    """What was said of m examples by heads that had not seen them.

    `answers` [m, c] are logits, or numbers. `lost` is how many more examples there are that no head
    could be asked about, and `folds` how many heads were trained for it. `weights` [m] are those of
    examples with groups, of which each weighs one; `lost` are groups then.
    """

    answers: Floats
    labels: npt.NDArray[Any]  # as `Split.labels`
    digests: npt.NDArray[np.str_]
    lost: int = 0
    folds: int = 0
    weights: Doubles | None = None


def calibrated(
    coverage: float | None,
    head: Head,
    about: HeadDescription,
    train: Split,
    val: Split,
    manifest: pd.DataFrame,
    training: TrainParams,
    counts: bool = False,
) -> dict[str, Any]:
    """What sets or intervals are made with, as `reports/sets.json` and the bundle have it.

    Args:
        coverage: how often they shall hold the truth; None for no sets.
        head: as `train` left it. Sets are made of the strengths by which it chooses the class that
            it answers with (`head.against_thresholds`), so they always hold that class.
        about: its description.
        train: the training examples, every view.
        val: the validation examples.
        manifest: of the examples; those of a group are held out together.
        training: how heads are trained.
        counts: whether the features are counts of terms.

    Returns:
        nothing where no coverage is asked for; `coverage` and `why_no_sets` where the promise
        cannot be made; else `coverage`, what `sets.label_sets` or `sets.reach` reads, and what it
        rests on.
    """
    if coverage is None:
        return {}
    task = TASKS[about.task]
    if task.conformal is None:
        return _none(coverage, "if examples have several labels, no set is promised")
    crosses = about.refit or not len(val.labels)
    of = "validation examples"
    if crosses:
        of = f"training and {of}" if len(val.labels) else "training examples"
    pool = Split.concat([train, val]) if crosses else val
    keys = group_keys(manifest).set_axis(manifest["digest"]).loc[pool.digests].tolist()
    found, least = len(set(keys)), math.ceil(round(MISSES / (1 - coverage), 6))
    grouped = found < len(set(pool.digests))
    if found < least:
        of = f"groups of {of}" if grouped else of
        why = f"{found} {of} are too few to promise a coverage of {coverage:g}, which takes {least}"
        return _none(coverage, why)

    head = without_priors(head, about.calibration)
    weights = of_groups(keys) if grouped else None
    held = Held(head.logits(pool.features), pool.labels, pool.digests, weights=weights)
    if crosses:
        kinds = pool.labels if task.exclusive else np.zeros(len(keys), np.int64)
        groups = keys if grouped else None
        held = out_of_fold(pool, folds(keys, kinds), head, about, training, counts, groups)
    rests = {"examples": len(held.labels), "folds": held.folds}
    if held.weights is None:
        rests["examples"] += held.lost
    else:
        rests["groups"] = round(held.weights.sum()) + held.lost
    if task.conformal == "intervals":
        residuals = np.abs(held.answers.astype(np.float64) - held.labels)
        reached = [quantile(one, coverage, held.lost, held.weights) for one in residuals.T]
        return {"coverage": coverage, "method": "residuals", "reach": reached} | rests
    chosen = calibrated_sets(held, about.calibration.temperature, coverage)
    if not all(map(math.isfinite, chosen.values())):
        every, of = (rests["groups"], f"groups of {of}") if grouped else (rests["examples"], of)
        why = f"{held.lost} of {every} {of} are alone in their class, too many to"
        return _none(coverage, f"{why} promise a coverage of {coverage:g}")
    return {"coverage": coverage, "method": "RAPS"} | chosen | rests


def _none(coverage: float, why: str) -> dict[str, Any]:
    return {"coverage": coverage, "why_no_sets": why}


def of_groups(groups: npt.ArrayLike) -> Doubles:
    """What each row weighs [n], so that the rows of a group weigh one together."""
    _, which, sizes_ = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    weights: Doubles = 1 / sizes_[which]
    return weights


def folds(keys: Sequence[str], labels: Integers) -> Integers:
    """The fold of each row [n], drawn from its key alone; -1 for rows that cannot be held out.

    Rows of one key are in one fold. Each label's keys are dealt to the folds in the order of their
    hashes, so the other folds have examples of it. A label with a single key is always learned.
    """
    first: dict[str, int] = {}
    for key, label in zip(keys, labels.tolist(), strict=True):
        first.setdefault(key, label)
    dealt: dict[int, int] = {}
    of_key: dict[str, int] = {}
    for key in sorted(first, key=lambda key: (_drawn(key), key)):
        label = first[key]
        place = dealt.setdefault(label, label)
        of_key[key] = place % FOLDS
        dealt[label] = place + 1
    fold = np.array([of_key[key] for key in keys], np.int64)
    alone = [label for label in np.unique(labels) if len(np.unique(fold[labels == label])) == 1]
    kept = {key for key, label in zip(keys, labels, strict=True) if label in alone}
    fold[[key in kept for key in keys]] = -1
    return fold


def out_of_fold(
    pool: Split,
    fold: Integers,
    head: Head,
    about: HeadDescription,
    training: TrainParams,
    counts: bool,
    groups: Sequence[str] | None = None,
) -> Held:
    """What heads say of the examples of a fold that were trained on all other rows.

    Args:
        pool: n rows; augmented views are learned from and not asked about.
        fold: [n], as `folds` gives it.
        head: as `train` left it, trained on all rows.
        about: its description.
        training: how heads are trained.
        counts: whether the features are counts of terms.
        groups: of each row, where each group is to weigh one.
    """
    from ..heads.fit import class_weights
    from ..heads.losses import loss_for
    from ..heads.subsets import on_subsets
    from ..heads.trained import Schedule

    original = pool.views == 0
    asked: list[npt.NDArray[np.bool_]] = []
    for number in range(FOLDS):
        rows = original & (fold == number)
        if np.sum(asked) < ENOUGH and rows.any():
            asked.append(rows)
    learnt = [fold != fold[rows][0] for rows in asked]
    weights = class_weights(training.class_weights, pool.labels, len(about.classes))
    loss, (used, epochs) = loss_for(about.task, training.loss), about.trained_with()
    schedule = Schedule(epochs, training.batch_size, 0, weights, counts, loss)
    unscaled = loss == "softmax" and used.optimizer in OF_NO_SCALE
    # The head's own scale shows in what the same head says when it learns from all rows.
    whole = [np.ones(len(fold), bool)] * unscaled
    answers = list(
        on_subsets(
            pool, learnt + whole, asked + asked[:1] * unscaled, used, schedule,
            training.class_weights,
        )
    )  # fmt: skip
    if unscaled:
        scale = _times(answers.pop(), head.logits(pool.features[asked[0]]))
        answers = [one * np.float32(scale) for one in answers]
    rows = np.concatenate([np.flatnonzero(mask) for mask in asked])
    units = pool.digests if groups is None else np.array(groups)
    lost, held = (len(set(units[original & some])) for some in (fold < 0, fold >= 0))
    share = len(set(units[rows])) / held  # of those that could be asked about
    return Held(
        np.concatenate(answers), pool.labels[rows], pool.digests[rows],
        math.ceil(lost * share), len(asked), None if groups is None else of_groups(units[rows]),
    )  # fmt: skip


def _times(some: Floats, others: Floats) -> float:
    """By what to multiply scores [n, c] to get the others, apart from what all classes share."""
    one, two = (table - table.mean(axis=1, keepdims=True) for table in (some, others))
    return float(np.vdot(one, two)) / max(float(np.vdot(one, one)), 1e-300)


def calibrated_sets(held: Held, temperature: float, coverage: float) -> dict[str, Any]:
    """RAPS, calibrated on examples that were held out.

    k_reg is the quantile of the labels' ranks, and lambda is the one with the smallest sets on
    average. The paper finds both on examples of their own, of which there are few here. From the
    examples that are calibrated on they cost at most about 0.01 of coverage where these are as few
    as a promise takes, and the sets differ less from draw to draw (benchmarks/sets.md).
    `quantile` is that of the sets that people get, `randomised` that of the paper's.
    """
    shares, labels = probabilities(held.answers, temperature), held.labels
    rank, ahead, own = before(shares, labels)

    def at(scores: Doubles) -> float:
        return quantile(scores, coverage, held.lost, held.weights)

    k_reg = int(min(at(rank.astype(np.float64)), shares.shape[1]))
    behind, drawn = np.maximum(rank - k_reg, 0), uniform(held.digests)
    tried = []
    for penalty in PENALTIES:
        scores = ahead + penalty * behind
        sets = LabelSets(at(scores), penalty, k_reg)
        randomised = at(scores + drawn * own)
        size = float(np.average(sizes(shares, sets), weights=held.weights))
        tried.append((size, penalty, sets.quantile, randomised))
    _, penalty, chosen, randomised = min(tried)
    return {"quantile": chosen, "lambda": penalty, "k_reg": k_reg, "randomised": randomised}


def quantile(
    scores: Doubles, coverage: float, lost: int = 0, weights: Doubles | None = None
) -> float:
    """The score at rank ceil((n + 1) * coverage), rounded up; infinite where n is too small.

    Args:
        scores: of examples that were held out.
        coverage: asked for.
        lost: how many more there are, with infinite scores.
        weights: of each score, as `of_groups` gives them; n and `lost` are numbers of groups then,
            and the score is that at which the weights of it and of all lower ones reach the rank.
    """
    if weights is None:
        rank = math.ceil(round((len(scores) + lost + 1) * coverage, 6))
        if rank > len(scores):
            return math.inf
        value = float(np.partition(scores, rank - 1)[rank - 1])
    else:
        order = np.argsort(scores, kind="stable")
        reached = np.cumsum(weights[order])
        wanted = (round(float(reached[-1])) + lost + 1) * coverage
        place = int(np.searchsorted(reached, wanted - 1e-6))
        if place == len(scores):
            return math.inf
        value = float(scores[order[place]])
    if value <= 0:
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) + 1 - DIGITS)
    return float(f"{math.ceil(value / unit) * unit:.{DIGITS}g}")


def uniform(digests: npt.NDArray[np.str_]) -> Doubles:
    """A number from 0 to 1 of each example, [n], drawn from its digest."""
    return np.array([_drawn(digest) for digest in digests.tolist()], np.float64)


def _drawn(key: str) -> float:
    hashed = hashlib.blake2b(f"set:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(hashed, "big") / 2**64


def table(
    sets: dict[str, Any],
    answers: npt.NDArray[np.floating],
    test: Split,
    names: Sequence[str],
    thresholds: Sequence[float] = (),
    groups: Groups | None = None,
) -> pd.DataFrame:
    """What the sets hold of the test examples: a row for all and one a class, or one a number.

    `coverage` is how often they hold the truth, `size` how many labels they hold on average, or how
    wide an interval is; `empty` is the share of randomised sets without a label. They are means in
    which each group weighs one.

    Args:
        sets: as `calibrated` gives it; a table without rows where there are none.
        answers: [n, c], the head's answers about the test examples.
        test: n of them.
        names: the classes or the numbers.
        thresholds: of classes that were weighed in training.
        groups: [n], as `intervals.grouped` gives them.
    """
    if "reach" in sets:
        far = reach(sets, len(names))
        held = np.abs(answers - test.labels) <= far
        shares = zip(names, _means(held, groups), far, strict=True)
        rows = [(name, len(held), share, 2 * wide) for name, share, wide in shares]
        return pd.DataFrame(rows, columns=OF_SETS[:4]).reindex(columns=OF_SETS)
    if "quantile" not in sets or not len(test.labels):
        return pd.DataFrame(columns=OF_SETS)
    answers = against_thresholds(answers, thresholds)
    rank, _, _ = before(answers, test.labels)
    sure = label_sets(sets)
    randomised = LabelSets(sets["randomised"], sure.penalty, sure.k_reg)
    size = sizes(answers, sure)
    drawn = sizes(answers, randomised, uniform(test.digests))
    of_each = np.column_stack([rank <= size, size, rank <= drawn, drawn, drawn == 0])
    rows = [("all", len(rank), *_means(of_each, groups))]
    for number, name in enumerate(names):
        own = np.flatnonzero(test.labels == number)
        figures: Any = [None] * of_each.shape[1]
        if len(own):
            figures = _means(of_each[own], None if groups is None else groups[own])
        rows.append((name, len(own), *figures))
    return pd.DataFrame(rows, columns=OF_SETS)


def _means(figures: npt.NDArray[Any], groups: Groups | None) -> Doubles:
    """Of rows [n, k], in which those of a group weigh one together."""
    weights = None if groups is None else of_groups(groups)
    means: Doubles = np.average(figures, axis=0, weights=weights)
    return means


def said(sets: dict[str, Any], found: pd.DataFrame, groups: Groups | None = None) -> str:
    """One line on what is promised, and what the test examples show; empty where none was asked."""
    among = (
        "" if groups is None else f" ({len(np.unique(groups))} groups, each of which weighs one)"
    )
    if not sets:
        return ""
    if "why_no_sets" in sets:
        return f"no sets: {sets['why_no_sets']}"
    if found.empty:
        return ""
    if "reach" in sets:
        rows = zip(*(found[name] for name in ("coverage", "class", "size")), strict=True)
        told = [f"{share:.4f} of {name}, {wide:.4g} wide" for share, name, wide in rows]
        shown = ", ".join(told[:MANY]) + ", …" * (len(told) > MANY)
        return f"intervals that promise {sets['coverage']:g} hold {shown}{among}"
    every = found.iloc[0]
    return (
        f"sets that promise {sets['coverage']:g} hold the class of {every['coverage']:.4f} of the"
        f" test examples{among}, with {every['size']:.2f} classes on average"
    )


def doubts(
    sets: dict[str, Any],
    answers: npt.NDArray[np.floating],
    test: Split,
    names: Sequence[str],
    thresholds: Sequence[float] = (),
    groups: Groups | None = None,
) -> list[str]:
    """What to doubt: where the sets hold the truth of fewer test examples than chance explains.

    A promise is for examples from where those came that it was calibrated on. Test examples from
    another place may be held less often. Of several numbers each is tested, at a level that all
    share. What chance explains is that of the test examples and that of the calibration, which is
    one of examples too. The arguments are those of `table`.
    """
    held = _held(sets, answers, test, thresholds)
    if held is None or not len(held):
        return []
    if groups is not None and (found := len(np.unique(groups))) < LEAST_GROUPS:
        return [f"whether the sets keep their promise is not tested: too few groups ({found})"]
    lines = []
    for name, column in zip(names, held.T, strict=False):  # of classes all together, once
        share = float(_means(column, groups))
        chance = _chance(sets, column, groups)
        if chance < SURE / held.shape[1]:
            of = f"of {name} " if "reach" in sets else ""
            lines.append(
                f"the promise {of}is not kept on the test examples ({share:.4f} instead of"
                f" {sets['coverage']:g}; p = {chance:.2g}): they are unlike the training and"
                " validation examples that it rests on"
            )
    return lines


def _held(
    sets: dict[str, Any],
    answers: npt.NDArray[np.floating],
    test: Split,
    thresholds: Sequence[float],
) -> npt.NDArray[np.bool_] | None:
    """Whether a set holds the class of a test example, [n, 1], or each of its numbers [n, t]."""
    if "reach" in sets:
        inside: npt.NDArray[np.bool_] = np.abs(answers - test.labels) <= reach(
            sets, answers.shape[1]
        )
        return inside
    if "quantile" not in sets:
        return None
    answers = against_thresholds(answers, thresholds)
    rank, _, _ = before(answers, test.labels)
    return (rank <= sizes(answers, label_sets(sets)))[:, None]


def _chance(sets: dict[str, Any], held: npt.NDArray[np.bool_], groups: Groups | None) -> float:
    """How probable it is that so few of the test examples [n], or fewer, are held by chance.

    The share that a quantile of n scores at rank k holds of all examples has the beta distribution
    of k and n + 1 - k, so the number of m test examples has the beta-binomial one (Vovk,
    "Conditional validity of inductive conformal predictors", 2012). Of groups it is the t-test of
    their shares, whose spread counts for those of the calibration too.
    """
    from scipy.special import betaln, gammaln, stdtr

    coverage = sets["coverage"]
    if groups is not None:
        _, which = np.unique(groups, return_inverse=True)
        shares = np.bincount(which, held) / np.bincount(which)
        rests = sets.get("groups", sets["examples"])
        error = float(shares.std(ddof=1)) * math.sqrt(1 / len(shares) + 1 / rests)
        below = float(shares.mean()) - coverage
        if error == 0:
            return 1.0 if below >= 0 else 0.0
        return float(stdtr(len(shares) - 1, below / error))
    many, count = len(held), np.arange(int(held.sum()) + 1)
    rank = math.ceil(round((sets["examples"] + 1) * coverage, 6))
    over = sets["examples"] + 1 - rank
    ways = gammaln(many + 1) - gammaln(count + 1) - gammaln(many - count + 1)
    logs = ways + betaln(count + rank, many - count + over) - betaln(rank, over)
    return min(1.0, float(np.exp(logs).sum()))

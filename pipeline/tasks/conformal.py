"""Calibrates sets of labels and intervals of numbers on examples that their heads had not seen.

The head that answers was trained on all train and validation examples, so its own answers about
them promise too much. The examples are divided into folds, the same head is trained on all folds
but one, and asked about that one (cross-conformal prediction; Vovk, 2015). A head that was not
trained again on the validation examples is asked about these itself (split conformal prediction).

With n scores, the quantile is the one at rank ceil((n + 1) * coverage). Had the head seen none of
the examples, a new one's score would be at most that with the probability that was asked for,
whatever the head and the data are, as long as new examples come from where these came from. The
heads of the folds saw a tenth less, so their scores promise a little less than the head keeps.

Intervals of numbers reach to either side by that quantile of the absolute residuals. It is the
centre of CV+ (Barber, Candès, Ramdas and Tibshirani, "Predictive inference with the jackknife+",
2021) with the one head that the bundle has: CV+ itself would need the heads of all folds to answer.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.params import TrainParams
from ..heads.head import Floats, Head, probabilities
from ..heads.sets import Doubles, Integers, LabelSets, before, label_sets, reach, sizes
from ..tables.features import Split
from ..tables.manifest import CLASSIFICATION

FOLDS = 10
ENOUGH = 5000  # examples that are held out; where there are more, some folds are not asked about
MISSES = 10  # to be expected among the examples, or the quantile is a lottery
PENALTIES = (0.001, 0.01, 0.1, 0.2, 0.5)  # lambda: those that the paper of RAPS tries
OF_NO_SCALE = ("ridge", "nearest_mean")  # whose scores on subsets are right in order only
DIGITS = 6  # of a quantile, which is rounded up
COLUMNS = ("class", "examples", "coverage", "size")
MANY = 5  # numbers that a line tells of
# Of sets that are randomised, as the paper has them.
RANDOMISED = ("randomised_coverage", "randomised_size", "empty")


def calibrated(
    coverage: float | None,
    head: Head,
    about: dict[str, Any],
    train: Split,
    val: Split,
    manifest: pd.DataFrame,
    training: TrainParams,
    counts: bool = False,
) -> dict[str, Any]:
    """What sets or intervals are made with, as `reports/sets.json` and the bundle have it.

    Args:
        coverage: how often they shall hold the truth; None for no sets.
        head: as `train` left it.
        about: its description.
        train: the training examples, every view.
        val: the validation examples.
        manifest: of the examples; those of a group are held out together.
        training: how heads are trained.
        counts: whether the features are counts of terms.

    Returns:
        nothing where no coverage is asked for; `coverage` and `why_no_sets` where the promise
        cannot be made; else `coverage`, what `sets.LabelSets` or `sets.reach` takes, and what it
        rests on.
    """
    if coverage is None:
        return {}
    task, temperature = about.get("task", CLASSIFICATION), about["temperature"]
    if task == "multilabel":
        why = "of several labels an example, no set is promised"
        return {"coverage": coverage, "why_no_sets": why}
    crosses = about.get("refit") or not len(val.labels)
    pool, of = val, "validation examples"
    if crosses:
        names = [field.name for field in fields(Split)]
        pool = Split(*(np.concatenate([getattr(s, name) for s in (train, val)]) for name in names))
        of = f"training and {of}" if len(val.labels) else "training examples"
    groups = manifest.set_index("digest").get("group", pd.Series(dtype=str)).to_dict()
    keys = [groups.get(digest) or digest for digest in pool.digests.tolist()]
    found, least = len(set(keys)), math.ceil(round(MISSES / (1 - coverage), 6))
    short = f"{found} {of} are too few to promise a coverage of {coverage:g}, which takes {least}"
    if any(groups.get(digest) for digest in pool.digests.tolist()):
        short = short.replace(of, f"groups of {of}")
    if found < least:
        return {"coverage": coverage, "why_no_sets": short}

    if crosses:
        kinds = pool.labels if task == CLASSIFICATION else np.zeros(len(keys), np.int64)
        out = out_of_fold(pool, folds(keys, kinds), head, about, training, counts)
    else:
        out = head.logits(pool.features), pool.labels, pool.digests, 0, 0
    answers, labels, digests, lost, asked = out
    rests = {"examples": len(labels) + lost, "folds": asked}
    if task != CLASSIFICATION:
        residuals = np.abs(answers.astype(np.float64) - labels)
        reached = [quantile(one, coverage) for one in residuals.T]
        return {"coverage": coverage, "method": "residuals", "reach": reached} | rests
    chosen = calibrated_sets(probabilities(answers, temperature), labels, digests, coverage, lost)
    if not all(map(math.isfinite, chosen.values())):
        short = f"{lost} of {len(labels) + lost} {of} are alone in their class, too many to promise"
        return {"coverage": coverage, "why_no_sets": f"{short} a coverage of {coverage:g}"}
    return {"coverage": coverage, "method": "RAPS"} | chosen | rests


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
    about: dict[str, Any],
    training: TrainParams,
    counts: bool,
) -> tuple[Floats, Integers, npt.NDArray[np.str_], int, int]:
    """Logits [m, c] of examples by heads that had not seen them.

    Returns:
        logits; labels [m]; digests [m]; how many more examples there are that could not be held
        out; how many folds were.
    """
    original = pool.views == 0
    chosen, held = [], 0
    for number in range(FOLDS):
        rows = original & (fold == number)
        if held < ENOUGH and rows.any():
            chosen.append(rows)
            held += int(rows.sum())
    learnt = [fold != fold[rows][0] for rows in chosen]
    from ..heads.fit import class_weights
    from ..heads.hyperparameters import from_used
    from ..heads.subsets import on_subsets
    from ..heads.trained import Schedule

    classes = len(about["classes"])
    weights = class_weights(training.class_weights, pool.labels, classes)
    schedule = Schedule(about["epoch"], training.batch_size, 0, weights, counts)
    hyperparameters = from_used(about["hyperparameters"])
    unscaled = hyperparameters.optimizer in OF_NO_SCALE
    asked = list(chosen)
    if unscaled:
        learnt.append(np.ones(len(fold), bool))
        asked.append(chosen[0])
    found = list(on_subsets(pool, learnt, asked, hyperparameters, schedule, training.class_weights))
    scale = 1.0
    if unscaled:
        scale = _times(found.pop(), head.logits(pool.features[chosen[0]]))
    rows = np.concatenate([np.flatnonzero(mask) for mask in chosen])
    lost = int((original & (fold < 0)).sum())
    share = held / max(1, int((original & (fold >= 0)).sum()))
    return (
        np.concatenate(found) * np.float32(scale),
        pool.labels[rows],
        pool.digests[rows],
        math.ceil(lost * share),
        len(chosen),
    )


def _times(some: Floats, others: Floats) -> float:
    """By what to multiply scores [n, c] to get the others, apart from what all classes share."""
    one, two = (table - table.mean(axis=1, keepdims=True) for table in (some, others))
    return float(np.vdot(one, two)) / max(float(np.vdot(one, one)), 1e-300)


def calibrated_sets(
    shares: Doubles,
    labels: Integers,
    digests: npt.NDArray[np.str_],
    coverage: float,
    lost: int = 0,
) -> dict[str, Any]:
    """RAPS, calibrated.

    As the paper does, k_reg is the quantile of the labels' ranks, and lambda is the one with the
    smallest sets on average.

    Args:
        shares: [n, c], of heads that had not seen the examples.
        labels: [n].
        digests: [n], from which the random shares are drawn.
        coverage: asked for.
        lost: how many more examples there are, whose labels no set would hold.
    """
    rank, ahead, own = before(shares, labels)
    k_reg = int(min(quantile(rank.astype(np.float64), coverage, lost), shares.shape[1]))
    behind, drawn = np.maximum(rank - k_reg, 0), uniform(digests)
    tried = []
    for penalty in PENALTIES:
        scores = ahead + penalty * behind
        sets = LabelSets(quantile(scores, coverage, lost), penalty, k_reg)
        randomised = quantile(scores + drawn * own, coverage, lost)
        tried.append((float(sizes(shares, sets).mean()), penalty, sets.quantile, randomised))
    _, penalty, chosen, randomised = min(tried)
    return {"quantile": chosen, "lambda": penalty, "k_reg": k_reg, "randomised": randomised}


def quantile(scores: Doubles, coverage: float, lost: int = 0) -> float:
    """The score at rank ceil((n + 1) * coverage), rounded up; infinite where n is too small.

    Args:
        scores: of examples that were held out.
        coverage: asked for.
        lost: how many more there are, with infinite scores.
    """
    rank = math.ceil(round((len(scores) + lost + 1) * coverage, 6))
    if rank > len(scores):
        return math.inf
    value = float(np.partition(scores, rank - 1)[rank - 1])
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
) -> pd.DataFrame:
    """What the sets hold of the test examples: a row for all and one a class, or one a number.

    `coverage` is how often they hold the truth, `size` how many labels they hold on average, or how
    wide an interval is; `empty` is the share of randomised sets without a label.

    Args:
        sets: as `calibrated` gives it; a table without rows where there are none.
        answers: [n, c], the head's answers about the test examples.
        test: n of them.
        names: the classes or the numbers.
    """
    columns = [*COLUMNS, *RANDOMISED]
    if "reach" in sets:
        far = reach(sets, len(names))
        held = np.abs(answers - test.labels) <= far
        of_each = zip(names, held.mean(axis=0), far, strict=True)
        rows = [(name, len(held), share, 2 * wide) for name, share, wide in of_each]
        return pd.DataFrame(rows, columns=COLUMNS).reindex(columns=columns)
    if "quantile" not in sets or not len(test.labels):
        return pd.DataFrame(columns=columns)
    rank, _, _ = before(answers, test.labels)
    sure = label_sets(sets)
    randomised = LabelSets(sets["randomised"], sure.penalty, sure.k_reg)
    size = sizes(answers, sure)
    drawn = sizes(answers, randomised, uniform(test.digests))
    of_each = np.column_stack([rank <= size, size, rank <= drawn, drawn, drawn == 0])
    rows = [("all", len(rank), *of_each.mean(axis=0))]
    for number, name in enumerate(names):
        own = test.labels == number
        figures = of_each[own].mean(axis=0) if own.any() else [None] * of_each.shape[1]
        rows.append((name, int(own.sum()), *figures))
    return pd.DataFrame(rows, columns=columns)


def said(sets: dict[str, Any], found: pd.DataFrame) -> str:
    """One line on what is promised, and what the test examples show; empty where none was asked."""
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
        return f"intervals that promise {sets['coverage']:g} hold {shown}"
    every = found.iloc[0]
    return (
        f"sets that promise {sets['coverage']:g} hold the class of {every['coverage']:.4f} of the"
        f" test examples, with {every['size']:.2f} classes on average"
    )

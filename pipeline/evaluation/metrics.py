"""Metrics of classification on labelled examples, and bootstrap intervals of every task.

Every metric is a function of weighted sums over examples. For the metric itself each example has
weight 1. In a bootstrap resample the weight of an example is the number of times that it was drawn.
One matrix product therefore computes a metric on all resamples at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Number of weights (resamples x examples) that are computed at once, to limit memory.
AT_ONCE = 2**24


@dataclass(frozen=True)
class Scores:
    """Metrics by name, for B sets of example weights.

    `overall` has the metrics over all examples, each [B]. In classification they are loss,
    accuracy, balanced_accuracy, top_<k>_accuracy, macro_f1 and calibration_error. `of_class` has
    the metrics of each class, label or target, each [B, c]. In classification they are precision,
    recall and f1. A metric that is not defined is NaN (the recall of a class without examples, the
    precision of a class that is never predicted).
    """

    overall: dict[str, Array]
    of_class: dict[str, Array]


Weigh = Callable[[Array], Scores]  # from example weights [B, n] to measures


def whole(weigh: Weigh, examples: int) -> Scores:
    """Return the metrics with weight 1 for every example, as `Scores` with B = 1."""
    return weigh(np.ones((1, examples)))


def resample(
    weigh: Weigh,
    examples: int,
    outputs: int,
    resamples: int,
    seed: int,
    groups: npt.NDArray[np.int64] | None = None,
) -> Scores:
    """Return the metrics on `resamples` draws of the examples with replacement (Efron, 1979).

    Examples of one group (a patient, a recording) are alike, so whole groups are drawn, as many as
    there are. The weight of an example is the number of times that its group was drawn (Davison and
    Hinkley, 1997, section 3.8).

    Args:
        examples: n, the number of examples.
        outputs: c, the number of outputs.
        groups: [n], the group of each example, from 0 to G - 1; None if each is its own group.
    """
    if groups is not None and groups.max(initial=-1) == examples - 1:
        groups = None  # each example is its own group
    drawable = examples if groups is None else int(groups.max()) + 1
    generator = np.random.default_rng(seed)
    most = max(1, AT_ONCE // max(examples, outputs))
    parts = []
    for start in range(0, resamples, most):
        size = min(most, resamples - start)
        drawn = generator.integers(drawable, size=(size, drawable))
        drawn += np.arange(size)[:, None] * drawable
        times = np.bincount(drawn.ravel(), minlength=size * drawable).reshape(size, drawable)
        of_each = times.astype(np.float64)
        parts.append(weigh(of_each if groups is None else of_each[:, groups]))
    return Scores(
        {name: np.concatenate([p.overall[name] for p in parts]) for name in parts[0].overall},
        {name: np.concatenate([p.of_class[name] for p in parts]) for name in parts[0].of_class},
    )


def scores(labels: npt.NDArray[np.int64], probabilities: Array, top_k: int, bins: int) -> Scores:
    """Return the metrics of all examples, as `Scores` with B = 1.

    Args:
        labels: [n], the true class of each example.
        probabilities: [n, c], the predicted probability of each class; a row adds up to 1.
        top_k: an example counts as right if its label is among the k most probable classes.
        bins: number of bins of equal width, for the expected calibration error.
    """
    weigh = partial(weighted, labels=labels, probabilities=probabilities, top_k=top_k, bins=bins)
    return whole(weigh, len(labels))


def bootstrap(
    labels: npt.NDArray[np.int64],
    probabilities: Array,
    top_k: int,
    bins: int,
    resamples: int,
    seed: int,
) -> Scores:
    """Return the metrics on `resamples` bootstrap resamples; the rest is as in `scores`."""
    weigh = partial(weighted, labels=labels, probabilities=probabilities, top_k=top_k, bins=bins)
    examples, classes = probabilities.shape
    return resample(weigh, examples, classes, resamples, seed)


def interval(resampled: Array, confidence: float) -> tuple[Array, Array]:
    """Return the low and high ends of the percentile interval over the first axis.

    If all examples agree (for example, all are right), the interval has no width, although new
    examples might disagree. `tables` then uses Wilson's interval if the metric is a fraction.
    Resamples in which a metric is undefined are left out.
    """
    tail = (1 - confidence) / 2
    # Bit-identical to NumPy's `nanquantile`, but without a call for each column that has a NaN.
    columns = np.sort(resampled.reshape(len(resampled), -1).T, axis=1)  # NaN comes last
    defined = np.count_nonzero(~np.isnan(columns), axis=1)
    every, last = np.arange(len(columns)), np.maximum(defined - 1, 0)
    ends = []
    for fraction in (tail, 1 - tail):
        place = last * fraction
        below = np.floor(place).astype(int)
        low, high = columns[every, below], columns[every, np.minimum(below + 1, last)]
        part, gap = place - below, high - low
        end = np.where(part < 0.5, low + gap * part, high - gap * (1 - part))
        ends.append(end.reshape(resampled.shape[1:]))
    return ends[0], ends[1]


def weighted(
    weights: Array,
    labels: npt.NDArray[np.int64],
    probabilities: Array,
    top_k: int,
    bins: int,
    predicted: npt.NDArray[np.int64] | None = None,
) -> Scores:
    """Return the metrics for each row of `weights` [B, n]; the rest is as in `scores`.

    `predicted` [n] are the predicted classes, if they are not the most probable ones.
    """
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    of_label = probabilities[rows, labels]
    correct = predicted == labels
    total = weights.sum(axis=1)
    rank = ranks(labels, probabilities)

    # [B, c]: examples of a class, predictions of it, and correct predictions.
    support = _sums(weights, labels, classes)
    predictions = _sums(weights, predicted, classes)
    hits = _sums(weights[:, correct], labels[correct], classes)
    recall = ratio(hits, support)
    f1 = ratio(2 * hits, support + predictions)

    # Guo et al., arXiv:1706.04599: bins (low, high] of the predicted class's probability.
    confidence = probabilities[rows, predicted]
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = weights @ (_one_hot(which, bins) * (confidence - correct)[:, None])

    # Means over classes with examples; F1 is also NaN for a class neither drawn nor predicted.
    seen = np.bincount(labels, minlength=classes) > 0
    overall = {
        "loss": weights @ -np.log(np.maximum(of_label, 1e-300)) / total,
        "accuracy": weights @ correct / total,
        "balanced_accuracy": np.nanmean(recall[:, seen], axis=1),
        f"top_{top_k}_accuracy": weights @ (rank < top_k) / total,
        "macro_f1": np.nanmean(f1[:, seen], axis=1),
        "calibration_error": np.abs(gaps).sum(axis=1) / total,
    }
    f1[:, ~seen] = np.nan
    of_class = {"precision": ratio(hits, predictions), "recall": recall, "f1": f1}
    return Scores(overall, of_class)


def ranks(labels: npt.NDArray[np.int64], probabilities: Array) -> npt.NDArray[np.int64]:
    """Return how many classes rank before the label, [n]; ties are ranked as by argmax."""
    classes = probabilities.shape[1]
    parts = []
    for start in range(0, len(labels), max(1, AT_ONCE // classes)):
        some = slice(start, start + max(1, AT_ONCE // classes))
        own = np.take_along_axis(probabilities[some], labels[some, None], axis=1)
        tied = (probabilities[some] == own) & (np.arange(classes) < labels[some, None])
        parts.append(((probabilities[some] > own) | tied).sum(axis=1))
    return np.concatenate(parts)


def _sums(weights: Array, positions: npt.NDArray[np.int64], size: int) -> Array:
    """Return the sum [B, size] of the weights [B, n] at each position, exact for integers."""
    sums = np.zeros((len(weights), size))
    order = np.argsort(positions, kind="stable")
    present, starts = np.unique(positions[order], return_index=True)
    if len(present):
        sums[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums


def _one_hot(positions: npt.NDArray[np.int64], size: int) -> Array:
    table = np.zeros((len(positions), size))
    table[np.arange(len(positions)), positions] = 1
    return table


def ratio(above: Array, below: Array) -> Array:
    """Return above / below; NaN if below is 0."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)

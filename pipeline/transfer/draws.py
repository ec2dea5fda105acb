"""Nested random subsets of training examples, and metrics over several draws."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..evaluation import comparing, metrics
from ..heads.head import Floats
from ..tables.features import Split
from ..tables.unit import unit

Array = npt.NDArray[np.float64]

RESAMPLES = 1000  # for each interval


def numbers(largest: int, least: int = 1) -> list[int]:
    """Return 1, 2, 4, 8, … from `least` on, and `largest`; a smaller class is used as a whole."""
    powers = [2**power for power in range(largest.bit_length())]
    return [power for power in powers if least <= power < largest] + [largest]


def largest(train: Split) -> int:
    """Return the size of the largest class; the number of examples if there are no classes."""
    labels = train.labels[train.views == 0]
    return int(np.bincount(labels).max()) if labels.ndim == 1 else len(labels)


def drawn(train: Split, count: int, draw: int, augmented: bool) -> Split:
    """Return `count` examples of each class with their views, or with view 0 only.

    If there are no classes, there are `count` examples in all.

    The position of an example in a draw is a hash of the draw and its digest, so it does not depend
    on other examples.
    """
    examples = np.unique(train.digests)
    place = {digest: unit(f"{draw}:{digest}") for digest in examples.tolist()}
    labels = train.labels if train.labels.ndim == 1 else np.zeros(len(train.labels), int)
    label = dict(zip(train.digests.tolist(), labels.tolist(), strict=True))
    kept: set[str] = set()
    for wanted in set(label.values()):
        of_class = [digest for digest in place if label[digest] == wanted]
        kept |= set(sorted(of_class, key=place.__getitem__)[:count])
    mask = np.isin(train.digests, sorted(kept))
    if not augmented:
        mask &= train.views == 0
    return train.take(mask)


def measured(
    task: str,
    answers: Sequence[Floats],
    val: Split,
    confidence: float,
    groups: npt.NDArray[np.int64] | None = None,
) -> tuple[float, float, float]:
    """Return the mean over draws of the task's metric, and the ends of its interval.

    Args:
        answers: logits [examples, c] of the head of each draw.
        groups: the group of each example; None if each is its own group.
    """
    measure, mean, resampled = comparing.measure(task), 0.0, np.zeros(RESAMPLES)
    if measure == "accuracy":
        right = np.stack([one.argmax(axis=1) == val.labels for one in answers])
        return interval(right, confidence, groups)
    of_draw, of_example = _drawn_anew(len(answers), len(val.labels), groups)
    for number, one in enumerate(answers):
        weigh = comparing.weigh(task, one, val.labels)
        mean += comparing.value(task, one, val.labels) / len(answers)
        resampled += of_draw[:, number] * weigh(of_example.astype(np.float64)).overall[measure]
    low, high = metrics.interval(resampled, confidence)
    return mean, float(low), float(high)


def interval(
    right: npt.NDArray[np.bool_], confidence: float, groups: npt.NDArray[np.int64] | None = None
) -> tuple[float, float, float]:
    """Return the mean accuracy, and the ends of its bootstrap interval.

    Both the draws and the validation examples are resampled, because another user would have
    different ones (Owen, 2007, "The pigeonhole bootstrap"). Whole groups of examples are drawn.

    Args:
        right: [draws, examples], whether each prediction is right.
        groups: [examples], the group of each; None if each is its own group.
    """
    draws, examples = right.shape
    of_draw, of_example = _drawn_anew(draws, examples, groups)
    weights = of_example / of_example.sum(axis=1, keepdims=True)
    means = np.einsum("rd,dp,rp->r", of_draw, right, weights, optimize=True)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(right.mean()), float(low), float(high)


def _drawn_anew(
    draws: int, examples: int, groups: npt.NDArray[np.int64] | None
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return weights of draws [resamples, draws], and counts of examples [resamples, examples]."""
    generator = np.random.default_rng(0)
    of_draw = generator.multinomial(draws, np.full(draws, 1 / draws), RESAMPLES) / draws
    drawable = examples if groups is None else int(groups.max()) + 1
    times = generator.multinomial(drawable, np.full(drawable, 1 / drawable), RESAMPLES)
    return of_draw, times if groups is None else times[:, groups]

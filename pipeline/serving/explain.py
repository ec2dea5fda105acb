"""Explanations of a prediction: heat maps of the evidence for it, and similar training examples.

The module uses only NumPy, so that explanations do not need torch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..heads.head import Head
from ..tables import joined
from ..tables.power import raised

Floats = npt.NDArray[np.float32]

TINY = float(np.finfo(np.float32).tiny)
LENGTHS = (1e-15, 1e15)
NOTHING = 1e-5  # rounding error of log-odds, since probabilities have seven digits
LEAST = 2.0**-25  # half of the step between 1 and the float32 below it

# Rows of similarities held at a time.
ROWS = 256


def class_map(maps: Sequence[Floats], head: Head, power: float, label: int) -> Floats:
    """Return the class activation map of an example.

    The backbone's last maps are summed. The weight of a map is the gradient of the class's logit
    with respect to the map's mean, computed through the power and the head. Negative values become
    0. For a linear head and power 1 the result is CAM (Zhou et al., CVPR 2016), else Grad-CAM
    (Selvaraju et al., ICCV 2017). The sums of joined backbones are added, at the finest resolution.

    Args:
        maps: the last feature maps [d, h, w] of each backbone for the example; their means over h
            and w are its features.
        power: the power that the head's features were raised to.
        label: position of the class, or of the target, whose map shows what raises it.

    Returns:
        [h, w], from 0 to 1; all 0 if no part is evidence for the class.
    """
    of_each = [one.mean(axis=(1, 2)) for one in maps]
    scales = [float(joined.scale(one[None])[0, 0]) if len(maps) > 1 else 1.0 for one in of_each]
    means = np.concatenate([one / by for one, by in zip(of_each, scales, strict=True)])
    weights = head.weight[label]
    if head.hidden_weight is not None and head.hidden_bias is not None:
        units = raised(means, power) @ head.hidden_weight.T + head.hidden_bias
        weights = (weights * (units > 0)) @ head.hidden_weight
    if power != 1:
        # The slope of a root grows without bound towards 0. It is capped at its value for a
        # hundredth of the average mean.
        size = np.abs(means)
        least = max(float(size.mean()) / 100, TINY)
        weights = weights * power * np.maximum(size, least) ** (power - 1)
    ends = np.cumsum([len(one) for one in maps])[:-1]
    sums = [
        np.tensordot(some / by, one, axes=1)
        for some, by, one in zip(np.split(weights, ends), scales, maps, strict=True)
    ]
    finest = max((one.shape for one in sums), key=lambda shape: shape[0] * shape[1])
    heat: Floats = np.maximum(np.sum([_resized(one, finest) for one in sums], axis=0), 0).astype(
        np.float32
    )
    heat /= max(float(heat.max()), TINY)
    return heat


def _resized(table: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Resize a table [h, w], by linear interpolation between the centres of its cells."""
    for axis, size in enumerate(shape):
        length = table.shape[axis]
        if length == size:
            continue
        places = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, length - 1)
        fraction = (places - low).reshape((-1, 1) if axis == 0 else (1, -1))
        table = table.take(low, axis) * (1 - fraction) + table.take(high, axis) * fraction
    return table


def odds(probabilities: Floats, label: int) -> float:
    """Return the log-odds of a class against all others together.

    If a prediction is nearly certain, its probability is rounded to 1, but the other probabilities
    have seven digits. The odds are therefore computed from their sum.

    Args:
        probabilities: [classes], the probabilities.
        label: position of the class.
    """
    others = np.delete(probabilities, label).sum(dtype=np.float64)
    return float(np.log(max(float(probabilities[label]), TINY)) - np.log(max(float(others), TINY)))


def odds_of_label(probabilities: Floats, label: int) -> float:
    """Return the log-odds of a label against its absence.

    In multi-label tasks the probabilities are independent. A probability that was rounded to 1
    counts as half a float32 step below 1.

    Args:
        probabilities: [labels], the probabilities.
        label: position of the label.
    """
    probability = float(probabilities[label])
    return float(np.log(max(probability, TINY)) - np.log(max(1 - probability, LEAST)))


# The strength of a prediction for the output at a position, by `Task.activation`.
STRENGTHS: dict[str, Callable[[Floats, int], float]] = {
    "softmax": odds,
    "sigmoid": odds_of_label,
    "identity": lambda numbers, position: float(numbers[position]),
}


def falls(before: float, without: npt.NDArray[np.float64]) -> Floats:
    """Return how much the log-odds of a class fall if a part is hidden, scaled from 0 to 1.

    The log-odds are used because a nearly certain probability hardly changes. The result is 0 for a
    part without which the class is more probable. The method is occlusion (Zeiler and Fergus, ECCV
    2014). In regression the target replaces the log-odds, in units in which its largest value is
    about 1.

    Args:
        before: the class's log-odds for the whole example.
        without: [parts], its log-odds without each part.
    """
    return _from_0_to_1(before - without)


def effects(without: npt.NDArray[np.float64], hides: npt.NDArray[np.bool_]) -> Floats:
    """Return each part's mean effect on the log-odds, from inputs that hide several parts each.

    The effect is the mean over inputs that keep a part minus the mean over inputs that hide it.
    With many random inputs the method is RISE (Petsiuk et al., BMVC 2018).

    Args:
        without: [inputs], the class's log-odds for each input.
        hides: [inputs, parts]; each part is hidden by some inputs and kept by others.
    """
    hidden = hides.astype(np.float64)
    kept = 1 - hidden
    return _from_0_to_1(without @ kept / kept.sum(axis=0) - without @ hidden / hidden.sum(axis=0))


def _from_0_to_1(fall: npt.NDArray[np.float64]) -> Floats:
    """Divide each fall by the largest; all are 0 if the largest is no more than rounding error."""
    above = np.maximum(fall, 0)
    most = float(above.max(initial=0))
    weights: Floats = (above / most if most > NOTHING else 0 * above).astype(np.float32)
    return weights


def directions(features: Floats) -> Floats:
    """Scale rows [n, d] to length 1, for `neighbours`; rows of zeros do not change."""
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: Floats = features / np.maximum(lengths, TINY)
    odd = ~((lengths > LENGTHS[0]) & (lengths < LENGTHS[1]))[:, 0]
    if odd.any():  # their squares exceed the range of float32
        exact = features[odd].astype(np.float64)
        lengths = np.linalg.norm(exact, axis=1, keepdims=True)
        scaled[odd] = exact / np.maximum(lengths, TINY)
    return scaled


def neighbours(features: Floats, bank: Floats, k: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Find the rows of `bank` most similar to each row of `features`, by cosine similarity.

    Args:
        features: [n, d], from `directions`.
        bank: [m, d], from `directions`.
        k: the number of neighbours per row; if it is larger than m, m are returned.

    Returns:
        positions in the bank [n, k] and cosine similarities [n, k], the nearest first.
    """
    k = min(k, len(bank))
    positions = np.empty((len(features), k), dtype=np.int64)
    cosines = np.empty((len(features), k), dtype=np.float32)
    for start in range(0, len(features), ROWS):
        rows = slice(start, start + ROWS)
        likeness = features[rows] @ bank.T
        nearest = np.sort(np.argpartition(-likeness, k - 1, axis=1)[:, :k], axis=1)
        values = np.take_along_axis(likeness, nearest, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")  # ties: the first in the bank
        positions[rows] = np.take_along_axis(nearest, order, axis=1)
        cosines[rows] = np.minimum(np.take_along_axis(values, order, axis=1), 1)  # rounding
    return positions, cosines

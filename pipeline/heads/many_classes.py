"""Multinomial logistic regression for many classes: L-BFGS with a preconditioner, in float32.

The objective is that of `closed_forms.lbfgs`. scikit-learn starts from zero and knows nothing of
the curvature. Here the features are turned to their principal axes; the first steps see only those
that vary most, at a fifth of the cost. L-BFGS (Nocedal, 1980) then starts each direction from an
approximate Newton step: of the Hessian only the block of each class is taken, and of that the rows
of the class itself as they are and all others by their covariance.
Rows are taken in chunks, so that the logits of all rows never lie in memory at once.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..tables.features import Split
from .head import Floats, Head

# Where all classes are fewer, scikit-learn is quick, and the bytes of older heads stay the same.
MANY = 100
MOST_ITERATIONS = 500
# The objective may lie above its minimum by this share of itself, as a Newton step estimates, which
# tells about half. Where scikit-learn stops by its own rule, it lay 0.004 above with 1,200 classes
# (benchmarks/heads.md), and far less on small sets; there a pass costs nothing.
TOLERANCE, TOLERANCE_OF_SMALL = 1e-3, 2e-5
SMALL = 2**32  # rows x classes x features
COARSE = 10  # times the tolerance, while only some axes are seen
PARTS = (6, 2, 1)  # of the axes, one level after the other
PLAIN = 12  # first steps without the curvature: far from the minimum it changes too quickly
PAIRS, PAIRS_BYTES = 10, 10**9  # the last steps that L-BFGS knows, and what they may take
OWN = 16  # rows of a class whose curvature is known one by one
OTHERS = 0.8  # share of the other rows' curvature; less than all, since classes share it
MOST_ATTEMPTS = 8  # at a step that lowers the objective
RENEWED = 4  # iterations after which the curvature is taken anew
AT_ONCE = 2**21  # logits in a chunk
GATHERED = 2**24  # numbers of gathered rows

Step = Callable[[Floats], Floats]


def minimum(
    train: Split, importance: Floats, classes: int, decay: float, start: Head | None
) -> tuple[Head, bool]:
    """The head of the lowest loss, and whether it was reached.

    Args:
        train: n rows of d features, of mean zero and of one scale.
        importance: [n], weighs the rows.
        classes: c.
        decay: strength of the L2 penalty.
        start: a linear head to begin with; None begins with zeros.
    """
    share = (importance / importance.sum(dtype=np.float64)).astype(np.float32)
    weighted = train.features * np.sqrt(share)[:, None]
    variances, axes = np.linalg.eigh((weighted.T @ weighted).astype(np.float64))
    del weighted
    variances = np.maximum(variances[::-1], 0).astype(np.float32)
    axes = np.ascontiguousarray(axes[:, ::-1].astype(np.float32))
    dimension = len(axes)
    turned = np.ones((len(share), dimension + 1), dtype=np.float32)  # the bias comes first
    turned[:, 1:] = train.features @ axes
    weights = np.zeros((classes, dimension + 1), dtype=np.float32)
    levels = [max(1, dimension // part) for part in PARTS]
    if start is not None:
        weights[:, 0], weights[:, 1:] = start.bias, start.weight @ axes
        levels = levels[-1:]
    finest = TOLERANCE if len(share) * weights.size > SMALL else TOLERANCE_OF_SMALL
    converged = True
    for axes_seen in levels:
        seen = slice(0, axes_seen + 1)
        rows = Rows(np.ascontiguousarray(turned[:, seen]), train.labels, share, decay)
        # What the next axes will change need not be found here to the last bit.
        tolerance = finest if axes_seen == dimension else COARSE * TOLERANCE
        plain = PLAIN if start is None and axes_seen == levels[0] else 0
        scale = np.append(np.float32(1), variances[:axes_seen])
        weights[:, seen], converged = descend(rows, weights[:, seen], scale, tolerance, plain)
    return Head(weights[:, 1:] @ axes.T, weights[:, 0].copy()), converged


@dataclass(frozen=True)
class Seen:
    """What a pass over all rows gives.

    `loss` is the objective and `gradient` [c, d + 1] its slope. `own` [n] is the curvature that a
    row adds to its own class, `of_class` [c] that of all rows.
    """

    loss: float
    gradient: Floats
    own: Floats
    of_class: Floats


@dataclass(frozen=True)
class Rows:
    """The objective: `features` [n, d + 1], the first all 1; `share` [n] adds up to 1."""

    features: Floats
    labels: npt.NDArray[np.int64]
    share: Floats
    decay: float

    def __call__(self, weights: Floats) -> Seen:
        """The objective at `weights` [c, d + 1]."""
        own = np.empty(len(self.labels), dtype=np.float32)
        gradient, of_class = np.zeros_like(weights), np.zeros(len(weights), dtype=np.float32)
        loss, size = 0.0, max(32, AT_ONCE // len(weights))
        for start in range(0, len(own), size):
            some = slice(start, start + size)
            features, labels, share = self.features[some], self.labels[some], self.share[some]
            rows = np.arange(len(labels))
            shares = features @ weights.T
            shares -= shares.max(axis=1, keepdims=True)
            told = shares[rows, labels]
            np.exp(shares, out=shares)
            total = shares.sum(axis=1)
            loss += float(share @ (np.log(total) - told).astype(np.float64))
            shares /= total[:, None]
            of_class += share @ (shares * (1 - shares))
            given = shares[rows, labels]
            own[some] = share * given * (1 - given)
            shares[rows, labels] -= 1
            shares *= share[:, None]
            gradient += shares.T @ features
        penalised = weights[:, 1:]
        gradient[:, 1:] += np.float32(self.decay) * penalised
        loss += self.decay / 2 * float(np.einsum("cd,cd->", penalised, penalised))
        return Seen(loss, gradient, own, of_class)


def descend(
    rows: Rows, weights: Floats, variances: Floats, tolerance: float, plain: int
) -> tuple[Floats, bool]:
    """L-BFGS from `weights` on; the weights where it ended, and whether that is the minimum.

    Args:
        rows: the objective.
        weights: [c, d + 1].
        variances: of the features [d + 1].
        tolerance: share of the objective that is left to gain.
        plain: first steps that know no curvature.
    """
    now = rows(weights)
    newton: Step = np.copy if plain else _newton_step(rows, now, variances)
    room = PAIRS_BYTES // (2 * weights.nbytes)
    pairs: deque[tuple[Floats, Floats, float]] = deque(maxlen=int(np.clip(room, 2, PAIRS)))
    for iteration in range(1, MOST_ITERATIONS + 1):
        if iteration > plain:
            left = _dot(now.gradient, newton(now.gradient)) / 2
            if left <= tolerance * now.loss:
                return weights, True
        for attempt in range(MOST_ATTEMPTS):
            direction = _direction(now.gradient, newton, pairs)
            # Where the curvature was taken for too little, what the step too far has found of it
            # mends the next direction; only where that does not help the step is cut.
            step = max(0.1 ** (attempt - 2), 1e-6) if attempt > 2 else 1.0
            there = weights + np.float32(step) * direction
            then = rows(there)
            moved, bent = there - weights, then.gradient - now.gradient
            if (curvature := _dot(moved, bent)) > 0:
                pairs.append((moved, bent, 1 / curvature))
            if then.loss <= now.loss + 1e-4 * step * _dot(now.gradient, direction):
                break
        else:  # rounding hides what is left to gain
            return weights, True
        weights, now = there, then
        if iteration >= plain and iteration % RENEWED == 0:
            newton = _newton_step(rows, now, variances)
    return weights, False


def _direction(
    gradient: Floats,
    newton: Step,
    pairs: "deque[tuple[Floats, Floats, float]]",
) -> Floats:
    """Where to go, by the two loops of L-BFGS around the approximate Newton step."""
    direction = -gradient
    shares = []
    for moved, bent, inverse in reversed(pairs):
        shares.append(inverse * _dot(moved, direction))
        direction -= np.float32(shares[-1]) * bent
    direction = newton(direction)
    if pairs:
        _, bent, inverse = pairs[-1]
        direction *= np.float32(1 / (inverse * _dot(bent, newton(bent))))
    for (moved, bent, inverse), share in zip(pairs, reversed(shares), strict=True):
        direction += np.float32(share - inverse * _dot(bent, direction)) * moved
    return direction


def _newton_step(rows: Rows, seen: Seen, variances: Floats) -> Step:
    """What divides a gradient [c, d + 1] by an approximate Hessian.

    The block of a class is a diagonal, from the penalty and the variances of the features, plus
    the outer products of its own rows; Woodbury's formula inverts it.
    """
    chosen, own = _own_rows(rows.labels, seen.own, len(seen.of_class))
    others = OTHERS * np.maximum(seen.of_class - own.sum(axis=1), 0.1 * seen.of_class)
    penalty = np.full(len(variances), rows.decay, dtype=np.float32)
    penalty[0] = 0
    least = 1e-4 * others.mean() * variances.mean() + 1e-12
    size = max(1, GATHERED // (OWN * len(variances)))
    chunks = [slice(start, start + size) for start in range(0, len(others), size)]

    def gathered(some: slice) -> tuple[Floats, Floats]:
        diagonal = np.maximum(others[some, None] * variances + penalty, least).astype(np.float32)
        return rows.features[chosen[some]], np.sqrt(1 / diagonal)

    inverses = []
    for some in chunks:
        features, root = gathered(some)
        features *= np.sqrt(own[some])[:, :, None] * root[:, None, :]
        inner = features @ features.transpose(0, 2, 1) + np.eye(chosen.shape[1], dtype=np.float32)
        weight = np.sqrt(own[some])
        inverses.append(weight[:, :, None] * np.linalg.inv(inner) * weight[:, None, :])

    def step(gradient: Floats) -> Floats:
        found = np.empty_like(gradient)
        for some, inverse in zip(chunks, inverses, strict=True):
            features, root = gathered(some)
            damped = gradient[some] * root * root
            inside = inverse @ (features @ damped[:, :, None])
            back = (features.transpose(0, 2, 1) @ inside)[:, :, 0]
            found[some] = damped - back * root * root
        return found

    return step


def _own_rows(
    labels: npt.NDArray[np.int64], curvature: Floats, classes: int
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Of each class the rows of the highest curvature [c, OWN], and that; 0 where it has fewer."""
    order = np.lexsort((-curvature, labels))
    starts = np.searchsorted(labels[order], np.arange(classes + 1))
    most = min(OWN, int(np.diff(starts).max()))
    places = starts[:-1, None] + np.arange(most)
    there = places < starts[1:, None]
    chosen = order[np.minimum(places, len(order) - 1)]
    return chosen, np.where(there, curvature[chosen], 0).astype(np.float32)


def _dot(one: Floats, other: Floats) -> float:
    return float(np.einsum("cd,cd->", one, other))

"""Train the same head on many subsets of the same rows, much faster than one by one.

The subsets overlap, so that they share much of the work. Only the predictions of each head are
kept. The heads do not start from a head that was trained on all rows: until such a head converges,
it still remembers the held-out rows. Heads are trained in parallel, each on one thread, so that
the result does not depend on the number of cores.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..core.errors import TrainingError
from ..tables.features import Split
from . import closed_forms, tf_idf
from .discriminants import Sums
from .fit import class_weights, fit_heads, one_thread_each
from .head import Floats, one_thread
from .hyperparameters import Hyperparameters
from .least_squares import ridge
from .losses import LOSSES, Units
from .scaling import GLOBAL, SQUARES, centre_and_scale
from .trained import Schedule

Mask = npt.NDArray[np.bool_]
Number = TypeVar("Number", np.float32, np.float64)

# Added to the diagonal, times the mean squared length of a row, because centred rows are dependent.
ROUNDING = 1e-9


def on_subsets(
    pool: Split,
    subsets: Sequence[Mask],
    asked: Sequence[Mask],
    hyperparameters: Hyperparameters,
    schedule: Schedule,
    weighing: str,
) -> Iterator[Floats]:
    """Train a head on each subset, as `fit.fit_heads` would without validation examples.

    Args:
        pool: n rows.
        subsets: each [n], the rows to train on; each subset has rows of every class.
        asked: each [n], the rows to predict.
        schedule: the schedule of gradient descent, with the class weights of the pool.
        weighing: `train.class_weights`.

    Yields:
        for each subset the predictions of its head, [m, c]: scores of classes, of which only the
        order is meaningful, logits of labels, or predicted targets.

    Raises:
        TrainingError: the training of a head diverged.
    """
    if schedule.layers and hyperparameters.scaling == GLOBAL:
        # The scale of each layer is that of all rows; its labels are not used.
        _, scales = centre_and_scale(pool.features, layers=schedule.layers)
        pool = replace(pool, features=pool.features / scales)
        schedule = replace(schedule, layers=())
    if not schedule.counts:
        pool = _within_range(pool)
    if hyperparameters.optimizer == "lda" and weighing == "none" and not schedule.counts:
        with one_thread():
            sums = Sums.of(pool, schedule, hyperparameters.scaling)
            for mask, rows in zip(subsets, asked, strict=True):
                yield _whole(sums.head(mask).logits(pool.features[rows]), hyperparameters)
        return
    # The scales, or the weights of classes or terms, are those of each subset: nothing is shared.
    if hyperparameters.scaling != GLOBAL or hyperparameters.optimizer == "lda":
        yield from _one_by_one(pool, subsets, asked, hyperparameters, schedule, weighing)
        return
    if pool.labels.ndim == 2:
        yield from _of_columns(pool, subsets, asked, hyperparameters, schedule, weighing)
        return
    classes = len(schedule.class_weights)
    importance = np.stack(
        [
            mask * class_weights(weighing, pool.labels[mask], classes)[pool.labels]
            for mask in subsets
        ]
    ).astype(np.float32)
    importance *= _of_rows(pool, schedule)
    with one_thread():
        found = _answers(pool, importance, hyperparameters, schedule)
        for logits, rows in zip(found, asked, strict=True):
            yield _whole(logits, hyperparameters)[rows]


def _of_rows(pool: Split, schedule: Schedule) -> Floats:
    weights = schedule.weigh(pool.digests)
    return np.ones(len(pool.labels), np.float32) if weights is None else weights


def _within_range(pool: Split) -> Split:
    """Scale the features so that float32 can hold their squares; predictions do not change."""
    _, scale = centre_and_scale(pool.features)
    if SQUARES[0] < float(np.max(scale)) ** 2 < SQUARES[1]:
        return pool
    return replace(pool, features=pool.features / scale)


def _whole(logits: Floats, hyperparameters: Hyperparameters) -> Floats:
    if not np.isfinite(logits).all():
        raise TrainingError(f"a repeat diverged; {hyperparameters.remedy}")
    return logits


def _answers(
    pool: Split, importance: Floats, hyperparameters: Hyperparameters, schedule: Schedule
) -> Iterator[Floats]:
    """Yield scores [n, c] for each subset: the rows with `importance` [R, n] above 0."""
    if schedule.counts:  # each subset has its own term weights, so nothing is shared
        plain = replace(schedule, counts=False)
        for one in importance:
            idf = tf_idf.fitted(pool.features[one > 0])
            own = replace(pool, features=tf_idf.weighed(pool.features, idf))
            yield from _answers(own, one[None], hyperparameters, plain)
    elif hyperparameters.optimizer in SOLVERS:
        solve = SOLVERS[hyperparameters.optimizer]
        classes = len(schedule.class_weights)
        yield from solve(pool, importance, classes, hyperparameters.weight_decay)
    else:
        from . import gradient_descent  # imports PyTorch

        mean, scale = centre_and_scale(pool.features)
        scaled = replace(pool, features=(pool.features - mean) / scale)
        yield from gradient_descent.on_subsets(hyperparameters, scaled, importance, schedule)


def _of_columns(
    pool: Split,
    subsets: Sequence[Mask],
    asked: Sequence[Mask],
    hyperparameters: Hyperparameters,
    schedule: Schedule,
    weighing: str,
) -> Iterator[Floats]:
    """`on_subsets` for labels and targets.

    Least squares is computed for all subsets together if each output is known in all rows and
    classes are not weighted. Heads trained by gradient descent are stacked. Other heads, and all
    heads on term counts, are trained one by one, because the known rows of a label, its weights, or
    the weights of the terms differ between subsets.
    """
    outputs, name = len(schedule.class_weights), hyperparameters.optimizer
    squares = closed_forms.SOLVERS[schedule.loss].get(name) is closed_forms.by_ridge
    whole = not np.isnan(pool.labels).any() and weighing == "none" and not schedule.counts
    if squares and whole:
        yield from _least_squares(pool, subsets, asked, hyperparameters.weight_decay, schedule)
        return
    if hyperparameters.optimizer in SOLVERS or schedule.counts:
        yield from _one_by_one(pool, subsets, asked, hyperparameters, schedule, weighing)
        return
    from . import gradient_descent  # imports PyTorch

    mean, scale = centre_and_scale(pool.features)
    scaled, units = replace(pool, features=(pool.features - mean) / scale), None
    if LOSSES[schedule.loss].of_numbers:
        units = Units.of(schedule.loss, pool.labels)
        scaled = replace(scaled, labels=units.learned(pool.labels))
    weights = [class_weights(weighing, pool.labels[mask], outputs) for mask in subsets]
    of_values = [one if one.ndim == 2 else np.stack([one, one], axis=1) for one in weights]
    inside = np.stack(subsets) * _of_rows(pool, schedule)
    with one_thread():
        found = gradient_descent.on_subsets(
            hyperparameters, scaled, inside, schedule, np.stack(of_values)
        )
    for logits, rows in zip(found, asked, strict=True):
        answers = _whole(logits, hyperparameters)[rows]
        yield answers if units is None else units.raw(answers)


def _one_by_one(
    pool: Split,
    subsets: Sequence[Mask],
    asked: Sequence[Mask],
    hyperparameters: Hyperparameters,
    schedule: Schedule,
    weighing: str,
) -> Iterator[Floats]:
    """`on_subsets` with a call of `fit.fit_heads` for each subset."""
    outputs, none = len(schedule.class_weights), pool.take(slice(0))

    def train(mask: Mask, rows: Mask) -> Floats:
        inside = pool.take(mask)
        weights = class_weights(weighing, inside.labels, outputs)
        weighted = replace(schedule, class_weights=weights)
        (one,) = fit_heads(inside, none, [hyperparameters], weighted, "cpu", measured=False)
        if one.head is None:
            raise TrainingError(f"a head {one.status}; {hyperparameters.remedy}")
        return one.head.logits(pool.features[rows])

    with one_thread_each(hyperparameters), ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from threads.map(train, subsets, asked)


def _least_squares(
    pool: Split, subsets: Sequence[Mask], asked: Sequence[Mask], decay: float, schedule: Schedule
) -> Iterator[Floats]:
    """Predict labels or targets with `_by_ridge`."""
    loss = LOSSES[schedule.loss]
    importance = np.stack(subsets) * _of_rows(pool, schedule)
    with one_thread():
        found = _by_ridge(pool, importance, pool.labels, decay)
        for answers, mask, rows in zip(found, subsets, asked, strict=True):
            logits = answers - np.float32(loss.middle)
            if not loss.of_numbers:
                logits *= closed_forms.fair_scale(logits[mask], pool.labels[mask])
            yield logits[rows]


def _squares(features: Floats, importance: Floats, dimension: int) -> npt.NDArray[np.float64]:
    """Return the mean square of the features around their mean in each subset, [R].

    `fit_heads` divides the features by the square root of this.
    """
    square = np.einsum("nd,nd->n", features, features)
    inside = importance > 0
    counts = inside.sum(axis=1)
    means = (inside @ features) / counts[:, None]
    spread = (inside @ square) / counts - np.einsum("rd,rd->r", means, means)
    mean: npt.NDArray[np.float64] = spread.astype(np.float64) / dimension
    return mean


def one_hot(labels: npt.NDArray[np.int64], classes: int, kind: type[Number]) -> npt.NDArray[Number]:
    """Return the one-hot encoding [n, classes] of labels."""
    rows = np.zeros((len(labels), classes), dtype=kind)
    rows[np.arange(len(labels)), labels] = 1
    return rows


def _of_classes(pool: Split, importance: Floats, classes: int, decay: float) -> Iterator[Floats]:
    """Yield the scores of `closed_forms.by_ridge` for classes."""
    return _by_ridge(pool, importance, one_hot(pool.labels, classes, np.float64), decay)


def _by_ridge(
    pool: Split, importance: Floats, wanted: npt.NDArray[np.float64], decay: float
) -> Iterator[Floats]:
    """Fit least squares to `wanted` [n, c] with a Cholesky decomposition for each subset.

    With fewer rows than features, the Gram matrix K of the rows, which is computed once for all
    subsets, is decomposed instead. With K of a subset, (K + diag(penalty / weights)) x = targets -
    bias, and x adds up to 0, because the bias is not penalised (Saunders, Gammerman and Vovk,
    1998).
    """
    features = (pool.features - pool.features.mean(axis=0)).astype(np.float64)
    dual = len(features) <= features.shape[1]
    products = features @ features.T if dual else None
    penalties = decay * _squares(features, importance, features.shape[1])

    def solve(number: int) -> Floats:
        weights = importance[number] / importance[number].sum(dtype=np.float64)
        rows = np.flatnonzero(weights)
        if products is None:
            mean, target_mean = weights @ features, weights @ wanted
            of_row = np.sqrt(weights[rows])[:, None]
            scaled, targets = (
                (features[rows] - mean) * of_row,
                (wanted[rows] - target_mean) * of_row,
            )
            solved = ridge(scaled.T @ scaled, penalties[number], scaled.T @ targets)
            logits = (features - mean) @ solved + target_mean
        else:
            right = np.column_stack([wanted[rows], np.ones(len(rows))])
            solved = ridge(products[np.ix_(rows, rows)], penalties[number] / weights[rows], right)
            of_targets, of_ones = solved[:, :-1], solved[:, -1:]
            bias = of_targets.sum(axis=0) / of_ones.sum()
            of_all = np.zeros(wanted.shape)
            of_all[rows] = of_targets - of_ones * bias
            logits = products @ of_all + bias
        return np.asarray(logits, dtype=np.float32)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from threads.map(solve, range(len(importance)))


def _by_nearest_mean(
    pool: Split, importance: Floats, classes: int, decay: float
) -> Iterator[Floats]:
    """Yield the scores of `closed_forms.nearest_mean`."""
    of_class = one_hot(pool.labels, classes, np.float32)
    mean, scale = centre_and_scale(pool.features)
    features = (pool.features - mean) / scale
    for weights in importance:
        inside = of_class * (weights > 0)[:, None]
        means = (inside / inside.sum(axis=0)).T @ features
        yield 2 * features @ means.T - np.square(means).sum(axis=1)


def _by_lbfgs(pool: Split, importance: Floats, classes: int, decay: float) -> Iterator[Floats]:
    """Yield the scores of `closed_forms.multinomial`.

    With fewer rows than features, the rows are rotated into the space that they span, which changes
    neither the penalty nor the loss. `fit_heads` scales the features of each subset separately;
    this function scales the penalty instead.
    """
    features = pool.features - pool.features.mean(axis=0)
    if len(features) < features.shape[1]:
        products = (exact := features.astype(np.float64)) @ exact.T
        least = ROUNDING * np.trace(products) / len(products) + 1e-300
        products[np.diag_indices(len(products))] += least
        features = np.linalg.cholesky(products).astype(np.float32)
    squares = _squares(features, importance, pool.features.shape[1])
    scaled = (features / np.sqrt(squares.mean())).astype(np.float32)

    def solve(number: int) -> Floats:
        rows = importance[number] > 0
        penalty = decay * float(squares[number] / squares.mean())
        given = scaled[rows], "softmax", pool.labels[rows], np.ones(classes, np.float32)
        inside = closed_forms.Rows.of(*given, importance[number, rows])
        (head,) = closed_forms.multinomial(inside, [penalty], None)
        return np.asarray(scaled @ head.weight.T + head.bias)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from threads.map(solve, range(len(importance)))


Solver = Callable[[Split, Floats, int, float], Iterator[Floats]]
SOLVERS: dict[str, Solver] = {
    "lbfgs": _by_lbfgs,
    "ridge": _of_classes,
    "nearest_mean": _by_nearest_mean,
}

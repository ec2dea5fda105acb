"""Many heads trained at once on the same features.

Those that descend are trained side by side in `gradient_descent`, the others are solved for in
`closed_forms`. PyTorch is imported only where a head descends: that takes seconds.

On the CPU two runs give the same bytes, given the same number of threads: linear algebra libraries
may round differently when they divide a product among another number of threads. On a GPU the
bytes also depend on the card and on its libraries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..tables.features import Split
from . import closed_forms
from .head import Floats, Head, probabilities


@dataclass(frozen=True, order=True)
class Knobs:
    """What may differ from head to head; `params.yaml` says what each is."""

    optimizer: str
    learning_rate: float
    weight_decay: float
    width: int
    dropout: float
    label_smoothing: float
    seed: int


@dataclass(frozen=True)
class Schedule:
    """What all heads of a sweep share; `class_weights` has shape [c]."""

    epochs: int
    batch_size: int
    patience: int
    class_weights: Floats


@dataclass(frozen=True)
class Figures:
    """Mean cross-entropy and accuracy after `epoch` epochs; NaN where there are no pictures.

    Those of training are running means over the epoch, without label smoothing.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True)
class Trained:
    """What became of one head: `head` and `kept` (its figures) are None when it was lost.

    `scale` is what its logits were multiplied by, as `closed_forms.fair_scale` found.
    """

    knobs: Knobs
    head: Head | None
    kept: Figures | None
    curve: list[Figures]
    status: str
    scale: float = 1.0


def train_heads(
    train: Split,
    val: Split,
    knobs: Sequence[Knobs],
    schedule: Schedule,
    device: str,
    on_epoch: Callable[[], None] = lambda: None,
) -> list[Trained]:
    """Train one head for each of `knobs`, which must differ from each other.

    Features are moved to mean zero and scaled to a mean square of 1 by the training rows, and the
    weights that come back take that in. All features are scaled by one number: those that vary
    most keep saying most, which was better on every set of `benchmarks/heads.md` than giving each
    a variance of 1. Losses are weighted by the class weights, on validation
    pictures too. With validation pictures, a head keeps the epoch of its lowest validation loss
    and stops after `patience` epochs without a lower one; without, it keeps its last epoch.

    Args:
        train: n rows; an epoch passes over all of them, whichever views they are.
        val: rows to stop by, or none.
        knobs: heads whose optimizer is lbfgs, ridge or nearest_mean read only their weight decay.
        schedule: what the heads share.
        device: `cpu` or `cuda`, for the gradient descent; the closed forms use the CPU.
        on_epoch: called after every epoch of every stack of heads.
    """
    mean, scale = _centre_and_scale(train.features)
    train, val = (replace(rows, features=(rows.features - mean) / scale) for rows in (train, val))

    trained = []
    for name in closed_forms.SOLVERS:
        if alike := [one for one in knobs if one.optimizer == name]:
            trained += _solve(name, alike, train, val, schedule)
    if alike := [one for one in knobs if one.optimizer not in closed_forms.SOLVERS]:
        from . import gradient_descent

        trained += gradient_descent.descend(alike, train, val, schedule, device, on_epoch)

    of_knobs = {one.knobs: one for one in trained}
    return [_on_raw_features(of_knobs[one], mean, scale) for one in knobs]


def _centre_and_scale(features: Floats) -> tuple[Floats, np.float32]:
    """Mean [d] of the rows, and the root of the mean square around it over all numbers."""
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = features - mean
    square = np.einsum("nd,nd->n", centred, centred).mean(dtype=np.float64) / len(mean)
    return mean, np.float32(np.sqrt(square)) if square > 0 else np.float32(1)


def _on_raw_features(trained: Trained, mean: Floats, scale: np.float32) -> Trained:
    """Fold centre and scale into the first layer; weights that overflow are a lost head."""
    head = trained.head
    if head is None:
        return trained
    with np.errstate(over="ignore", invalid="ignore"):
        if head.hidden_weight is None or head.hidden_bias is None:
            weight = head.weight / scale
            bias = (head.bias - weight @ mean).astype(np.float32)
            folded = replace(head, weight=weight, bias=bias)
        else:
            weight = head.hidden_weight / scale
            bias = (head.hidden_bias - weight @ mean).astype(np.float32)
            folded = replace(head, hidden_weight=weight, hidden_bias=bias)
    if not all(np.isfinite(array).all() for array in vars(folded).values() if array is not None):
        status = f"lost: a weight overflowed in epoch {len(trained.curve)}"
        return replace(trained, head=None, kept=None, status=status)
    return replace(trained, head=folded)


def _solve(
    name: str, knobs: list[Knobs], train: Split, val: Split, schedule: Schedule
) -> list[Trained]:
    """Heads in closed form; their curve is one point."""
    solve = closed_forms.SOLVERS[name]
    heads = solve(train, schedule.class_weights, [one.weight_decay for one in knobs])
    trained = []
    for one, head in zip(knobs, heads, strict=True):
        scale = 1.0
        if solve in closed_forms.OF_NO_SCALE:
            scale = closed_forms.fair_scale(head, val if len(val.labels) else train)
            head = head.scaled(scale)
        figures = Figures(1, *_figures(head, train, schedule), *_figures(head, val, schedule))
        trained.append(Trained(one, head, figures, [figures], "solved", scale))
    return trained


def _figures(head: Head, split: Split, schedule: Schedule) -> tuple[float, float]:
    """Weighted cross-entropy and accuracy; NaN where there are no rows."""
    if not len(split.labels):
        return np.nan, np.nan
    logits = head.logits(split.features)
    rows = np.arange(len(logits))
    surprise = -np.log(np.maximum(probabilities(logits)[rows, split.labels], 1e-300))
    importance = schedule.class_weights[split.labels]
    correct = logits.argmax(axis=1) == split.labels
    return float(surprise @ importance / importance.sum()), float(correct.mean())

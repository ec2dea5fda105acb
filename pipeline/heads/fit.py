"""Train many heads at once on the same features.

`gradient_descent` trains heads by gradient descent, in stacks; `closed_forms` solves for other
heads. PyTorch is imported only for gradient descent, because the import takes seconds.

On the CPU each product is computed on one thread, so that the result does not depend on the number
of cores. On a GPU the result depends on the card and its libraries.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from ..core import packages
from ..core.errors import DeviceError, TrainingError
from ..tables.features import Split
from ..tables.large import mapped
from . import closed_forms, losses, tf_idf
from .discriminants import Sums
from .head import Floats, Head, one_thread
from .hyperparameters import CLOSED_FORMS, Hyperparameters
from .scaling import Scale, centre_and_scale
from .trained import Figures, Schedule, Trained

# Logits that a head in closed form is calibrated on, those of the first rows. Rows are sorted by
# digest, so the first ones are a random sample.
MOST_LOGITS = 2**26
UNMEASURED = Figures(1, np.nan, np.nan, np.nan, np.nan)


def fit_heads(
    train: Split,
    val: Split,
    hyperparameters: Sequence[Hyperparameters],
    schedule: Schedule,
    device: str,
    on_epoch: Callable[[], None] = lambda: None,
    start: Head | None = None,
    measured: bool = True,
) -> list[Trained]:
    """Train one head for each of `hyperparameters`, which must differ from each other.

    Features are centred and scaled to a mean square of 1 on the training rows (`scaling`); the
    returned weights include this step. Regression targets are also centred and scaled
    (`losses.Units`). The returned weights include this step too, but the reported losses stay in
    these units. Losses are weighted by the class weights, also on validation examples.

    With validation examples, gradient descent keeps the epoch with the lowest validation loss, and
    stops after `patience` epochs (never, if 0) without a lower one. Without validation examples it
    keeps the last epoch.

    Args:
        train: n rows; an epoch has all of them, including augmented views.
        val: rows for early stopping; may be empty.
        hyperparameters: those of each head; lbfgs and ridge use only the weight decay. lda, which
            is for classes, and nearest_mean, for classes and labels, use none of them.
        device: `cpu` or `cuda`, for gradient descent; the closed forms use the CPU.
        on_epoch: called after every epoch of every stack of heads.
        start: a linear head near the result, where lbfgs begins if there are many classes.
        measured: if false, metrics of closed forms are not computed, and are NaN.
    """
    idf = tf_idf.fitted(train.features) if schedule.counts else None
    if idf is not None:
        train, val = (
            replace(rows, features=tf_idf.weighed(rows.features, idf)) for rows in (train, val)
        )
    units = None
    if losses.LOSSES[schedule.loss].of_numbers:
        units = losses.Units.of(schedule.loss, train.labels)
        train, val = (replace(rows, labels=units.learned(rows.labels)) for rows in (train, val))

    found: dict[Hyperparameters, Trained] = {}
    with one_thread():
        for asked in hyperparameters:
            if asked.optimizer == "lda":
                found[asked] = _discriminants(asked, train, val, schedule, idf, measured)
        others = [one for one in hyperparameters if one not in found]
        for scaling in dict.fromkeys(one.scaling for one in others):
            mean, scale = centre_and_scale(train.features, scaling, schedule.layers)
            scaled = partial(_scaled, mean=mean, scale=scale)
            rows, new = (
                replace(split, features=mapped(split.features, scaled)) for split in (train, val)
            )
            near = _on_scaled_features(start, mean, scale) if start else None
            some = [one for one in others if one.scaling == scaling]
            trained = []
            for name in CLOSED_FORMS:
                if alike := [one for one in some if one.optimizer == name]:
                    trained += _solve(name, alike, rows, new, schedule, near, measured)
            if alike := [one for one in some if one.optimizer not in CLOSED_FORMS]:
                from . import gradient_descent  # imports PyTorch

                trained += gradient_descent.descend(alike, rows, new, schedule, device, on_epoch)
            for one in trained:
                found[one.hyperparameters] = _in_raw_units(one, mean, scale, idf, units)
    return [found[one] for one in hyperparameters]


def _scaled(features: Floats, mean: Floats, scale: Scale) -> Floats:
    found: Floats = (features - mean) / scale
    return found


def _on_scaled_features(head: Head, mean: Floats, scale: Scale) -> Head:
    """Convert a linear head for raw features to one for centred and scaled features."""
    bias = head.bias + head.weight @ mean
    return replace(head, weight=head.weight * scale, bias=bias, idf=None)


def _in_raw_units(
    trained: Trained,
    mean: Floats,
    scale: Scale,
    idf: Floats | None,
    units: losses.Units | None,
) -> Trained:
    """Fold the features' centre and scale into the first layer, targets' units into the last."""
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
        if units is not None:
            folded = units.undone(folded)
    return _with(trained, replace(folded, idf=idf))


def _with(trained: Trained, head: Head) -> Trained:
    """Return the result with this head, or without a head if a weight overflowed."""
    if not all(np.isfinite(array).all() for array in vars(head).values() if array is not None):
        status = "diverged: a weight overflowed"
        if trained.hyperparameters.optimizer not in CLOSED_FORMS:
            status += f" in epoch {len(trained.curve)}"
        return replace(trained, head=None, kept=None, status=status)
    return replace(trained, head=head)


def _discriminants(
    asked: Hyperparameters,
    train: Split,
    val: Split,
    schedule: Schedule,
    idf: Floats | None,
    measured: bool,
) -> Trained:
    """Fit linear discriminants; the result has the sums of the training and validation rows."""
    sums = Sums.of(Split.concat([train, val]), schedule, asked.scaling)
    head = sums.head(np.arange(len(train.labels) + len(val.labels)) < len(train.labels))
    trained = _measured(asked, head, train, val, schedule, scaled=True, measured=measured)
    if idf is None:  # for other rows, the weights of the terms would differ
        trained = replace(trained, sums=sums)
    return _with(trained, replace(head.scaled(trained.scale), idf=idf))


def _solve(
    name: str,
    hyperparameters: list[Hyperparameters],
    train: Split,
    val: Split,
    schedule: Schedule,
    start: Head | None,
    measured: bool,
) -> list[Trained]:
    """Solve for heads with a closed form; their learning curve has one point."""
    decays = [one.weight_decay for one in hyperparameters]
    of_labels = schedule.loss, train.labels, schedule.class_weights
    weights = schedule.weigh(train.digests)
    rows = closed_forms.Rows.of(train.features, *of_labels, weights)
    heads = closed_forms.SOLVERS[schedule.loss][name](rows, decays, start)
    scaled = name in closed_forms.OF_NO_SCALE and not rows.loss.of_numbers
    return [
        _measured(one, head, train, val, schedule, scaled, measured)
        for one, head in zip(hyperparameters, heads, strict=True)
    ]


def _measured(
    asked: Hyperparameters,
    head: Head,
    train: Split,
    val: Split,
    schedule: Schedule,
    scaled: bool,
    measured: bool,
) -> Trained:
    """Return a head in closed form with its metrics; if `scaled`, calibrate its logits first."""
    scale = 1.0
    if scaled:
        new = val if len(val.labels) else train
        some = slice(MOST_LOGITS // len(head.bias))
        scale = closed_forms.fair_scale(head.logits(new.features[some]), new.labels[some])
        head = head.scaled(scale)
    figures = UNMEASURED
    if measured:
        figures = Figures(1, *_figures(head, train, schedule), *_figures(head, val, schedule))
    return Trained(asked, head, figures, [figures], "solved", scale)


def _figures(head: Head, split: Split, schedule: Schedule) -> tuple[float, float]:
    """Return mean loss and accuracy (R² in regression); NaN if there are no rows."""
    return losses.figures(
        schedule.loss,
        lambda some: head.logits(split.features[some]),
        split.labels,
        schedule.class_weights,
        schedule.weigh(split.digests),
    )


def refit(chosen: Trained, rows: Split, val: Split, schedule: Schedule, device: str) -> Head:
    """Train the chosen head again, on training and validation examples together.

    Once the head is chosen, the validation examples are no longer needed to choose it, and with few
    examples a fifth more training data is worth more than a validation metric. Gradient descent
    runs for as many epochs as the kept head was trained for. A head in closed form keeps the scale
    that was calibrated when the validation examples were still held out.
    """
    start = chosen.head if chosen.hyperparameters.optimizer == "lbfgs" else None
    both = Split.concat([rows, val])
    every = np.ones(len(both.labels), bool)
    return trained_again(chosen, both, every, schedule, device, start)


def trained_again(
    chosen: Trained,
    pool: Split,
    some: npt.NDArray[np.bool_],
    schedule: Schedule,
    device: str,
    start: Head | None = None,
) -> Head:
    """Train the chosen head again, on some rows of a pool.

    Args:
        chosen: as `fit_heads` returned it.
        pool: the training rows of the chosen head, and then its validation rows.
        some: [n], the rows of the pool to train on.
        device: `cpu` or `cuda`.
        start: as in `fit_heads`; the result may remember the rows that `start` was trained on.

    Raises:
        TrainingError: the training diverged.
    """
    if chosen.sums is not None:
        with one_thread():
            return chosen.sums.head(some).scaled(chosen.scale)
    rows = pool if some.all() else pool.take(some)
    epochs = chosen.kept.epoch if chosen.kept else schedule.epochs
    again = replace(schedule, epochs=epochs, patience=0)
    none = rows.take(slice(0))
    one = [chosen.hyperparameters]
    (trained,) = fit_heads(rows, none, one, again, device, start=start, measured=False)
    if trained.head is None:
        raise TrainingError(
            "when the chosen head was trained again on a different set of examples, it"
            f" {trained.status}; {chosen.hyperparameters.remedy}"
        )
    return trained.head.scaled(chosen.scale / trained.scale)


@contextmanager
def one_thread_each(hyperparameters: Hyperparameters) -> Iterator[None]:
    """Limit each thread that starts in this context to one core, to train heads in parallel."""
    with one_thread():
        if hyperparameters.optimizer in CLOSED_FORMS:
            yield
            return
        from . import gradient_descent  # imports PyTorch

        with gradient_descent.one_thread_each():
            yield


def class_weights(kind: str, labels: npt.NDArray[np.int64 | np.float64], classes: int) -> Floats:
    """Return the weight [c] of each class's examples in the loss.

    `none`: 1 for all. `balanced`: n / (c * n of the class), so that all classes have the same
    total weight (King and Zeng, 2001, as in scikit-learn). For labels [n, c] that are 1, 0 or
    unknown (NaN), `balanced` is [c, 2]: n / (2 * n of the value) for each label's rows of 0 and of
    1, so that the two have the same total weight.
    """
    if kind == "none":
        return np.ones(classes, dtype=np.float32)
    if labels.ndim == 2:
        sizes = np.stack([(labels == value).sum(axis=0) for value in (0, 1)], axis=1)
        known = sizes.sum(axis=1, keepdims=True)
        return np.asarray(known / (2 * np.maximum(sizes, 1)), dtype=np.float32)
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * counts)).astype(np.float32)


def device_for(asked: str, descends: bool, parameter: str = "train.device") -> str:
    """Return the device that `parameter` requests, `cpu` or `cuda`, if this machine has it.

    Without gradient descent, `auto` is the CPU, and PyTorch is not imported to look for a GPU.

    Raises:
        DeviceError: cuda is requested but not available.
        MissingSetError: PyTorch is needed but not installed.
    """
    if descends:
        packages.need("torch", "a head that is trained by gradient descent")
    if asked == "cpu" or (asked == "auto" and not descends):
        return "cpu"
    try:
        import torch
    except ModuleNotFoundError:
        packages.need("torch", f"{parameter} cuda")
        raise

    if torch.cuda.is_available():
        return "cuda"
    if asked == "cuda":
        raise DeviceError(f"{parameter} is cuda, but PyTorch sees no CUDA device; use auto or cpu")
    return "cpu"

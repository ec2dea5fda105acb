"""Train many heads at once on the same features by gradient descent.

Heads of equal shape are stacked in one tensor [seed, in, head, out], so that one batched product
applies all of them to a minibatch. Each head has its own optimizer, learning rate, weight decay,
dropout, label smoothing, seed and early stopping. Training a head alone results in the same head up
to rounding.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..core.errors import DeviceError
from ..tables.features import Split
from .descent_losses import Loss, Rows, cells, loss_of, mean_cells
from .head import Floats, Head
from .hyperparameters import Hyperparameters
from .trained import Figures, Schedule, Trained

# The most numbers in one tensor of a stack of heads, and in the validation logits of one chunk.
STACK_LIMIT = 2**26
SIDE_BY_SIDE = 13  # heads in a stack of `on_subsets`: four stacks for 50


def descend(
    hyperparameters: Sequence[Hyperparameters],
    train: Split,
    val: Split,
    schedule: Schedule,
    device: str,
    on_epoch: Callable[[], None],
) -> list[Trained]:
    """Train one head for each of `hyperparameters`; `fit.fit_heads` explains the arguments.

    The features have to be centred and scaled.

    Raises:
        DeviceError: GPU memory is too small for the features and heads.
    """
    trained = []
    try:
        with one_thread_each():
            rows = _rows(train, schedule, device), _rows(val, schedule, device)
            for seeds, combinations in stacks(hyperparameters, train.features.shape[1], schedule):
                trained += _descend(seeds, combinations, *rows, schedule, on_epoch)
    except torch.OutOfMemoryError:
        raise DeviceError(
            f"GPU memory ran out with {len(train.labels):,} training views and"
            f" {len(hyperparameters)} heads; set train.device to cpu"
        ) from None
    return trained


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Make PyTorch compute on one thread in this context, for the reasons in `head.one_thread`.

    Threads that start in the context also compute on one thread each, and may enter it too.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_subsets(
    hyperparameters: Hyperparameters,
    pool: Split,
    importance: Floats,
    schedule: Schedule,
    of_values: Floats | None = None,
) -> list[Floats]:
    """Train the same head on many subsets of the rows at once; return the logits of all rows.

    All heads get the same minibatches, so that a minibatch needs one product for all of them. The
    batch size is that of `schedule`, times the ratio of the pool to a subset. Each head therefore
    learns from about the same number of rows per step as it would alone.

    Args:
        pool: n rows, centred and scaled; targets in `losses.Units`.
        importance: [R, n], the weight of each row for each head; 0 if it is not in the subset.
        schedule: the head is trained for all of its epochs.
        of_values: [R, c, 2], for each head the weight of an output's labels of 0 and of 1; None for
            classes.

    Returns:
        R arrays of logits [n, c]; they are not finite if the training diverged.
    """
    rows, dimension = _rows(pool, schedule, "cpu"), pool.features.shape[1]
    batch = max(1, round(schedule.batch_size * importance.size / np.count_nonzero(importance)))
    of_head = torch.from_numpy(importance.T.copy()).split(SIDE_BY_SIDE, dim=1)
    values = [None] * len(of_head)
    if of_values is not None:
        values = list(torch.from_numpy(of_values).split(SIDE_BY_SIDE))

    def train(part: Tensor, values: Tensor | None) -> list[Floats]:
        mean_importance = torch.zeros(0) if values is None else mean_cells(rows, part, values)
        together = [replace(hyperparameters, seed=0)] * part.shape[1]
        seed = hyperparameters.seed
        loss = _loss(together, schedule, mean_importance, part.device)
        stack = _Stack([seed], together, dimension, schedule, loss, part.device)
        shuffle = torch.Generator().manual_seed(seed)
        for _ in range(schedule.epochs):
            order = torch.randperm(len(rows.labels), generator=shuffle)
            for some in order[None].split(batch, dim=1):
                counts = part[some] if values is None else cells(rows, some, part, values)
                stack.step(rows.features[some], rows.labels[some], counts)
        answers = stack.answers(rows.features[None])[0].numpy()  # [n, M, c]
        return [answers[:, place] for place in range(part.shape[1])]

    with one_thread_each(), ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(train, of_head, values))
    return [logits for part in found for logits in part]


def _rows(split: Split, schedule: Schedule, device: str) -> Rows:
    of_labels, weights = (schedule.loss, split.labels), schedule.weigh(split.digests)
    return Rows.of(split.features, *of_labels, schedule.class_weights, device, weights)


def stacks(
    hyperparameters: Sequence[Hyperparameters], dimension: int, schedule: Schedule
) -> list[tuple[list[int], list[Hyperparameters]]]:
    """Divide the heads into stacks of equal shape that fit into memory.

    A stack is a list of seeds and a list of hyperparameters, which are trained with every seed.
    """
    of_seed: dict[tuple[int, bool, int], list[Hyperparameters]] = defaultdict(list)
    for one in hyperparameters:
        of_seed[one.width, one.dropout > 0, one.seed].append(replace(one, seed=0))
    seeds_of: dict[tuple[Hyperparameters, ...], list[int]] = defaultdict(list)
    for (_, _, seed), combinations in of_seed.items():
        # Sorting groups the heads by optimizer, so that each update rule works on one slice.
        seeds_of[tuple(sorted(combinations))].append(seed)
    found = []
    classes, batch = len(schedule.class_weights), schedule.batch_size
    for together, seeds in seeds_of.items():
        width, dropout = together[0].width, together[0].dropout > 0
        weights = (dimension + classes) * width if width else dimension * classes
        # Dropout on the features of a linear head copies the features for each head.
        activations = batch * max(width, classes, dimension if dropout and not width else 0)
        head = max(weights, activations)
        for some in _chunks(seeds, STACK_LIMIT // max(head, batch * dimension)):
            for part in _chunks(together, STACK_LIMIT // (head * len(some))):
                found.append((list(some), list(part)))
    return found


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    size = max(1, size)
    return [items[start : start + size] for start in range(0, len(items), size)]


def _descend(
    seeds: list[int],
    combinations: list[Hyperparameters],
    train: Rows,
    val: Rows,
    schedule: Schedule,
    on_epoch: Callable[[], None],
) -> list[Trained]:
    """Train a stack of heads: each of S seeds with each of M combinations."""
    device, shape = train.features.device, (len(seeds), len(combinations))
    loss = _loss(combinations, schedule, train.importance.mean(dim=0), device)
    stack = _Stack(seeds, combinations, train.features.shape[1], schedule, loss, device)
    # The order is drawn on the CPU, so that it is the same on every device.
    shuffles = [torch.Generator().manual_seed(seed) for seed in seeds]
    best = [tensor.detach().clone() for tensor in stack.weights]
    best_loss, best_epoch = np.full(shape, np.inf), np.zeros(shape, dtype=int)
    running, last_epoch = np.ones(shape, dtype=bool), np.zeros(shape, dtype=int)
    curve: list[npt.NDArray[np.float64]] = []

    for epoch in range(1, schedule.epochs + 1):
        order = torch.stack([torch.randperm(len(train.labels), generator=g) for g in shuffles])
        totals = torch.zeros(loss.sums, *shape, device=device)
        for rows in order.to(device).split(schedule.batch_size, dim=1):
            importance = train.importance[rows].unsqueeze(2)
            totals += stack.step(train.features[rows], train.labels[rows], importance)
        means = loss.means(totals.double(), train), loss.means(stack.measure(val).double(), val)
        figures = torch.cat(means).cpu().numpy()
        curve.append(figures)
        last_epoch[running] = epoch
        on_epoch()

        train_loss, _, val_loss, _ = figures
        running &= np.isfinite(train_loss)
        better = running.copy()
        if len(val.labels):
            running &= np.isfinite(val_loss)
            better = running & (val_loss < best_loss)
        best_loss[better], best_epoch[better] = val_loss[better], epoch
        chosen = torch.from_numpy(better).to(device)[:, None, :, None]
        for kept, now in zip(best, stack.weights, strict=True):
            torch.where(chosen, now.detach(), kept, out=kept)
        if len(val.labels) and schedule.patience:
            running &= epoch - best_epoch < schedule.patience
        if not running.any():
            break

    trained = []
    arrays = [tensor.cpu().numpy() for tensor in best]
    for s, m in np.ndindex(shape):
        hyperparameters = replace(combinations[m], seed=seeds[s])
        points = [
            Figures(number, *map(float, figures[:, s, m]))
            for number, figures in enumerate(curve[: last_epoch[s, m]], start=1)
        ]
        last = points[-1]
        ends = {"training": last.train_loss, "validation": last.val_loss}
        if not len(val.labels):
            del ends["validation"]
        if broken := [name for name, end in ends.items() if not np.isfinite(end)]:
            became = f"the {broken[0]} loss became {ends[broken[0]]} in epoch {last.epoch}"
            trained.append(Trained(hyperparameters, None, None, points, f"diverged: {became}"))
            continue
        # Transpose [in, out] to PyTorch's [out, in]; a bias is [1, out].
        matrices = [np.ascontiguousarray(array[s, :, m].T) for array in arrays[0::2]]
        biases = [array[s, 0, m].copy() for array in arrays[1::2]]
        head = Head(matrices[-1], biases[-1], *matrices[:-1], *biases[:-1])
        status = "all epochs" if last.epoch == schedule.epochs else "stopped early"
        trained.append(Trained(hyperparameters, head, points[best_epoch[s, m] - 1], points, status))
    return trained


class _Stack:
    """A stack of S x M heads: their weights, predictions and updates.

    `weights` alternates the matrix and the bias of each layer, [S, in, M, out]; in = 1 for a bias.
    """

    def __init__(
        self,
        seeds: list[int],
        combinations: list[Hyperparameters],
        dimension: int,
        schedule: Schedule,
        loss: Loss,
        device: torch.device,
    ) -> None:
        self.loss = loss
        self.rate = _knob("learning_rate", combinations, device)
        self.decay = _knob("weight_decay", combinations, device)
        self.dropout = _knob("dropout", combinations, device)
        # Either all heads of a stack have dropout, or none.
        self.has_dropout = combinations[0].dropout > 0
        self.masks = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        width, classes = combinations[0].width, len(schedule.class_weights)
        drawn = [_initial_weights(seed, dimension, width, classes) for seed in seeds]
        self.weights = [
            torch.stack(tensors)[:, :, None]
            .repeat(1, 1, len(combinations), 1)
            .to(device)
            .requires_grad_()
            for tensors in zip(*drawn, strict=True)
        ]
        self.steps = 0
        # Heads with the same optimizer are adjacent; each tensor of weights has its own moments.
        self.optimizers: list[tuple[Rule, slice, list[Moments]]] = []
        start = 0
        for name, alike in groupby(one.optimizer for one in combinations):
            end = start + len(list(alike))
            self.optimizers.append((RULES[name], slice(start, end), [{} for _ in self.weights]))
            start = end

    def step(self, features: Tensor, labels: Tensor, importance: Tensor) -> Tensor:
        """Do one step of every head on its minibatch; return `Loss.measured`, [sums, S, M].

        Args:
            features: [S, b, d]
            labels: [S, b], or [S, b, c]
            importance: the weight of each row or cell, as in `descent_losses`
        """
        inputs = features
        if len(self.weights) == 4:
            inputs = _layer(features, *self.weights[:2]).relu_()
        if self.has_dropout:
            inputs = (inputs if inputs.dim() == 4 else inputs[:, :, None]) * self._keep(inputs)
        logits = _layer(inputs, *self.weights[-2:])
        lowered, totals = self.loss.lowered(logits, labels, importance)
        self._update(torch.autograd.grad(lowered.sum(), self.weights))
        return totals

    @torch.no_grad()
    def measure(self, rows: Rows) -> Tensor:
        """Return `Loss.measured`, [sums, S, M], of every head on all `rows`."""
        seeds, _, heads, _ = self.weights[-1].shape
        totals = torch.zeros(self.loss.sums, seeds, heads, device=rows.features.device)
        widest = max(tensor[0, 0].numel() for tensor in self.weights)
        at_once = max(1, STACK_LIMIT // (seeds * widest))
        for some in torch.arange(len(rows.labels), device=totals.device).split(at_once):
            outputs, labels = self.answers(rows.features[None, some]), rows.labels[None, some]
            labels = labels.expand(seeds, *labels.shape[1:])
            totals += self.loss.measured(outputs, labels, rows.importance[None, some].unsqueeze(2))
        return totals

    @torch.no_grad()
    def answers(self, outputs: Tensor) -> Tensor:
        """Return logits [S, b, M, c] of features [1, b, d]."""
        for layer in range(0, len(self.weights), 2):
            outputs = _layer(
                outputs.relu_() if layer else outputs, *self.weights[layer : layer + 2]
            )
        return outputs

    def _keep(self, inputs: Tensor) -> Tensor:
        """Return the dropout mask of inputs [S, b, (M,) in]; heads of a seed share draws."""
        shape = inputs.shape[1], 1, inputs.shape[-1]
        device = inputs.device
        draws = [torch.rand(shape, generator=mask, device=device) for mask in self.masks]
        return (torch.stack(draws) >= self.dropout) / (1 - self.dropout)

    @torch.no_grad()
    def _update(self, gradients: Sequence[Tensor]) -> None:
        self.steps += 1
        for rule, heads, moments in self.optimizers:
            rate, decay = self.rate[:, :, heads], self.decay[:, :, heads]
            for number, (weight, gradient) in enumerate(zip(self.weights, gradients, strict=True)):
                rule(
                    weight[:, :, heads],
                    gradient[:, :, heads],
                    moments[number],
                    self.steps,
                    rate,
                    decay if number % 2 == 0 else torch.zeros_like(decay),  # biases do not decay
                )


def _knob(name: str, combinations: Sequence[Hyperparameters], device: torch.device) -> Tensor:
    """Return a hyperparameter of each head, [1, 1, M, 1]."""
    values = [getattr(one, name) for one in combinations]
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, 1, -1, 1)


def _loss(
    combinations: Sequence[Hyperparameters],
    schedule: Schedule,
    mean_importance: Tensor,
    device: torch.device,
) -> Loss:
    """Return the loss of a stack; `mean_importance` is the argument of `Cells`."""
    smoothing = _knob("label_smoothing", combinations, device)
    return loss_of(schedule.loss, smoothing, schedule.class_weights, mean_importance)


def _initial_weights(seed: int, dimension: int, width: int, classes: int) -> list[Tensor]:
    """Return zeros for a linear head, or random weights as in `torch.nn.Linear` for two layers."""
    if not width:
        return [torch.zeros(dimension, classes), torch.zeros(1, classes)]
    generator = torch.Generator().manual_seed(seed)

    def draw(inputs: int, *shape: int) -> Tensor:
        bound = 1 / sqrt(inputs)
        return torch.empty(*shape).uniform_(-bound, bound, generator=generator)

    return [
        draw(dimension, dimension, width),
        draw(dimension, 1, width),
        draw(width, width, classes),
        draw(width, 1, classes),
    ]


def _layer(inputs: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """Apply a layer; return [S, b, M, out].

    Inputs [S, b, in], which the M heads share, need only one batched product. Inputs [1, b, in] are
    also shared by the S seeds; with inputs [S, b, M, in] each head has its own.
    """
    seeds, _, heads, outputs = matrix.shape
    if inputs.dim() == 4:
        return torch.einsum("sbmi,simo->sbmo", inputs, matrix).add_(bias)
    shared = inputs.expand(seeds, -1, -1)
    products = torch.baddbmm(bias.flatten(2), shared, matrix.flatten(2))
    return products.view(seeds, -1, heads, outputs)


Moments = dict[str, Tensor]
# Weight, gradient (may be overwritten), moments, number of the step, learning rate, weight decay.
# Weight and gradient are [S, in, m, out]; rate and decay are [1, 1, m, 1], one for each head.
Rule = Callable[[Tensor, Tensor, Moments, int, Tensor, Tensor], None]


def _sgd(
    weight: Tensor, gradient: Tensor, moments: Moments, step: int, rate: Tensor, decay: Tensor
) -> None:
    weight.mul_(1 - rate * decay).addcmul_(gradient, -rate)


def _momentum(
    weight: Tensor, gradient: Tensor, moments: Moments, step: int, rate: Tensor, decay: Tensor
) -> None:
    """Heavy ball with momentum 0.9, as in `torch.optim.SGD`."""
    if not moments:
        moments["velocity"] = torch.zeros_like(gradient)
    velocity = moments["velocity"].mul_(0.9).add_(gradient).addcmul_(weight, decay)
    weight.addcmul_(velocity, -rate)


def _adam(
    weight: Tensor, gradient: Tensor, moments: Moments, step: int, rate: Tensor, decay: Tensor
) -> None:
    """Adam (Kingma and Ba, arXiv:1412.6980); the decay is an L2 penalty in the gradient."""
    _adam_step(weight, gradient.addcmul_(weight, decay), moments, step, rate)


def _adamw(
    weight: Tensor, gradient: Tensor, moments: Moments, step: int, rate: Tensor, decay: Tensor
) -> None:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101): the decay is separate from the gradient."""
    weight.mul_(1 - rate * decay)
    _adam_step(weight, gradient, moments, step, rate)


def _adam_step(weight: Tensor, gradient: Tensor, moments: Moments, step: int, rate: Tensor) -> None:
    if not moments:
        moments.update(mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
    mean = moments["mean"].lerp_(gradient, 0.1)
    square = moments["square"].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    # Both bias corrections go into the rate, which has one number per head, not one per weight.
    correction = sqrt(1 - 0.999**step)
    divisor = square.sqrt().add_(1e-8 * correction)
    weight.addcmul_(mean.div(divisor), -rate * correction / (1 - 0.9**step))


RULES: dict[str, Rule] = {"sgd": _sgd, "momentum": _momentum, "adam": _adam, "adamw": _adamw}

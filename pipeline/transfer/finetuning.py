"""Training a network from examples to logits: the last blocks of a backbone with the head, or all.

Small adapters may learn in place of blocks (`lora.py`). Every epoch sees each training example
once, in a new view. After every epoch the state is written to a checkpoint in the feature store's
folder: a killed run goes on from its last whole epoch. On the CPU two runs with as many threads
give the same bytes, resumed or not; on a GPU they do not, for its sums come in no fixed order.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import DeviceError
from ..core.progress import Progress
from ..evaluation import spelt
from ..heads.head import Floats
from ..heads.losses import LOSSES
from ..heads.trained import Figures
from . import lora
from .checkpoint import checkpoint_file, resume, save
from .examples import Feed, Labelled
from .measure import measure
from .network import Network, blocks
from .objective import Objective
from .recipe import Recipe

AUTOCAST = torch.bfloat16  # has the range of float32, so that no loss need be scaled
UNMEASURED = Figures(0, *[math.nan] * 4)  # epoch 0 of a network that is not evaluated yet


@dataclass
class Trained:
    """What came of it: `curve` begins with epoch 0, `best` is the epoch of the lowest loss.

    `checkpoint` is the file to delete when the results are written.
    """

    curve: list[Figures]
    best: int
    status: str
    checkpoint: Path


def train_network(
    network: Network,
    train: Labelled,
    val: Labelled,
    start: Figures,
    feed: Feed,
    recipe: Recipe,
    device: torch.device,
    name: str,
) -> Trained:
    """Train in place, and keep the epoch of the lowest validation loss, or the last without any.

    A loss that is no longer finite ends the training; what was best until then is kept.

    Args:
        network: what to train; afterwards it has the weights of the best epoch, adapters merged.
        train: examples to learn from.
        val: examples to choose the epoch by; may be none.
        start: the figures of the network as it comes, epoch 0 of the curve.
        feed: what makes the examples' views.
        recipe: how to train.
        device: where.
        name: of the stage, for its progress.
    """
    if recipe.method == "lora":
        lora.insert(network.backbone, recipe.lora_rank, recipe.seed)
    network.to(device).to(memory_format=torch.channels_last)
    changing, optimizer = _unfrozen(network, recipe)
    checkpoint = checkpoint_file(network, train, val, feed.ranges, recipe, device)
    curve, best = [start], 0
    weights = {key: tensor.detach().clone() for key, tensor in changing.items()}
    if resumed := resume(checkpoint, changing, optimizer):
        curve, best, weights = resumed
        print(f"{name}: going on after epoch {curve[-1].epoch}, from {checkpoint}", flush=True)

    status = "all epochs"
    last = recipe.epochs if recipe.last is None else recipe.last
    with Progress(name, last * len(train.labels), feed.kind.nouns) as progress:
        progress.advance(curve[-1].epoch * len(train.labels))
        for epoch in range(curve[-1].epoch + 1, last + 1):
            trained = _epoch(network, optimizer, train, feed, recipe, epoch, progress)
            scores = (math.nan, math.nan)
            losses = {"training": trained[0]}
            if len(val.labels):
                logits = answers(network, val, feed, recipe.batch_size)
                scores = measure(logits, val.labels, recipe.class_weights, recipe.loss)
                losses["validation"] = scores[0]
            figures = Figures(epoch, *trained, *scores)
            bad = [which for which, loss in losses.items() if not math.isfinite(loss)]
            if bad:
                status = f"lost: the {bad[0]} loss became {losses[bad[0]]} in epoch {epoch}"
                print(f"{name}: warning: {status}; lower {name}.learning_rate", flush=True)
                break
            curve.append(figures)
            if not curve[best].val_loss <= figures.val_loss:  # may be NaN, which is no better
                best = epoch
                weights = {key: tensor.detach().clone() for key, tensor in changing.items()}
            save(checkpoint, curve, best, changing, weights, optimizer)
            line = ", ".join(f"{which} loss {loss:.4f}" for which, loss in losses.items())
            if len(val.labels):
                line += f", {spelt(LOSSES[recipe.loss].score)} {scores[1]:.4f}"
            print(f"{name}: epoch {epoch} of {last}: {line}", flush=True)
    with torch.no_grad():
        for key, tensor in changing.items():
            tensor.copy_(weights[key])
    lora.merge(network.backbone)
    return Trained(curve, best, status, checkpoint)


def _unfrozen(network: Network, recipe: Recipe) -> tuple[dict[str, Tensor], torch.optim.AdamW]:
    """Let the head and the last blocks, or adapters, learn; what changes, and its optimizer.

    Blocks before those need no gradient, so that nothing is kept for a way back through them.
    """
    network.requires_grad_(requires_grad=False).eval()
    all_blocks = blocks(network.backbone)
    count = len(all_blocks) if recipe.blocks is None else recipe.blocks
    last = all_blocks[max(0, len(all_blocks) - count) :]
    groups: list[dict[str, Any]] = []
    listed: set[int] = set()
    learning: list[nn.Module] = []
    from_the_end: list[list[nn.Module]] = [[network.head], *reversed(last)]
    if recipe.method == "lora":
        from_the_end = [[network.head, *lora.adapters(network.backbone)]]
    for depth, modules in enumerate(from_the_end):
        rate = recipe.learning_rate * recipe.layer_decay**depth
        weights = [
            tensor
            for module in modules
            for tensor in module.parameters()
            if id(tensor) not in listed  # a module may stand in several blocks
        ]
        listed |= {id(tensor) for tensor in weights}
        groups.append({"params": weights, "rate": rate, "lr": rate})
        learning += modules
    if recipe.blocks is None:  # weights that stand in no module, such as a class token
        rest = [tensor for tensor in network.parameters() if id(tensor) not in listed]
        if rest:
            groups.append({"params": rest, "rate": groups[-1]["rate"], "lr": groups[-1]["lr"]})
    for group in groups:
        for tensor in group["params"]:
            tensor.requires_grad_()
    follows = {id(buffer) for module in learning for buffer in module.buffers()}
    changing = {
        name: tensor
        for name, tensor in network.state_dict(keep_vars=True).items()
        if tensor.requires_grad or id(tensor) in follows
    }
    return changing, torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, foreach=False)


def _epoch(
    network: Network,
    optimizer: torch.optim.AdamW,
    train: Labelled,
    feed: Feed,
    recipe: Recipe,
    epoch: int,
    progress: Progress,
) -> tuple[float, float]:
    """One pass over the training examples; mean loss and accuracy (R²) as they were met."""
    device = next(network.parameters()).device
    count = len(train.labels)
    weights = np.array(recipe.class_weights, np.float32)
    objective = Objective(recipe.loss, weights, train.labels, device)
    order = np.random.default_rng([recipe.seed, epoch]).permutation(count)
    # Batches of nearly equal sizes: a last batch of one example would have no statistics.
    batches = np.array_split(order, -(-count // recipe.batch_size))
    _mode(network, recipe)
    wanted = (
        [
            (train.paths[i], train.digests[i], feed.training_view(train.digests[i], epoch))
            for i in rows
        ]
        for rows in batches
    )
    for step, (rows, seen) in enumerate(zip(batches, feed.batches(wanted), strict=True)):
        done = (epoch - 1 + step / len(batches)) / recipe.epochs
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * (1 + math.cos(math.pi * done)) / 2
        with _precision(device):
            logits = network(seen.to(device))
        loss = objective.lowered(logits.float(), torch.from_numpy(rows).to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress.advance(len(rows))
    return objective.figures()


def _mode(network: Network, recipe: Recipe) -> None:
    """Evaluation mode, but for the statistics that are to follow the examples.

    Dropout stays off: the blocks had been trained without their being shaken by this head.
    """
    network.eval()
    if recipe.batch_norm == "updated":
        for part in network.modules():
            learns = any(tensor.requires_grad for tensor in part.parameters(recurse=False))
            if learns and isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.train()


@contextmanager
def within_memory(parameters: str) -> Iterator[None]:
    """Name the `parameters` to lower if the GPU's memory does not suffice.

    Half the batch, as in `extract`, would train another network.

    Raises:
        DeviceError: it did not.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise DeviceError(
            f"GPU memory ran out: lower {parameters}, or set finetune.device to cpu"
        ) from None


def _precision(device: torch.device) -> "torch.autocast | nullcontext[None]":
    """Mixed precision on a GPU."""
    return torch.autocast("cuda", AUTOCAST) if device.type == "cuda" else nullcontext()


def answers(network: Network, asked: Labelled, feed: Feed, batch_size: int) -> Floats:
    """Logits [n, c] of the examples as they are."""
    device = next(network.parameters()).device
    network.eval()
    originals = [
        (p, d, feed.kind.original) for p, d in zip(asked.paths, asked.digests, strict=True)
    ]
    batches = (originals[i : i + batch_size] for i in range(0, len(originals), batch_size))
    with torch.inference_mode(), _precision(device):
        parts = [network(seen.to(device)).float().cpu() for seen in feed.batches(batches)]
    logits: Floats = torch.cat(parts).numpy()
    return logits

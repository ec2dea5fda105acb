"""Fine-tuning: train the head together with the last blocks of a backbone, or with all of them.

Small adapters can be trained instead of blocks (`lora.py`). Every epoch uses each training example
once, with augmentation in a new view. After every epoch the state is saved as a checkpoint in the
feature store's folder, so a killed run resumes after its last complete epoch. On the CPU, two runs
with the same number of threads have bit-identical results, resumed or not. On a GPU they do not,
because a GPU adds numbers up in no fixed order.
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

AUTOCAST = torch.bfloat16  # has the range of float32, so losses need no scaling
UNMEASURED = Figures(0, *[math.nan] * 4)  # epoch 0 of a network that was not evaluated yet


@dataclass
class Trained:
    """The result of a training run: `curve` starts with epoch 0, `best` is the epoch that was kept.

    `checkpoint` is the file to delete after the results are written.
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
    """Train in place, and keep the epoch with the lowest validation loss.

    Without validation examples the last epoch is kept. A loss that is not finite ends the training,
    and the best epoch so far is kept.

    Args:
        network: the network to train; afterwards it has the best epoch's weights, with the adapters
            merged into them.
        val: validation examples to choose the epoch; may be empty.
        start: metrics of the network before training, epoch 0 of the curve.
        feed: how examples become inputs.
    """
    if recipe.method == "lora":
        lora.insert(network.backbone, recipe.lora_rank, recipe.seed)
    network.to(device).to(memory_format=torch.channels_last)
    changing, optimizer = _unfrozen(network, recipe)
    checkpoint = checkpoint_file(network, train, val, feed, recipe, device)
    curve, best = [start], 0
    weights = {key: tensor.detach().clone() for key, tensor in changing.items()}
    if resumed := resume(checkpoint, changing, optimizer):
        curve, best, weights = resumed
        print(f"{name}: continuing after epoch {curve[-1].epoch}, from {checkpoint}", flush=True)

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
                status = f"diverged: the {bad[0]} loss became {losses[bad[0]]} in epoch {epoch}"
                progress.clear()
                print(f"{name}: warning: {status}; lower {name}.learning_rate", flush=True)
                break
            curve.append(figures)
            if not curve[best].val_loss <= figures.val_loss:  # also if one is NaN
                best = epoch
                weights = {key: tensor.detach().clone() for key, tensor in changing.items()}
            save(checkpoint, curve, best, changing, weights, optimizer)
            line = ", ".join(f"{which} loss {loss:.4f}" for which, loss in losses.items())
            if len(val.labels):
                line += f", {spelt(LOSSES[recipe.loss].score)} {scores[1]:.4f}"
            progress.clear()
            print(f"{name}: epoch {epoch} of {last}: {line}", flush=True)
    with torch.no_grad():
        for key, tensor in changing.items():
            tensor.copy_(weights[key])
    lora.merge(network.backbone)
    return Trained(curve, best, status, checkpoint)


def _unfrozen(network: Network, recipe: Recipe) -> tuple[dict[str, Tensor], torch.optim.AdamW]:
    """Unfreeze the head and the last blocks, or adapters; return their tensors and the optimizer.

    Earlier blocks need no gradient, so no activations are kept for a backward pass through them.
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
            if id(tensor) not in listed  # a module may be in several blocks
        ]
        listed |= {id(tensor) for tensor in weights}
        groups.append({"params": weights, "rate": rate, "lr": rate})
        learning += modules
    if recipe.blocks is None:  # weights outside these modules, such as a class token
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
    """Train one epoch; return mean loss and accuracy (R²) over its batches."""
    device = next(network.parameters()).device
    count = len(train.labels)
    weights = np.array(recipe.class_weights, np.float32)
    objective = Objective(recipe.loss, weights, train.labels, device)
    order = np.random.default_rng([recipe.seed, epoch]).permutation(count)
    # Batches have nearly equal sizes: a last batch of one example has no batch norm statistics.
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
    """Set evaluation mode, except for batch norm statistics that are to be updated.

    Dropout stays off, because the blocks were not pretrained with this head.
    """
    network.eval()
    if recipe.batch_norm == "updated":
        for part in network.modules():
            learns = any(tensor.requires_grad for tensor in part.parameters(recurse=False))
            if learns and isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.train()


@contextmanager
def within_memory(parameters: str) -> Iterator[None]:
    """Raise an error that names the `parameters` to lower if GPU memory runs out.

    The batch is not halved as in `extract`, because that would change the training.

    Raises:
        DeviceError: GPU memory ran out.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise DeviceError(
            f"GPU memory ran out: lower {parameters}, or set finetune.device to cpu"
        ) from None


def _precision(device: torch.device) -> "torch.autocast | nullcontext[None]":
    """Return the context for mixed precision on a GPU."""
    return torch.autocast("cuda", AUTOCAST) if device.type == "cuda" else nullcontext()


def answers(network: Network, asked: Labelled, feed: Feed, batch_size: int) -> Floats:
    """Return the logits [n, c] of the examples, which are not augmented."""
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

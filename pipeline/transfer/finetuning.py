"""Training a network from pictures to logits: the last blocks of a backbone with the head, or all.

Every epoch sees each training picture once, augmented anew. After every epoch the state is written
to a checkpoint in the feature store's folder: a killed run goes on from its last whole epoch.
On the CPU two runs with as many threads give the same bytes, resumed or not; on a GPU they do not,
for its sums come in no fixed order.
"""

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..augment import draw
from ..backbones import catalogue
from ..core.errors import DeviceError
from ..core.params import AugmentParams, ThawParams
from ..core.progress import Progress
from ..heads.fit import Figures
from ..heads.head import Floats, Head, probabilities
from ..kinds.image import decode, preprocess, views
from ..kinds.image.preprocess import Preprocessing
from ..kinds.image.views import ORIGINAL, View
from ..store.local import checkpoints_folder, replacing
from ..tasks.metrics import bootstrap, interval

LINEAR_BELOW = 1e-3  # features smaller than this are not raised to a power but scaled
AUTOCAST = torch.bfloat16  # has the range of float32, so that no loss need be scaled
RESAMPLES = 1000  # behind each interval
UNMEASURED = Figures(0, *[math.nan] * 4)  # epoch 0 of a network that nobody has asked yet
SAME_RUN = 2  # raise when this module comes to train otherwise: old checkpoints are then left alone


@dataclass(frozen=True)
class Recipe:
    """How to train. `blocks` is how many of the last ones learn beside the head, None for all.

    A block's learning rate is `layer_decay` times that of the block above it, the head's is
    `learning_rate` (discriminative fine-tuning: Howard and Ruder, ACL 2018); all fall to 0 on a
    cosine. `batch_norm` is `kept` (the statistics stay those of the weights that were loaded) or
    `updated` (those of the blocks that learn follow the new pictures). `class_weights` [c] weigh
    each class's pictures in the losses, of validation too. `last` ends the training after that
    epoch, with the learning rates of one that goes on to `epochs`; None is all of them.
    """

    blocks: int | None
    epochs: int
    batch_size: int
    learning_rate: float
    layer_decay: float
    weight_decay: float
    batch_norm: str
    seed: int
    class_weights: tuple[float, ...]
    last: int | None = None

    @classmethod
    def of(cls, settings: ThawParams, class_weights: Floats) -> "Recipe":
        """What the section `thaw` asks for."""
        knobs = settings.model_dump(exclude={"run", "device"})
        return cls(**knobs, class_weights=tuple(class_weights.tolist()))


@dataclass(frozen=True)
class Labelled:
    """Pictures of one split: `paths` and `digests` of length n, `labels` int64 [n]."""

    paths: list[str]
    digests: list[str]
    labels: npt.NDArray[np.int64]

    @classmethod
    def of(cls, manifest: pd.DataFrame, classes: list[str], split: str) -> "Labelled":
        """The pictures of `split`, sorted by digest."""
        rows = manifest[manifest["split"] == split].sort_values("digest")
        labels = pd.Index(classes).get_indexer(rows["label"]).astype(np.int64)
        return cls(rows["path"].tolist(), rows["digest"].tolist(), labels)

    def __add__(self, other: "Labelled") -> "Labelled":
        """Both, one after the other."""
        labels = np.concatenate([self.labels, other.labels])
        return Labelled(self.paths + other.paths, self.digests + other.digests, labels)


class Network(nn.Module):
    """A backbone, the power that its features are raised to, and a head."""

    def __init__(self, backbone: nn.Module, head: Head, power: float) -> None:
        """`backbone` maps uint8 pictures [n, side, side, 3] to features [n, d]."""
        super().__init__()
        self.backbone, self.power = backbone, power
        layers: list[nn.Module] = []
        if head.hidden_weight is not None and head.hidden_bias is not None:
            layers += [_linear(head.hidden_weight, head.hidden_bias), nn.ReLU()]
        self.head = nn.Sequential(*layers, _linear(head.weight, head.bias))

    def forward(self, seen: Tensor) -> Tensor:
        """Logits [n, c] of uint8 views [n, side, side, 3]."""
        features = self.backbone(seen)
        if torch.is_grad_enabled():
            raised = _raised(features, self.power)
        else:  # as every other place raises them, so that a bundle answers alike
            raised = features.sign() * features.abs() ** self.power
        logits: Tensor = self.head(raised)
        return logits

    def as_head(self) -> Head:
        """The head, as the frozen one is saved."""
        layers = [layer for layer in self.head if isinstance(layer, nn.Linear)]
        last_first = [array for layer in reversed(layers) for array in (layer.weight, layer.bias)]
        return Head(*(array.detach().cpu().numpy() for array in last_first))


def _linear(weight: Floats, bias: Floats) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer


def _raised(features: Tensor, power: float) -> Tensor:
    """As `power.raised`, but with a slope that is finite at 0, where networks like to be."""
    if power == 1:
        return features
    size = features.abs()
    powers = size.clamp(min=LINEAR_BELOW) ** power
    return features.sign() * torch.where(
        size < LINEAR_BELOW, size * LINEAR_BELOW ** (power - 1), powers
    )


def blocks(backbone: nn.Module) -> list[list[nn.Module]]:
    """The backbone's modules that have weights, in blocks from the picture to the features.

    A container in sequence is taken apart; layers that stand alone, such as a convolution and its
    normalisation, are one block with their neighbours.
    """
    found: list[list[nn.Module]] = []
    alone = False
    while len(inner := _with_weights(backbone.children())) == 1:  # a wrapper
        backbone = inner[0]
    for module in _with_weights(_parts(backbone)):
        is_layer = not _with_weights(module.children())
        if is_layer and alone:
            found[-1].append(module)
        else:
            found.append([module])
        alone = is_layer
    return found


def _with_weights(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return [module for module in modules if next(module.parameters(), None) is not None]


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _parts(child)
        else:
            yield child


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
    preprocessing: Preprocessing,
    ranges: AugmentParams,
    recipe: Recipe,
    device: torch.device,
    name: str,
) -> Trained:
    """Train in place, and keep the epoch of the lowest validation loss, or the last without any.

    A loss that is no longer finite ends the training; what was best until then is kept.

    Args:
        network: what to train; afterwards it has the weights of the best epoch.
        train: pictures to learn from.
        val: pictures to judge by; may be none.
        start: the figures of the network as it comes, epoch 0 of the curve.
        preprocessing: the backbone's.
        ranges: of the augmentation, which each epoch draws anew; none with `views` 0.
        recipe: how to train.
        device: where.
        name: of the stage, for its progress.
    """
    network.to(device).to(memory_format=torch.channels_last)
    changing, optimizer = _thawed(network, recipe)
    checkpoint = checkpoint_file(network, train, val, ranges, recipe, device)
    curve, best = [start], 0
    weights = {key: tensor.detach().clone() for key, tensor in changing.items()}
    if resumed := _resume(checkpoint, changing, optimizer):
        curve, best, weights = resumed
        print(f"{name}: going on after epoch {curve[-1].epoch}, from {checkpoint}", flush=True)

    status = "all epochs"
    last = recipe.epochs if recipe.last is None else recipe.last
    with Progress(name, last * len(train.labels), "pictures") as progress:
        progress.advance(curve[-1].epoch * len(train.labels))
        for epoch in range(curve[-1].epoch + 1, last + 1):
            trained = _epoch(
                network, optimizer, train, preprocessing, ranges, recipe, epoch, progress
            )
            judged = (math.nan, math.nan)
            losses = {"training": trained[0]}
            if len(val.labels):
                logits = answers(network, val, preprocessing, recipe.batch_size)
                judged = measure(logits, val.labels, recipe.class_weights)
                losses["validation"] = judged[0]
            figures = Figures(epoch, *trained, *judged)
            bad = [which for which, loss in losses.items() if not math.isfinite(loss)]
            if bad:
                status = f"lost: the {bad[0]} loss became {losses[bad[0]]} in epoch {epoch}"
                print(f"{name}: warning: {status}; lower {name}.learning_rate", flush=True)
                break
            curve.append(figures)
            if not curve[best].val_loss <= figures.val_loss:  # may be NaN, which is no better
                best = epoch
                weights = {key: tensor.detach().clone() for key, tensor in changing.items()}
            _save(checkpoint, curve, best, changing, weights, optimizer)
            told = ", ".join(f"{which} loss {loss:.4f}" for which, loss in losses.items())
            if len(val.labels):
                told += f", accuracy {judged[1]:.4f}"
            print(f"{name}: epoch {epoch} of {last}: {told}", flush=True)
    with torch.no_grad():
        for key, tensor in changing.items():
            tensor.copy_(weights[key])
    return Trained(curve, best, status, checkpoint)


def _thawed(network: Network, recipe: Recipe) -> tuple[dict[str, Tensor], torch.optim.AdamW]:
    """Let the last blocks and the head learn; the tensors that will change, and their optimizer.

    The blocks before them need no gradient, so that nothing is kept for a way back through them.
    """
    network.requires_grad_(requires_grad=False).eval()
    all_blocks = blocks(network.backbone)
    count = len(all_blocks) if recipe.blocks is None else recipe.blocks
    last = all_blocks[max(0, len(all_blocks) - count) :]
    groups: list[dict[str, Any]] = []
    listed: set[int] = set()
    learning: list[nn.Module] = []
    from_the_end: list[list[nn.Module]] = [[network.head], *reversed(last)]
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
    preprocessing: Preprocessing,
    ranges: AugmentParams,
    recipe: Recipe,
    epoch: int,
    progress: Progress,
) -> tuple[float, float]:
    """One pass over the training pictures; mean loss and accuracy as they were met."""
    device = next(network.parameters()).device
    count = len(train.labels)
    weights = torch.tensor(recipe.class_weights, device=device)
    order = np.random.default_rng([recipe.seed, epoch]).permutation(count)
    # Of nearly equal sizes: statistics of a last batch of one picture would be none.
    batches = np.array_split(order, -(-count // recipe.batch_size))
    _mode(network, recipe)
    total, right, weight = (torch.zeros((), device=device) for _ in range(3))
    wanted = (
        [
            (train.paths[i], train.digests[i], draw(train.digests[i], epoch, ranges))
            if ranges.views
            else (train.paths[i], train.digests[i], ORIGINAL)
            for i in rows
        ]
        for rows in batches
    )
    for step, (rows, seen) in enumerate(zip(batches, loaded(wanted, preprocessing), strict=True)):
        done = (epoch - 1 + step / len(batches)) / recipe.epochs
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * (1 + math.cos(math.pi * done)) / 2
        labels = torch.from_numpy(train.labels[rows]).to(device)
        with _precision(device):
            logits = network(seen.to(device))
        loss = nn.functional.cross_entropy(logits.float(), labels, weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach() * weights[labels].sum()
        weight += weights[labels].sum()
        right += (logits.detach().argmax(dim=1) == labels).sum()
        progress.advance(len(rows))
    return float(total / weight), float(right) / count


def _mode(network: Network, recipe: Recipe) -> None:
    """Evaluation mode, but for the statistics that are to follow the pictures.

    Dropout stays off: the blocks had been trained without their being shaken by this head.
    """
    network.eval()
    if recipe.batch_norm == "updated":
        for part in network.modules():
            learns = any(tensor.requires_grad for tensor in part.parameters(recurse=False))
            if learns and isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.train()


@contextmanager
def within_memory(knobs: str) -> Iterator[None]:
    """Name the `knobs` to lower where the GPU's memory does not suffice.

    Half the batch, as in `extract`, would train another network.

    Raises:
        DeviceError: it did not.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise DeviceError(f"GPU memory ran out: lower {knobs}, or set thaw.device to cpu") from None


def _precision(device: torch.device) -> "torch.autocast | nullcontext[None]":
    """Mixed precision on a GPU."""
    return torch.autocast("cuda", AUTOCAST) if device.type == "cuda" else nullcontext()


def loaded(
    wanted: Iterable[list[tuple[str, str, View]]], preprocessing: Preprocessing
) -> Iterator[Tensor]:
    """Batches of views, uint8 [n, side, side, 3]; the next is made while one is trained on."""

    def one(path: str, digest: str, view: View) -> npt.NDArray[np.uint8]:
        base = preprocess.base(decode.read(Path(path), digest), preprocessing)
        return preprocess.crop(views.apply(base, view), preprocessing.crop)

    def stacked(batch: "list[Future[npt.NDArray[np.uint8]]]") -> Tensor:
        return torch.from_numpy(np.stack([future.result() for future in batch]))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        coming: deque[list[Future[npt.NDArray[np.uint8]]]] = deque()
        for batch in wanted:
            coming.append([pool.submit(one, *asked) for asked in batch])
            if len(coming) > 1:
                yield stacked(coming.popleft())
        while coming:
            yield stacked(coming.popleft())


def answers(
    network: Network, asked: Labelled, preprocessing: Preprocessing, batch_size: int
) -> Floats:
    """Logits [n, c] of the pictures as they are."""
    device = next(network.parameters()).device
    network.eval()
    originals = [(p, d, ORIGINAL) for p, d in zip(asked.paths, asked.digests, strict=True)]
    batches = (originals[i : i + batch_size] for i in range(0, len(originals), batch_size))
    with torch.inference_mode(), _precision(device):
        parts = [network(seen.to(device)).float().cpu() for seen in loaded(batches, preprocessing)]
    logits: Floats = torch.cat(parts).numpy()
    return logits


def measure(
    logits: Floats, labels: npt.NDArray[np.int64], class_weights: Sequence[float] | None = None
) -> tuple[float, float]:
    """Mean cross-entropy, weighted by the labels' classes, and accuracy; NaN without pictures."""
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float64)
    loss = nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(labels), weights
    )
    return float(loss), float((logits.argmax(axis=1) == labels).mean())


def figures_of(logits: Floats, labels: npt.NDArray[np.int64], confidence: float) -> dict[str, Any]:
    """Loss, accuracy and the ends of the accuracy's bootstrap interval, as reports have them."""
    loss, accuracy = measure(logits, labels)
    shares = probabilities(logits)
    resampled = bootstrap(labels, shares, 1, 1, RESAMPLES, 0).overall["accuracy"]
    low, high = interval(resampled, confidence)
    named = {"loss": loss, "accuracy": accuracy, "low": float(low), "high": float(high)}
    return {name: float(f"{value:.6g}") for name, value in named.items()}


def write_curve(curve: list[Figures], file: Path) -> None:
    """A row an epoch; what an epoch does not have stays empty."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([asdict(figures) for figures in curve])
    table.to_csv(file, index=False, float_format="%.6g", lineterminator="\n")


def checkpoint_file(
    network: Network,
    train: Labelled,
    val: Labelled,
    ranges: AugmentParams,
    recipe: Recipe,
    device: torch.device,
) -> Path:
    """Where a run's checkpoint is: its name stands for all that decides what the run does.

    It is in the feature store's folder, not among DVC's outputs, which DVC deletes before a run.
    """
    told = [SAME_RUN, torch.__version__, device.type, torch.get_num_threads()]
    told += [asdict(recipe), ranges.model_dump()]
    told += [[split.digests, split.labels.tolist()] for split in (train, val)]
    sha = hashlib.sha256(json.dumps(told).encode())
    for name, tensor in network.state_dict().items():
        sha.update(name.encode())
        sha.update(tensor.cpu().contiguous().numpy().tobytes())
    return checkpoints_folder() / f"{sha.hexdigest()}.safetensors"


def _save(
    file: Path,
    curve: list[Figures],
    best: int,
    changing: dict[str, Tensor],
    weights: dict[str, Tensor],
    optimizer: torch.optim.AdamW,
) -> None:
    """Write all that the next epoch needs, whole or not at all."""
    tensors = {f"now/{key}": tensor.detach() for key, tensor in changing.items()}
    tensors |= {f"best/{key}": tensor for key, tensor in weights.items()}
    for key, tensor in changing.items():
        for moment, value in optimizer.state.get(tensor, {}).items():
            tensors[f"{moment}/{key}"] = value
    notes = {"curve": [asdict(figures) for figures in curve], "best": best}
    with replacing(file) as unfinished:
        catalogue.save_tensors(tensors, unfinished, {"notes": json.dumps(notes)})


def _resume(
    file: Path, changing: dict[str, Tensor], optimizer: torch.optim.AdamW
) -> tuple[list[Figures], int, dict[str, Tensor]] | None:
    """Take up what `_save` wrote; None where there is no checkpoint, or a damaged one."""
    if not file.exists():
        return None
    try:
        with safe_open(file, "pt") as opened:
            notes = json.loads(opened.metadata()["notes"])
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        print(f"{file} is damaged ({type(error).__name__}), so training begins anew")
        return None
    weights = {}
    with torch.no_grad():
        for key, tensor in changing.items():
            tensor.copy_(tensors[f"now/{key}"])
            weights[key] = torch.empty_like(tensor).copy_(tensors[f"best/{key}"])
            if f"step/{key}" in tensors:
                optimizer.state[tensor] = {
                    "step": tensors[f"step/{key}"],
                    "exp_avg": torch.empty_like(tensor).copy_(tensors[f"exp_avg/{key}"]),
                    "exp_avg_sq": torch.empty_like(tensor).copy_(tensors[f"exp_avg_sq/{key}"]),
                }
    return [Figures(**figures) for figures in notes["curve"]], notes["best"], weights

"""Optional stage, rank: which backbone suits these examples, from the feature store.

Each candidate gets a linear head whose L2 penalty is tuned for it: with one penalty for all, the
order says more about the penalty than about the backbones (Kornblith et al., CVPR 2019). Views that
the store has are not computed again, so that a second look is free.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from . import kinds
from .backbones import exports
from .backbones.engines import Engine, open_engines
from .core import command, packages, params, plugins
from .core.backbone import Backbone
from .core.paths import MANIFEST, RANK, RANK_SPEED
from .evaluation import comparing
from .heads.trained import Trained, order
from .runners.threads import batches, features_of
from .runners.wanted import originals
from .tables import joined, targets
from .tables.features import Split
from .tables.labels import require
from .tables.manifest import kind_in, read_manifest, task_in
from .transfer.choice import difference
from .transfer.logme import logme
from .transfer.quick_head import decays_for, quick_heads, units_for

DECAYS = np.geomspace(1e-4, 10, 11).tolist()  # L2 penalties that each candidate's head may have


def rank() -> None:
    """Look at the training and validation examples through each backbone and write two tables."""
    settings = params.load(kinds.schema)
    extracting, power = settings.extract, settings.train.power
    kind = kinds.named(kind_in(MANIFEST))
    manifest = read_manifest(MANIFEST)
    task, names = task_in(MANIFEST), targets.names(manifest)
    require(manifest, "rank")
    examples = manifest[manifest["split"].isin(["train", "val"])]
    measure = f"val_{comparing.measure(task)}"
    candidates = list(dict.fromkeys(settings.rank.backbones))
    for one in (one for each in candidates for one in Backbone.candidate(each).each):
        if one.has_graph:
            continue
        packages.need("torch", "rank")  # before any is computed
        from .backbones import catalogue

        catalogue.stop_if_unknown(str(one))
    rows, speeds = [], []
    losses: dict[str, npt.NDArray[np.float64]] = {}
    for candidate in candidates:
        backbone = Backbone.candidate(candidate)
        if candidate == extracting.backbone and extracting.weights != "random":
            backbone = extracting.network  # as it is used
        name, weights = str(backbone), backbone.weights
        changes = {"backbone": name, "weights": weights, "pooling": backbone.pooling}
        asked = extracting.model_copy(update=changes)
        engines = open_engines(asked, kind)
        splits, computed = originals(examples, names, engines, asked.batch_size, power)
        reused = len(examples) * len(engines) - computed
        print(f"rank: {candidate}: {reused} views reused, {computed} computed")
        counts = engines[0].takes == "terms"
        head = quick_head(splits["train"], splits["val"], task, len(names), counts)
        rows.append(
            {"backbone": candidate}
            | measured(head, splits, task, settings.rank.confidence)
            | described(name, weights, engines, splits["train"].features.shape[1])
        )
        losses[candidate] = surprise(head, splits, task)
        speeds.append((candidate, speed(examples, engines, asked.batch_size), engines[0].name))
        print(
            f"rank: {candidate}: validation {comparing.words(task)} {rows[-1][measure]:.4f}, "
            f"LogME {rows[-1]['logme']:.3f}, {speeds[-1][1]} views a second"
        )
    # Of equal accuracies the lower loss is better: it also says by how much each was right.
    table = pd.DataFrame(rows).sort_values([measure, "val_loss"], ascending=[False, True])
    RANK.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(RANK, index=False, float_format="%.6g", lineterminator="\n")
    say_if_better(losses, extracting.backbone, settings.rank.confidence)
    timings = pd.DataFrame(speeds, columns=["backbone", "views_per_second", "engine"])
    timings.to_csv(RANK_SPEED, index=False, lineterminator="\n")


def surprise(head: Trained, splits: dict[str, Split], task: str) -> npt.NDArray[np.float64]:
    """The loss of each validation example of which a label is known, [n]."""
    assert head.head is not None  # noqa: S101 (L-BFGS loses none)
    val, units = splits["val"], units_for(task, splits["train"].labels)
    losses = comparing.surprise(task, head.head.logits(val.features), val.labels, units)
    return losses[~np.isnan(losses)]


def say_if_better(
    losses: dict[str, npt.NDArray[np.float64]], current: str, confidence: float
) -> None:
    """Say which candidate, if any, loses significantly less than `extract.backbone` does."""
    if current not in losses:
        return
    best = min(losses, key=lambda name: losses[name].mean())
    apart = difference(losses[current], losses[best], confidence)
    if apart.low > 0:
        print(
            f"rank: {best} would now be significantly better than extract.backbone {current}: its"
            f" validation loss is lower by {apart.low:.4f} to {apart.high:.4f}; `headstart choose`"
            " compares both by cross-validation"
        )


def quick_head(rows: Split, val: Split, task: str, outputs: int, counts: bool = False) -> Trained:
    """The quick head with the penalty of the lowest validation loss."""
    decays = decays_for(task, DECAYS)
    return min(quick_heads(rows, val, task, outputs, decays, counts), key=order)


def measured(
    best: Trained, splits: dict[str, Split], task: str, confidence: float
) -> dict[str, Any]:
    """The head's validation figures, with the measure's interval, and the features' LogME."""
    rows, val = splits["train"], splits["val"]
    assert best.head is not None and best.kept is not None  # noqa: S101, PT018 (L-BFGS loses none)
    found = comparing.judged(task, best.head.logits(val.features), val.labels, confidence)
    units = units_for(task, rows.labels)
    learned = rows.labels if units is None else units.learned(rows.labels)
    return {
        f"val_{comparing.measure(task)}": found.value,
        "low": found.low,
        "high": found.high,
        "val_loss": best.kept.val_loss,
        "weight_decay": best.hyperparameters.weight_decay,
        "logme": logme(best.head.seen(rows.features), learned, len(best.head.bias)),
    }


def described(backbone: str, weights: str, engines: list[Engine], dimension: int) -> dict[str, Any]:
    """What the backbone is: features, side of its input, parameters, megabytes, licence."""
    names = joined.names(backbone)
    parameters = sum(size(name) for name in names)
    sides = [getattr(engine.preprocessing, "crop", "") for engine in engines]
    return {
        "features": dimension,
        "pixels": sides[0] if len(sides) == 1 else "+".join(map(str, sides)),
        "parameters": parameters,
        "megabytes": round(4 * parameters / 1e6, 1),  # as float32
        "licence": ", ".join(dict.fromkeys(exports.licence(name, weights) for name in names)),
    }


def size(name: str) -> int:
    """How many parameters a network has, whatever its weights."""
    if exports.is_graph(name):
        return exports.parameters(exports.exported(name, "pretrained"))
    from .backbones import catalogue

    weights = "pretrained" if plugins.is_plugin(name) else "random"
    module = catalogue.load(name, weights).module
    return sum(tensor.numel() for tensor in module.parameters())


def speed(examples: pd.DataFrame, engines: list[Engine], batch_size: int) -> float:
    """Views a second from decoding to feature on all cores, as `extract` goes about it.

    The best of three goes: what else the machine does can only make one slower.
    """
    cores = os.cpu_count() or 1
    kind = engines[0].kind
    original = dict(zip(kind.view_columns, kind.original, strict=True))
    some = examples.head(cores * batch_size).assign(view=0, **original, key=b"")
    parts = list(batches(some, -(-len(some) // cores)))
    work = [partial(features_of, engine=engine, batch_size=batch_size) for engine in engines]
    seconds = []
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(3):
            start = time.monotonic()
            for look in work:
                list(pool.map(look, parts))
            seconds.append(time.monotonic() - start)
    return round(len(some) / min(seconds), 1)


if __name__ == "__main__":
    command.run(rank)

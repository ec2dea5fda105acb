"""Optional stage, from_scratch: train the same network from random weights, to measure transfer.

The network gets the budget of `finetune`: the same examples, augmentation, number of epochs and
batch size. All layers are trained, and batch normalisation updates its statistics, since there are
no pretrained ones to keep. The loss in regression is the squared error. The stage compares the
network with a linear probe on the features of the frozen network, on the same examples. If the
network from random weights is better, transfer was negative.
"""

from .core import command

command.need("torch", "from_scratch")

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from . import kinds
from .backbones import catalogue
from .core import params
from .core.errors import TrainingError
from .core.paths import FEATURES, FROM_SCRATCH, FROM_SCRATCH_CURVE, MANIFEST
from .evaluation import comparing
from .heads.fit import class_weights, device_for
from .heads.head import Head
from .heads.trained import order
from .tables import targets
from .tables.features import read_splits
from .tables.labels import require
from .tables.manifest import groups_at, kind_in, read_manifest, task_in
from .transfer import finetuning
from .transfer.examples import Feed, Labelled
from .transfer.finetuning import UNMEASURED
from .transfer.goal import Goal
from .transfer.measure import figures_of, gain, write_curve
from .transfer.network import Network
from .transfer.quick_head import DECAYS, decays_for, quick_heads
from .transfer.recipe import Recipe


@finetuning.within_memory("finetune.batch_size")
def from_scratch() -> None:
    """Train the whole network from random weights; write its metrics and its training curve."""
    settings = params.load(kinds.schema)
    budget, confidence = settings.finetune, settings.evaluate.confidence
    task = task_in(MANIFEST)
    device = torch.device(device_for(budget.device, descends=True, parameter="finetune.device"))
    manifest = read_manifest(MANIFEST)
    names = targets.names(manifest)
    require(manifest, "from_scratch")
    examples = {name: Labelled.of(manifest, names, name) for name in ("train", "val", "test")}
    goal = Goal.of(task, "squared", examples["train"].labels)
    examples = {name: some.towards(goal) for name, some in examples.items()}
    splits = read_splits(FEATURES, manifest, names, list(examples), settings.train.power)
    rows = splits["train"].take(splits["train"].views == 0)
    probes = quick_heads(rows, splits["val"], task, len(names), decays_for(task, DECAYS))
    probe = min(probes, key=order).head
    assert probe is not None  # noqa: S101 (L-BFGS does not diverge)
    probe = goal.entered(probe)
    backbone = catalogue.load(replace(settings.extract.network, weights="random", pooling="auto"))
    head = Head(
        np.zeros((len(names), backbone.dimension), np.float32),
        np.zeros(len(names), np.float32),
    )
    feed = Feed(kinds.named(kind_in(MANIFEST)), backbone.preprocessing, settings.augment)
    network = Network(backbone.module, head, power=1)
    weights = class_weights(settings.train.class_weights, examples["train"].labels, len(names))
    recipe = replace(
        Recipe.of(budget, weights, goal.loss),
        method="blocks",
        blocks=None,
        learning_rate=settings.from_scratch.learning_rate,
        layer_decay=1.0,
        batch_norm="updated",
    )
    trained = finetuning.train_network(
        network,
        examples["train"],
        examples["val"],
        UNMEASURED,
        feed,
        recipe,
        device,
        "from_scratch",
    )
    if not trained.best:
        raise TrainingError(
            f"training from random weights {trained.status}; lower from_scratch.learning_rate"
        )
    report: dict[str, Any] = {"epoch": trained.best, "status": trained.status}
    gained = ""
    for split, name in (("val", "validation"), ("test", "test")):
        labels = examples[split].labels
        report[name] = {"pictures": len(labels)}
        if len(labels):
            logits = finetuning.answers(network, examples[split], feed, budget.batch_size)
            frozen = probe.logits(splits[split].features)
            how = labels, confidence, goal, groups_at(manifest, splits[split].digests)
            report[name] |= figures_of(logits, *how)
            report[name]["linear_probe"] = figures_of(frozen, *how)
            report[name]["gain"], words = gain(frozen, logits, *how)
            gained = f"from_scratch: on {len(labels)} {name} examples {words}"
    FROM_SCRATCH.parent.mkdir(parents=True, exist_ok=True)
    FROM_SCRATCH.write_text(json.dumps({"from_scratch": report}, indent=2) + "\n", encoding="utf-8")
    write_curve(trained.curve[1:], FROM_SCRATCH_CURVE, goal.loss)
    trained.checkpoint.unlink(missing_ok=True)
    kept = report["validation"]
    print(
        f"from_scratch: validation loss {kept['loss']:.4f}, {comparing.words(task)}"
        f" {kept[comparing.measure(task)]:.4f}; linear probe on the frozen network"
        f" {kept['linear_probe'][comparing.measure(task)]:.4f}"
    )
    print(gained)


if __name__ == "__main__":
    command.run(from_scratch)

"""Optional stage, scratch: the same network from random weights, to see what transfer is worth.

It gets the budget of `thaw`: the same pictures, augmented alike, as many epochs, the same batches.
All of it learns, and its statistics follow the pictures, since there are none to keep.
"""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from .backbones import catalogue
from .core import command, params
from .core.errors import DataError, TrainingError
from .core.paths import MANIFEST, SCRATCH, SCRATCH_CURVE
from .heads.head import Head
from .tables.features import read_manifest
from .train import class_names, class_weights, device_for
from .transfer import finetuning
from .transfer.finetuning import UNMEASURED, Labelled, Network, Recipe


@finetuning.within_memory("thaw.batch_size")
def scratch() -> None:
    """Train all of the network from random weights; write its figures and its curve."""
    settings, budget = params.load().scratch, params.load().thaw
    ranges, extracting = params.load().augment, params.load().extract
    weighing = params.load().train.class_weights
    confidence = params.load().evaluate.confidence
    device = torch.device(device_for(budget.device, descends=True, parameter="thaw.device"))
    manifest = read_manifest(MANIFEST)
    classes = class_names(manifest)
    pictures = {name: Labelled.of(manifest, classes, name) for name in ("train", "val", "test")}
    if not pictures["val"].digests:
        raise DataError(
            f"{MANIFEST} has no validation picture to judge by; give ingest.shares.val more than 0"
        )
    backbone = catalogue.load(extracting.backbone, "random")
    head = Head(
        np.zeros((len(classes), backbone.dimension), np.float32),
        np.zeros(len(classes), np.float32),
    )
    network = Network(backbone.module, head, power=1)
    weights = class_weights(weighing, pictures["train"].labels, len(classes))
    recipe = replace(
        Recipe.of(budget, weights),
        blocks=None,
        learning_rate=settings.learning_rate,
        layer_decay=1.0,
        batch_norm="updated",
    )
    trained = finetuning.train_network(
        network,
        pictures["train"],
        pictures["val"],
        UNMEASURED,
        backbone.preprocessing,
        ranges,
        recipe,
        device,
        "scratch",
    )
    if not trained.best:
        raise TrainingError(f"nothing came of training from random weights: {trained.status}")
    report: dict[str, Any] = {"epoch": trained.best, "status": trained.status}
    for split, name in (("val", "validation"), ("test", "test")):
        labels = pictures[split].labels
        report[name] = {"pictures": len(labels)}
        if len(labels):
            logits = finetuning.answers(
                network, pictures[split], backbone.preprocessing, budget.batch_size
            )
            report[name] |= finetuning.figures_of(logits, labels, confidence)
    SCRATCH.parent.mkdir(parents=True, exist_ok=True)
    SCRATCH.write_text(json.dumps({"from_scratch": report}, indent=2) + "\n", encoding="utf-8")
    finetuning.write_curve(trained.curve[1:], SCRATCH_CURVE)
    trained.checkpoint.unlink(missing_ok=True)
    kept = report["validation"]
    print(f"scratch: validation loss {kept['loss']:.4f}, accuracy {kept['accuracy']:.4f}")


if __name__ == "__main__":
    command.run(scratch)

"""Optional stage, finetune: train the last blocks of the backbone, once the head has converged.

In a text encoder, small adapters can be trained instead of blocks (`finetune.method`: lora). The
chosen head is first trained on the features of the training examples alone. Then head and backbone
are trained together on these examples. The result is used only if it is better on validation
examples. If it is used and `train.refit` is true, head and backbone are trained again, on training
and validation examples.
"""

from .core import command

command.need("torch", "finetune")

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from . import kinds
from .backbones import catalogue
from .core import params
from .core.errors import TrainingError
from .core.paths import (
    FEATURES,
    FINETUNE,
    FINETUNE_CURVE,
    FINETUNED,
    HEAD,
    HEAD_WEIGHTS,
    MANIFEST,
)
from .evaluation import spelt
from .heads.calibration import calibrated
from .heads.description import HeadDescription
from .heads.fit import class_weights, device_for, fit_heads
from .heads.head import (
    Floats,
    Head,
    load_head,
    save_head,
    with_priors,
    without_priors,
)
from .heads.hyperparameters import Hyperparameters
from .heads.losses import LOSSES
from .heads.trained import Figures, Schedule, with_figures
from .tables.features import Split, read_splits
from .tables.labels import require
from .tables.manifest import groups_at, kind_in, read_manifest, task_in
from .transfer import finetuning
from .transfer.examples import Feed, Labelled
from .transfer.finetuning import UNMEASURED
from .transfer.goal import CLASSES, Goal
from .transfer.measure import figures_of, gain, measure, write_curve
from .transfer.network import Network
from .transfer.recipe import Recipe

NO_SETS = "they were calibrated for the frozen network, not for the finetuned one"


@finetuning.within_memory("finetune.batch_size or finetune.blocks")
def finetune() -> None:
    """Train the head, then the network; keep the better of the frozen and the finetuned network."""
    settings = params.load(kinds.schema)
    extracting, training = settings.extract, settings.train
    budget, confidence = settings.finetune, settings.evaluate.confidence
    device = torch.device(device_for(budget.device, descends=True, parameter="finetune.device"))
    manifest = read_manifest(MANIFEST)
    require(manifest, "finetune")
    chosen, about = load_head(HEAD_WEIGHTS, HEAD)
    about.require_task(task_in(MANIFEST))
    chosen = without_priors(chosen, about.calibration)
    names, power = about.classes, about.power
    splits = read_splits(FEATURES, manifest, names, ["train", "val", "test"], power)
    rows, val = splits["train"], splits["val"]
    goal = Goal.of(task_in(MANIFEST), about.loss or "squared", rows.labels)
    weights = class_weights(training.class_weights, rows.labels, len(names))
    hyperparameters, epochs = about.trained_with()
    schedule = Schedule(epochs, training.batch_size, 0, weights, loss=goal.loss)
    head = goal.entered(converged(hyperparameters, rows, val, schedule))
    frozen = {name: head.logits(splits[name].features) for name in ("val", "test")}
    examples = {name: Labelled.of(manifest, names, name).towards(goal) for name in splits}
    loss, accuracy = measure(frozen["val"], goal.labels(val.labels), weights.tolist(), goal.loss)

    backbone = catalogue.to_train(extracting.network)
    feed = Feed(kinds.named(kind_in(MANIFEST)), backbone.preprocessing, settings.augment)
    network = Network(backbone.module, head, power)
    recipe = Recipe.of(budget, weights, goal.loss)
    trained = finetuning.train_network(
        network,
        examples["train"],
        examples["val"],
        Figures(0, math.nan, math.nan, loss, accuracy),
        feed,
        recipe,
        device,
        "finetune",
    )
    kept = trained.curve[trained.best]
    taken = kept.val_loss < loss and kept.val_accuracy >= accuracy
    report: dict[str, Any] = {"taken": taken, "epoch": trained.best, "status": trained.status}
    finetuned: dict[str, Floats] = {}
    groups = {name: groups_at(manifest, splits[name].digests) for name in ("val", "test")}
    gained = ""
    for split, name in (("val", "validation"), ("test", "test")):
        labels = goal.labels(splits[split].labels)
        report[name] = {"pictures": len(labels)}
        if len(labels):
            finetuned[split] = finetuning.answers(network, examples[split], feed, budget.batch_size)
            how = labels, confidence, goal, groups[split]
            report[name]["frozen"] = figures_of(frozen[split], *how)
            report[name]["finetuned"] = figures_of(finetuned[split], *how)
            report[name]["gain"], words = gain(frozen[split], finetuned[split], *how)
            gained = f"finetune: on {len(labels)} {name} examples {words}"
    checkpoints = [trained.checkpoint]
    if taken:
        about = replace(
            with_figures(about.without_sets(NO_SETS), kept, len(val.labels), goal.loss),
            calibration=calibrated(finetuned["val"], val.labels, goal.task, weights),
            notes=about.notes | {"finetuned": True},
        )
    if taken and about.refit:
        backbone = catalogue.to_train(extracting.network)  # with its original weights
        network = Network(backbone.module, goal.entered(chosen), power)
        both, recipe = examples["train"] + examples["val"], replace(recipe, last=trained.best)
        checkpoints.append(refit(network, both, feed, recipe, device))
        if len(splits["test"].labels):
            logits = finetuning.answers(network, examples["test"], feed, budget.batch_size)
            labels = goal.labels(splits["test"].labels)
            measured = figures_of(logits, labels, confidence, goal, groups["test"])
            report["test"]["refit"] = measured
    FINETUNE.parent.mkdir(parents=True, exist_ok=True)
    FINETUNE.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    write_curve(trained.curve, FINETUNE_CURVE, goal.loss)
    save(network, taken, about, goal)
    for checkpoint in checkpoints:
        checkpoint.unlink(missing_ok=True)
    words = "finetuned network is chosen" if taken else "frozen network is kept"
    score = spelt(LOSSES[goal.loss].score)
    print(
        f"finetune: the {words}; on {len(val.labels)} validation examples, the frozen one has loss"
        f" {loss:.4f} and {score} {accuracy:.4f}, the finetuned one (epoch {trained.best}) loss"
        f" {kept.val_loss:.4f} and {score} {kept.val_accuracy:.4f}"
    )
    print(gained)


def converged(
    hyperparameters: Hyperparameters, rows: Split, val: Split, schedule: Schedule
) -> Head:
    """Return the head that `models/head.json` describes, trained on training examples only.

    The two networks are compared on the validation examples, so the frozen one must not profit
    from `train.refit`.
    """
    (one,) = fit_heads(rows, val, [hyperparameters], schedule, "cpu")
    if one.head is None:
        raise TrainingError(f"the initial head {one.status}; {hyperparameters.remedy}")
    return one.head


def refit(
    network: Network,
    both: Labelled,
    feed: Feed,
    recipe: Recipe,
    device: torch.device,
) -> Path:
    """Train on training and validation examples together, as `train.refit` does with the head.

    Args:
        network: the network with a head that was trained on both; trained in place.
        both: training and validation examples.
        feed: the source of the examples' views.
        recipe: the recipe; its `last` is the epoch that was chosen on validation examples.

    Returns:
        The checkpoint.

    Raises:
        TrainingError: the loss did not stay finite.
    """
    print(
        "finetune: the finetuned network is chosen and trained again, with validation examples too"
        " (train.refit)",
        flush=True,
    )
    none = Labelled([], [], both.labels[:0])
    trained = finetuning.train_network(
        network, both, none, UNMEASURED, feed, recipe, device, "finetune"
    )
    if trained.best != recipe.last:
        trained.checkpoint.unlink(missing_ok=True)
        raise TrainingError(
            "when the finetuned network was trained again on training and validation examples, it"
            f" {trained.status}; set train.refit to false"
        )
    return trained.checkpoint


def save(network: Network, taken: bool, about: HeadDescription, goal: Goal = CLASSES) -> None:
    """Write whether the finetuned network is used, and its backbone and head if it is.

    `about` describes the head, in the format of `models/head.json`. The head is written so that it
    predicts in the units of the labels.
    """
    FINETUNED.mkdir(parents=True, exist_ok=True)
    for file in FINETUNED.iterdir():
        file.unlink()
    (FINETUNED / "taken.json").write_text(json.dumps(taken) + "\n", encoding="utf-8")
    if taken:
        catalogue.save_tensors(network.backbone.state_dict(), FINETUNED / "backbone.safetensors")
        head = with_priors(goal.left(network.as_head()), about.calibration)
        save_head(head, about, FINETUNED / "head.safetensors", FINETUNED / "head.json")


if __name__ == "__main__":
    command.run(finetune)

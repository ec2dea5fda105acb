"""Optional stage, thaw: the last blocks of the backbone learn too, once the head has converged.

The chosen head, trained on training pictures alone, and the backbone go on together from pictures.
What comes of it is taken only where validation says that it is better; then both learn once more,
from validation pictures too.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .backbones import catalogue
from .core import command, params
from .core.errors import DataError, TrainingError
from .core.params import AugmentParams
from .core.paths import FEATURES, HEAD, HEAD_WEIGHTS, MANIFEST, THAW, THAW_CURVE, THAWED
from .heads import fit
from .heads.fit import Figures, Knobs, Schedule
from .heads.head import Floats, Head, fit_temperature, load_head, save_head
from .kinds.image.preprocess import Preprocessing
from .tables.features import Split, read_manifest, read_splits
from .train import class_weights, device_for, kept_figures
from .transfer import finetuning
from .transfer.finetuning import UNMEASURED, Labelled, Network, Recipe


@finetuning.within_memory("thaw.batch_size or thaw.blocks")
def thaw() -> None:
    """Train the head, then its network; compare the two and keep the better."""
    settings, ranges = params.load().thaw, params.load().augment
    extracting, weighing = params.load().extract, params.load().train
    confidence = params.load().evaluate.confidence
    device = torch.device(device_for(settings.device, descends=True, parameter="thaw.device"))
    manifest = read_manifest(MANIFEST)
    chosen, about = load_head(HEAD_WEIGHTS, HEAD)
    classes, power = about["classes"], about["power"]
    splits = read_splits(FEATURES, manifest, classes, ["train", "val", "test"], power)
    rows, val = splits["train"], splits["val"]
    if not len(val.labels):
        raise DataError(
            f"{MANIFEST} has no validation picture to judge by; give ingest.shares.val more than 0"
        )
    weights = class_weights(weighing.class_weights, rows.labels, len(classes))
    schedule = Schedule(about["epoch"], weighing.batch_size, 0, weights)
    head = converged(about, rows, val, schedule)
    frozen = {name: head.logits(splits[name].features) for name in ("val", "test")}
    loss, accuracy = finetuning.measure(frozen["val"], val.labels, weights.tolist())

    backbone = catalogue.load(extracting.backbone, extracting.weights)
    network = Network(backbone.module, head, power)
    pictures = {name: Labelled.of(manifest, classes, name) for name in splits}
    recipe = Recipe.of(settings, weights)
    trained = finetuning.train_network(
        network,
        pictures["train"],
        pictures["val"],
        Figures(0, math.nan, math.nan, loss, accuracy),
        backbone.preprocessing,
        ranges,
        recipe,
        device,
        "thaw",
    )
    kept = trained.curve[trained.best]
    taken = kept.val_loss < loss and kept.val_accuracy >= accuracy
    report: dict[str, Any] = {"taken": taken, "epoch": trained.best, "status": trained.status}
    thawed: dict[str, Floats] = {}
    for split, name in (("val", "validation"), ("test", "test")):
        labels = splits[split].labels
        report[name] = {"pictures": len(labels)}
        if len(labels):
            thawed[split] = finetuning.answers(
                network, pictures[split], backbone.preprocessing, settings.batch_size
            )
            report[name]["frozen"] = finetuning.figures_of(frozen[split], labels, confidence)
            report[name]["thawed"] = finetuning.figures_of(thawed[split], labels, confidence)
    checkpoints = [trained.checkpoint]
    if taken:
        about |= kept_figures(kept, len(val.labels)) | {"thawed": True}
        about["temperature"] = fit_temperature(thawed["val"], val.labels)
    if taken and about["refit"]:
        backbone = catalogue.load(extracting.backbone, extracting.weights)  # as it came
        network = Network(backbone.module, chosen, power)
        both, recipe = pictures["train"] + pictures["val"], replace(recipe, last=trained.best)
        checkpoints.append(refit(network, both, backbone.preprocessing, ranges, recipe, device))
        if len(splits["test"].labels):
            logits = finetuning.answers(
                network, pictures["test"], backbone.preprocessing, settings.batch_size
            )
            measured = finetuning.figures_of(logits, splits["test"].labels, confidence)
            report["test"]["refit"] = measured
    THAW.parent.mkdir(parents=True, exist_ok=True)
    THAW.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    finetuning.write_curve(trained.curve, THAW_CURVE)
    save(network, taken, about)
    for checkpoint in checkpoints:
        checkpoint.unlink(missing_ok=True)
    words = "taken" if taken else "not taken"
    print(
        f"thaw: {words}: on {len(val.labels)} validation pictures loss {loss:.4f} frozen, "
        f"{kept.val_loss:.4f} thawed (epoch {trained.best}), accuracy {accuracy:.4f} and "
        f"{kept.val_accuracy:.4f}"
    )


def converged(about: dict[str, Any], rows: Split, val: Split, schedule: Schedule) -> Head:
    """The head that `models/head.json` tells of, as it was before it saw validation pictures.

    Those are what the thawed network will be judged by, so `train.refit` must not help the other.
    """
    knobs = Knobs(**dict.fromkeys(Knobs.__dataclass_fields__, 0) | about["knobs"])
    (one,) = fit.train_heads(rows, val, [knobs], schedule, "cpu")
    if one.head is None:
        raise TrainingError(f"the head to begin with was {one.status}; lower train.learning_rate")
    return one.head


def refit(
    network: Network,
    both: Labelled,
    preprocessing: Preprocessing,
    ranges: AugmentParams,
    recipe: Recipe,
    device: torch.device,
) -> Path:
    """Train on training and validation pictures together, as `train.refit` does with the head.

    Args:
        network: with the head that has learned from both; trained in place.
        both: training and validation pictures.
        preprocessing: the backbone's.
        ranges: of the augmentation.
        recipe: its `last` is the epoch that validation had chosen.
        device: where.

    Returns:
        The checkpoint.

    Raises:
        TrainingError: the loss did not stay finite.
    """
    print("thaw: taken, so it learns from validation pictures too, as train.refit asks", flush=True)
    none = Labelled([], [], both.labels[:0])
    trained = finetuning.train_network(
        network, both, none, UNMEASURED, preprocessing, ranges, recipe, device, "thaw"
    )
    if trained.best != recipe.last:
        trained.checkpoint.unlink(missing_ok=True)
        raise TrainingError(
            "the thawed network was lost when it was trained again on train and validation"
            f" pictures ({trained.status}); set train.refit to false"
        )
    return trained.checkpoint


def save(network: Network, taken: bool, about: dict[str, Any]) -> None:
    """Write whether the network was taken, and its backbone and head where it was.

    `about` describes the head, as `models/head.json` does that of the frozen network.
    """
    THAWED.mkdir(parents=True, exist_ok=True)
    for file in THAWED.iterdir():
        file.unlink()
    (THAWED / "taken.json").write_text(json.dumps(taken) + "\n", encoding="utf-8")
    if taken:
        catalogue.save_tensors(network.backbone.state_dict(), THAWED / "backbone.safetensors")
        save_head(network.as_head(), about, THAWED / "head.safetensors", THAWED / "head.json")


if __name__ == "__main__":
    command.run(thaw)

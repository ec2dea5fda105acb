"""Stage 4, train: a head for every combination of the knobs, and the best one is kept."""

import csv
import itertools
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .core import command, params
from .core.errors import DataError, DeviceError, ParamsError, TrainingError
from .core.params import TrainParams
from .core.paths import FEATURES, HEAD, HEAD_WEIGHTS, MANIFEST, SWEEP, TRAINING
from .core.progress import Progress
from .heads import fit
from .heads.fit import Figures, Knobs, Schedule, Trained
from .heads.head import Floats, Head, fit_temperature, save_head
from .tables.features import Split, read_manifest, read_splits

MOST_HEADS = 10_000

# The knobs that a head in closed form reads; it is linear, so the others mean nothing to it.
CLOSED_FORMS = {"lbfgs": ("weight_decay",), "ridge": ("weight_decay",), "nearest_mean": ()}


def train() -> None:
    """Train a head for each combination of knobs; save the best on the validation pictures."""
    settings = params.load().train
    combinations = every_combination(settings)
    descending = [one for one in combinations if one.optimizer not in CLOSED_FORMS]
    device = device_for(settings.device, bool(descending))
    manifest = read_manifest(MANIFEST)
    classes = class_names(manifest)
    splits = read_splits(FEATURES, manifest, classes, ["train", "val"], settings.power)
    rows, val = splits["train"], splits["val"]
    _check_validation(len(val.labels), len(combinations))

    schedule = Schedule(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        patience=settings.patience,
        class_weights=class_weights(settings.class_weights, rows.labels, len(classes)),
    )
    stacks = 0
    if descending:
        from .heads import gradient_descent  # imports PyTorch

        stacks = len(gradient_descent.stacks(descending, rows.features.shape[1], schedule))
    with Progress("train", settings.epochs * stacks, "epochs") as progress:
        trained = fit.train_heads(
            rows, val, combinations, schedule, device, lambda: progress.advance(1)
        )
    ranked = sorted(trained, key=rank)
    best, head, kept = ranked[0], ranked[0].head, ranked[0].kept
    if head is None or kept is None:
        raise TrainingError(
            f"no head came out of {len(trained)}: the first was {best.status}; "
            "lower train.learning_rate"
        )

    _write_sweep(ranked)
    _write_curve(best.curve)
    # Before the head has seen the validation pictures: of those it would be too sure.
    temperature = fit_temperature(head.logits(val.features), val.labels)
    if settings.refit and len(val.labels):
        head = refit(best, rows, val, schedule, device)
    about = _description(best.knobs, head, kept, classes, len(val.labels))
    about |= {"power": settings.power, "refit": settings.refit and len(val.labels) > 0}
    about["temperature"] = temperature
    save_head(head, about, HEAD_WEIGHTS, HEAD)
    _print_summary(ranked, kept, len(rows.labels), len(val.labels))


def refit(chosen: Trained, rows: Split, val: Split, schedule: Schedule, device: str) -> Head:
    """Train the chosen head again, on training and validation pictures together.

    Validation has done its work once the head is chosen, and with few pictures a fifth more of
    them is worth more than a figure. A head that descends gets as many epochs as it had kept. One
    in closed form keeps the scale that was fair when the validation pictures were new to it.
    """
    names = [field.name for field in fields(Split)]
    both = Split(*(np.concatenate([getattr(rows, n), getattr(val, n)]) for n in names))
    none = Split(*(getattr(val, name)[:0] for name in names))
    epochs = chosen.kept.epoch if chosen.kept else schedule.epochs
    again = replace(schedule, epochs=epochs, patience=0)
    (trained,) = fit.train_heads(both, none, [chosen.knobs], again, device)
    if trained.head is None:
        raise TrainingError(
            f"the chosen head was {trained.status} when it was trained again on"
            " train and validation pictures; set train.refit to false"
        )
    return trained.head.scaled(chosen.scale / trained.scale)


def every_combination(settings: TrainParams) -> list[Knobs]:
    """The product of all listed knobs; what would train the same head twice is left out.

    Raises:
        ParamsError: there are too many, or an optimizer cannot have any of the widths.
    """
    listed = {
        name: list(dict.fromkeys(value if isinstance(value, list) else [value]))
        for name, value in settings
        if name in Knobs.__dataclass_fields__
    }
    count = math.prod(map(len, listed.values()))
    if count > MOST_HEADS:
        raise ParamsError(
            f"train asks for {count:,} heads, the product of its lists; at most {MOST_HEADS:,} "
            "are trained together, so shorten a list"
        )
    combinations: dict[Knobs, None] = {}
    for values in itertools.product(*listed.values()):
        knobs = dict(zip(listed, values, strict=True))
        if knobs["optimizer"] in CLOSED_FORMS:
            if 0 not in listed["width"]:
                raise ParamsError(
                    f"train.width is {settings.width}, but {knobs['optimizer']} makes linear "
                    "heads; add 0 to the widths or take another optimizer"
                )
            read = ("optimizer", *CLOSED_FORMS[knobs["optimizer"]])
            knobs = {name: value if name in read else 0 for name, value in knobs.items()}
        combinations[Knobs(**knobs)] = None
    return list(combinations)


def device_for(asked: str, descends: bool, parameter: str = "train.device") -> str:
    """`cpu` or `cuda`: what a `parameter` asks for, as it can be had on this machine.

    Where no head descends, `auto` is the CPU, and PyTorch need not be imported to see what else
    there is.

    Raises:
        DeviceError: cuda is asked for and is not there.
    """
    if asked == "cpu" or (asked == "auto" and not descends):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "cuda":
        raise DeviceError(f"{parameter} is cuda, but PyTorch sees no CUDA device; use auto or cpu")
    return "cpu"


def class_names(manifest: pd.DataFrame) -> list[str]:
    """The labels of the training pictures, sorted; a head's outputs come in this order.

    Raises:
        DataError: there are fewer than two, or another split has a label that is not among them.
    """
    classes = sorted(manifest.loc[manifest["split"] == "train", "label"].unique())
    if not classes:
        raise DataError(f"{MANIFEST} has no training picture; check ingest.shares or the folders")
    if len(classes) == 1:
        raise DataError(
            f"every training picture is labelled {classes[0]!r}; "
            "a classifier needs pictures of at least two classes"
        )
    others = sorted(set(manifest["label"]) - set(classes))
    if others:
        raise DataError(
            f"no training picture shows {', '.join(others)}, but other splits do; "
            "add training pictures of it, or try another ingest.seed"
        )
    return classes


def class_weights(kind: str, labels: npt.NDArray[np.int64], classes: int) -> Floats:
    """Weight [c] of each class's pictures in the loss.

    `none`: 1 for all. `balanced`: n / (c * n of the class), so that every class weighs alike
    (King and Zeng, 2001, as in scikit-learn).
    """
    if kind == "none":
        return np.ones(classes, dtype=np.float32)
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * counts)).astype(np.float32)


def rank(trained: Trained) -> tuple[bool, float, float]:
    """Sorts heads from best to worst; equals stay in the order of the parameters.

    The lowest validation loss is best, and of equal ones the highest validation accuracy. With few
    validation pictures many heads get the same number of them right, and the next picture may
    well tell them apart; the loss also says by how much each was right or wrong.
    """
    if trained.kept is None:
        return True, math.inf, 0
    return False, trained.kept.val_loss, -trained.kept.val_accuracy


def _check_validation(pictures: int, heads: int) -> None:
    if pictures == 0 and heads > 1:
        raise DataError(
            f"{MANIFEST} has no validation picture to choose among {heads} heads by; give "
            "ingest.shares.val more than 0, or each knob of train one value"
        )
    if pictures == 0:
        print("train: warning: no validation picture, so the last epoch is kept, good or bad")


def _write_sweep(ranked: Sequence[Trained]) -> None:
    """A row a head, the best first; a knob that a closed form does not read stays empty."""
    table = []
    for one in ranked:
        row: dict[str, Any] = dict(_knobs_read(one.knobs))
        if one.kept is not None:
            row |= _losses(one.kept) | {"epoch": one.kept.epoch}
        table.append(row | {"epochs": len(one.curve), "status": one.status})
    _write_table(SWEEP, [*Knobs.__dataclass_fields__, *FIGURES, "epoch", "epochs", "status"], table)


def _write_curve(curve: Sequence[Figures]) -> None:
    """A row an epoch of the best head."""
    table = [{"epoch": point.epoch} | _losses(point) for point in curve]
    _write_table(TRAINING, ["epoch", *FIGURES], table)


FIGURES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


def _losses(figures: Figures) -> dict[str, float]:
    """The figures that are numbers, to six significant digits: more only shows how CPUs round."""
    values = {name: getattr(figures, name) for name in FIGURES}
    return {name: float(f"{value:.6g}") for name, value in values.items() if not math.isnan(value)}


def _knobs_read(knobs: Knobs) -> dict[str, Any]:
    read = CLOSED_FORMS.get(knobs.optimizer)
    return {
        name: value
        for name, value in vars(knobs).items()
        if read is None or name == "optimizer" or name in read
    }


def _write_table(file: Path, columns: Sequence[str], rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _description(
    knobs: Knobs, head: Head, kept: Figures, classes: list[str], val: int
) -> dict[str, Any]:
    """What `models/head.json` says of the weights beside it."""
    return {
        "classes": classes,
        "dimension": head.dimension,
        "width": head.width,
        "knobs": _knobs_read(knobs),
    } | kept_figures(kept, val)


def kept_figures(kept: Figures, val: int) -> dict[str, Any]:
    """The figures of the epoch that was kept, as a head's description has them.

    Args:
        kept: those of the epoch.
        val: how many validation pictures there are.
    """
    figures = _losses(kept)
    return {
        "epoch": kept.epoch,
        "training": {"loss": figures["train_loss"], "accuracy": figures["train_accuracy"]},
        "validation": {
            "pictures": val,
            "loss": figures.get("val_loss"),
            "accuracy": figures.get("val_accuracy"),
        },
    }


def _print_summary(ranked: Sequence[Trained], kept: Figures, rows: int, val: int) -> None:
    best = ranked[0]
    for one in ranked:
        if one.head is None:
            print(f"train: warning: {_in_words(one.knobs)}: {one.status}")
    among = f"the best of {len(ranked)} heads" if len(ranked) > 1 else "the head"
    print(f"train: {rows} training views; {among} is {_in_words(best.knobs)}")
    if val:
        print(
            f"train: on {val} validation pictures loss {kept.val_loss:.4f}, accuracy "
            f"{kept.val_accuracy:.4f} (epoch {kept.epoch} of {len(best.curve)})"
        )


def _in_words(knobs: Knobs) -> str:
    read = _knobs_read(knobs)
    optimizer = read.pop("optimizer")
    return ", ".join([optimizer, *(f"{name} {value:g}" for name, value in read.items())])


if __name__ == "__main__":
    command.run(train)

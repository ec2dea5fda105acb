"""Stage 4, train: train a head for every combination of hyperparameters, and keep the best."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import kinds
from .core import command, memory, params
from .core.errors import DataError, TrainingError
from .core.paths import (
    FEATURES,
    FLOOR_HEADS,
    HEAD,
    HEAD_WEIGHTS,
    MANIFEST,
    OUT_OF_FOLD,
    SWEEP,
    TRAINING,
)
from .core.progress import Progress
from .heads import choice, conformal, cross_fit, duration, penalty
from .heads import floor as on_floor
from .heads.calibration import calibrated
from .heads.description import HeadDescription
from .heads.fit import MOST_LOGITS, class_weights, device_for, fit_heads, refit
from .heads.head import save_head, with_priors
from .heads.hyperparameters import CLOSED_FORMS, Hyperparameters, every_combination, used
from .heads.losses import LOSSES, loss_for
from .heads.trained import (
    Figures,
    Schedule,
    Trained,
    figure_names,
    order,
    rounded,
    with_figures,
)
from .tables import floor, targets
from .tables.features import Split, are_counts, layers_in, read_splits
from .tables.labels import require
from .tables.large import held as held_bytes
from .tables.large import mapped
from .tables.layers import LAST, Layers
from .tables.manifest import group_keys, read_manifest, task_in
from .tasks import TASKS


def train() -> None:
    """Train a head for each combination; save the best by validation loss or cross-validation."""
    settings = params.load(kinds.schema).train
    combinations = every_combination(settings)
    descending = [one for one in combinations if one.optimizer not in CLOSED_FORMS]
    device = device_for(settings.device, bool(descending))
    manifest, task = read_manifest(MANIFEST), task_in(MANIFEST)
    classes, loss = targets.names(manifest), loss_for(task, settings.loss)
    targets.of_task(task).require(manifest, MANIFEST.as_posix())
    if len(combinations) > 1 and not settings.cross_validates:
        require(manifest, "train")
    layers = layers_of(settings.layers)
    splits = read_splits(FEATURES, manifest, classes, ["train", "val"], settings.power, layers)
    rows, val = splits["train"], splits["val"]
    if descending and not len(val.labels):
        print(
            "train: warning: there is no validation example, so the last epoch is kept, good or bad"
        )

    # Memory of four copies of the features, as far as they are not in files, ten of a head's
    # weights, past steps of the optimizer, and logits that calibrate the head.
    head_bytes = 4 * len(classes) * (rows.features.shape[1] + 1)
    without_steps = {one.optimizer for one in combinations} <= {"ridge", "nearest_mean"}
    logits = len(classes) * len(val.labels)
    memory.require(
        4 * held_bytes(rows.features.size + val.features.size)
        + 10 * head_bytes
        + (0 if without_steps else min(20 * head_bytes, 10**9))
        + 16 * (min(logits, MOST_LOGITS) if settings.refit else logits),
        f"train: {len(rows.labels):,} views of {len(classes):,} {TASKS[task].nouns}",
        "take fewer views (augment.views) or a backbone with fewer features",
    )

    schedule = Schedule(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        patience=settings.patience,
        class_weights=class_weights(settings.class_weights, rows.labels, len(classes)),
        counts=are_counts(FEATURES),
        loss=loss,
        row_weights=settings.row_weights,
        layers=layers,
    )
    choices: dict[str, penalty.Choice] = {}
    contenders: list[choice.Contender] = []
    of_last: slice | None = None
    if params.AUTO in (settings.weight_decay, settings.layers):
        both = Split.concat([rows.take(rows.views == 0), val])
        keys = group_keys(manifest).set_axis(manifest["digest"]).loc[both.digests].tolist()
    if settings.cross_validates:
        weighing = settings.class_weights
        contenders = choice.choose(both, keys, combinations, layers, schedule, weighing)
        print(f"train: {contenders[0].line(len(contenders))}")
        combinations, of_last = [contenders[0].hyperparameters], contenders[0].of_last
    slow = sum(one.optimizer == "lbfgs" for one in combinations)
    heads = slow + (cross_fit.PARTS + 1 if settings.refit else 0)
    of_heads = len(classes), heads, TASKS[task].nouns, loss
    if slow and (line := duration.line(rows.features, *of_heads)):
        print(f"train: {line}", flush=True)
    if not settings.cross_validates and settings.weight_decay == params.AUTO:
        learned = len(set((both if settings.refit else rows).digests))
        options = penalty.candidates(layers, settings.layers == params.AUTO)
        for one in combinations:
            by_penalty = penalty.choose(both, keys, one.optimizer, schedule, learned, options)
            options = [option for option in options if option.of == by_penalty.candidate.of]
            choices[one.optimizer] = by_penalty
            for line in by_penalty.lines():
                print(f"train: {line}")
        combinations = [choices[one.optimizer].head(one) for one in combinations]
        of_last = options[0].columns
    if of_last:
        layers, schedule = (), replace(schedule, layers=())
        last = of_last
        rows, val = (
            replace(split, features=mapped(split.features, lambda some: some[:, last].copy()))
            for split in (rows, val)
        )
    stacks = 0
    if descending:
        from .heads import gradient_descent  # imports PyTorch

        stacks = len(gradient_descent.stacks(descending, rows.features.shape[1], schedule))
    with Progress("train", settings.epochs * stacks, "epochs") as progress:
        trained = fit_heads(rows, val, combinations, schedule, device, lambda: progress.advance(1))
    ranked = sorted(trained, key=order)
    best, head, kept = ranked[0], ranked[0].head, ranked[0].kept
    if head is None or kept is None:
        among = f"all {len(trained)} heads; the first" if len(trained) > 1 else "the head; it"
        raise TrainingError(
            f"training failed for {among} {best.status}; {best.hyperparameters.remedy}"
        )

    tried = [one.row() for one in contenders]
    for optimizer, by_penalty in choices.items():
        tried += [{"optimizer": optimizer} | point.row() for point in by_penalty.path]
    _write_sweep(ranked, tried, loss)
    _write_curve(best.curve, loss)
    of_schedule = schedule, device
    least = conformal.needed(settings.coverage, task)
    held = cross_fit.out_of_fold(
        best, rows, val, manifest, *of_schedule, refits=settings.refit, least=least
    )
    fitted = calibrated(held.logits, held.labels, task, schedule.class_weights)
    cross_fit.write(OUT_OF_FOLD, held, fitted, task)
    if settings.refit and len(val.labels):
        head = refit(best, rows, val, *of_schedule)
    about = HeadDescription(
        classes=classes,
        power=settings.power,
        calibration=fitted,
        sets=conformal.calibrated(settings.coverage, held, fitted.temperature, task),
        task=task,
        loss=loss if len(TASKS[task].losses) > 1 else None,
        hyperparameters=best.hyperparameters,
        refit=settings.refit and len(val.labels) > 0,
        dimension=head.dimension,
        width=head.width,
        layers=layers,
    )
    if chosen := choices.get(best.hyperparameters.optimizer):
        about = replace(about, notes={"weight_decay_auto": chosen.noted()})
    if contenders:
        about = replace(about, notes={"layers_auto": contenders[0].noted()})
    about = with_figures(about, kept, len(val.labels), loss)
    save_head(with_priors(head, fitted), about, HEAD_WEIGHTS, HEAD)
    FLOOR_HEADS.unlink(missing_ok=True)
    if floor.name():
        cheap = floor.read(manifest, classes, ["train", "val"], settings.power)
        found = {"train": rows, "val": val}
        if pair := on_floor.fitted(cheap, found, task, len(classes), schedule.counts):
            pair.write(FLOOR_HEADS)
    _print_summary(ranked, kept, len(rows.labels), len(val.labels), loss)


def layers_of(asked: str) -> Layers:
    """Return the layers in `train.layers`; empty for the last layer alone.

    Raises:
        DataError: inner blocks are requested, and `extract` found none in the network.
    """
    if asked == LAST:
        return ()
    layers = layers_in(FEATURES)
    if not layers and asked != params.AUTO:
        raise DataError(
            f"train.layers is {asked}, but {FEATURES} has no inner blocks, because the network has"
            " none; set train.layers to last"
        )
    return layers


def _write_sweep(ranked: Sequence[Trained], tried: Sequence[dict[str, object]], loss: str) -> None:
    """Write one row per head, the best first; unused hyperparameters of closed forms are empty.

    The rows that cross-validation `tried` follow, with their out-of-fold losses.
    """
    table = []
    for one in ranked:
        row: dict[str, Any] = dict(used(one.hyperparameters))
        if one.kept is not None:
            row |= rounded(one.kept, loss) | {"epoch": one.kept.epoch}
        table.append(row | {"epochs": len(one.curve), "status": one.status})
    table += [{"status": "cross-validated"} | row for row in tried]
    written = {name for row in table for name in row}
    names = [
        name
        for name in Hyperparameters.__dataclass_fields__
        if name != "scaling" or name in written
    ]
    added = [name for name in ("layers", *penalty.COLUMNS) if name in written]
    columns = [*names, *figure_names(loss), *added, "epoch", "epochs", "status"]
    _write_table(SWEEP, columns, table)


def _write_curve(curve: Sequence[Figures], loss: str) -> None:
    """Write one row per epoch of the best head."""
    table = [{"epoch": point.epoch} | rounded(point, loss) for point in curve]
    _write_table(TRAINING, ["epoch", *figure_names(loss)], table)


def _write_table(file: Path, columns: Sequence[str], rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _print_summary(
    ranked: Sequence[Trained], kept: Figures, rows: int, val: int, loss: str
) -> None:
    best = ranked[0]
    score = "R²" if LOSSES[loss].of_numbers else "accuracy"
    for one in ranked:
        if one.head is None:
            print(f"train: warning: {_in_words(one.hyperparameters)}: {one.status}")
    among = f"the best of {len(ranked)} heads" if len(ranked) > 1 else "the head"
    print(f"train: {rows} training views; {among} is {_in_words(best.hyperparameters)}")
    if val:
        epoch = f" (epoch {kept.epoch} of {len(best.curve)})" if len(best.curve) > 1 else ""
        print(
            f"train: loss {kept.val_loss:.4f} and {score} {kept.val_accuracy:.4f} on {val}"
            f" validation examples{epoch}"
        )


def _in_words(hyperparameters: Hyperparameters) -> str:
    settings = used(hyperparameters)
    numbers = [f"{name} {of:g}" for name, of in settings.items() if not isinstance(of, str)]
    return ", ".join([hyperparameters.optimizer, *numbers])


if __name__ == "__main__":
    command.run(train)

"""Which head is the best default? Candidates on three sets of pictures, five seeds each.

The sets: ants and bees (its own `val` is the test split), the surfaces, and 600 of scikit-learn's
handwritten digits, which no ImageNet backbone has seen. A seed is that of the split, of the
augmentation and of the head. The pictures go through `ingest`, `augment` and `extract` with the
parameters of `params.yaml`. A default is chosen by the validation columns; the test columns only
report.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.harness import Project, digits, table
from pipeline.heads import gradient_descent
from pipeline.heads.fit import fit_heads
from pipeline.heads.head import probabilities
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split, read_splits
from pipeline.tables.manifest import read_manifest
from pipeline.tables.power import raised
from pipeline.tasks import metrics

SETS = ("hymenoptera", "surfaces", "digits")
EPOCHS = 60
# Validation loss and accuracy, test loss and accuracy.
Figures = tuple[float, float, float, float]
ADAMW = Hyperparameters("adamw", 0.003, 1.0, 0, 0.0, 0.0, 0)


def candidates() -> list[tuple[float, Hyperparameters]]:
    """Heads, each on features raised to either power."""
    found = [Hyperparameters("nearest_mean", 0, 0, 0, 0, 0, 0)]
    found += [Hyperparameters("ridge", 0, decay, 0, 0, 0, 0) for decay in (0.03, 0.1, 0.3)]
    found += [
        Hyperparameters("lbfgs", 0, decay, 0, 0, 0, 0) for decay in (0.001, 0.003, 0.01, 0.03)
    ]
    for rate, decay in ((0.001, 0.01), (0.003, 0.01), (0.003, 1.0), (0.01, 3.0)):
        found.append(replace(ADAMW, learning_rate=rate, weight_decay=decay))
    found.append(replace(ADAMW, label_smoothing=0.05))
    found.append(replace(ADAMW, optimizer="sgd", learning_rate=0.1, weight_decay=0.01))
    found.append(replace(ADAMW, learning_rate=0.001, width=256, dropout=0.5))
    return [(power, one) for one in found for power in (0.5, 1.0)]


def pictures_of(name: str, given: Path, folder: Path) -> Path | None:
    """The pictures of a set; None for the surfaces, which the pipeline cuts itself."""
    if name == "digits":
        made = folder / "pictures of digits"
        return made if made.exists() else digits(made)
    return given if name == "hymenoptera" else None


def features(name: str, seed: int, given: Path, folder: Path) -> tuple[list[str], list[Split]]:
    """The splits of one set under one seed, from the pipeline's own stages."""
    seeded = {"ingest": {"seed": seed}, "augment": {"seed": seed}}
    own, exported = folder / f"{name}-{seed}", folder / "backbones"
    project = Project(own, pictures_of(name, given, folder), exported, **seeded)
    project.stages("ingest", "augment", "extract")
    data = project.folder / "data"
    manifest = read_manifest(data / "manifest.parquet")
    classes = sorted(manifest["label"].unique())
    splits = read_splits(data / "features", manifest, classes, ["train", "val", "test"])
    return classes, [splits["train"], splits["val"], splits["test"]]


def measured(
    heads: list[Hyperparameters], power: float, seed: int, classes: int, splits: list[Split]
) -> list[Figures]:
    """Validation loss and accuracy, test loss and accuracy of each head."""
    train, val, test = (replace(rows, features=raised(rows.features, power)) for rows in splits)
    schedule = Schedule(EPOCHS, 256, 10, np.ones(classes, np.float32))
    seeded = [
        replace(one, seed=seed) if one.optimizer in gradient_descent.RULES else one for one in heads
    ]
    found = []
    for result in fit_heads(train, val, seeded, schedule, "cpu"):
        assert result.head is not None
        shares = probabilities(result.head.logits(test.features))
        assert result.kept is not None
        got = metrics.scores(test.labels, shares, 1, 15).overall
        kept = result.kept
        found.append((kept.val_loss, kept.val_accuracy, got["loss"][0], got["accuracy"][0]))
    return found


def row(
    power: float, chosen: Hyperparameters, seen: dict[str, list[Figures]]
) -> tuple[object, ...]:
    """Means over the seeds, for each set and over the sets."""
    means = np.array([np.mean(seen[name], axis=0) for name in SETS])  # [sets, measures]
    val_loss, val_accuracy, test_loss, test_accuracy = means.T
    each = (f"{loss:.3f}, {acc:.4f}" for loss, acc in zip(val_loss, val_accuracy, strict=True))
    val = (val_loss.mean(), val_accuracy.mean(), *each)
    return words(chosen), power, *val, test_loss.mean(), test_accuracy.mean(), *test_accuracy


def words(chosen: Hyperparameters) -> str:
    if chosen.optimizer == "nearest_mean":
        return "nearest_mean"
    if chosen.optimizer in ("ridge", "lbfgs"):
        return f"{chosen.optimizer}, decay {chosen.weight_decay:g}"
    text = f"{chosen.optimizer}, rate {chosen.learning_rate:g}, decay {chosen.weight_decay:g}"
    text += f", smoothing {chosen.label_smoothing:g}" if chosen.label_smoothing else ""
    return text + (f", width {chosen.width}, dropout {chosen.dropout:g}" if chosen.width else "")


def measure(scratch: Path, pictures: Path, seeds: int = 5) -> str:
    heads = candidates()
    seen: dict[tuple[float, Hyperparameters], dict[str, list[Figures]]]
    seen = {one: {name: [] for name in SETS} for one in heads}
    for name, seed in product(SETS, range(seeds)):
        classes, splits = features(name, seed, pictures, scratch)
        for power in (0.5, 1.0):
            alike = [one for of, one in heads if of == power]
            found = measured(alike, power, seed, len(classes), splits)
            for one, four in zip(alike, found, strict=True):
                seen[power, one][name].append(four)
    ranked = sorted(heads, key=lambda one: np.mean([np.array(seen[one][n])[:, 0] for n in SETS]))
    rows = [row(power, one, seen[power, one]) for power, one in ranked]
    val, test = (" | ".join(f"{of} {name} {{:.4f}}" for name in SETS) for of in ("val", "test"))
    columns = f"head | power {{:g}} | val loss {{:.4f}} | val acc {{:.4f}} | {val}"
    return f"""# Which head is the best default?

Means over {seeds} seeds, at most {EPOCHS} epochs, minibatches of 256 views, patience 10. Sorted by
the mean validation loss of the three sets. Features are raised to the power, sign kept.

{table(f"{columns} | test loss {{:.4f}} | test acc {{:.4f}} | {test}", rows)}
"""

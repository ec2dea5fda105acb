"""What a sweep costs: 64 heads together, against one head, a loop over them, and scikit-learn.

    python -m benchmarks sweep [--rows ROWS, instead of both sizes of the first table]

The first table is 64 linear heads by AdamW for the same number of epochs as one head, on made-up
features. The second is a grid of 64 heads on features of the surfaces and of scikit-learn's digits
(`benchmarks/heads.py`) as `train` reads them: together, one after the other, and scikit-learn's
LogisticRegressionCV over as many penalties; each chooses by the loss on the same validation rows.
"""

import statistics
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import PredefinedSplit

from benchmarks.harness import in_turns, table
from benchmarks.heads import features
from pipeline.heads.fit import fit_heads
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule, Trained, order
from pipeline.tables.features import Split
from pipeline.tables.power import raised

DIMENSION, BATCH, REPEATS = 1280, 256, 3
SIZES = ((10_000, 10, 3), (100_000, 100, 1))  # rows, classes, epochs
POWER = 0.5  # the default of `train.power`
HEADS = 64
GRIDS = ("surfaces", "digits")


def made_up(rows: int, dimension: int, classes: int, seed: int) -> Split:
    """Gaussian classes that overlap, as float32 features [rows, dimension]."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, dimension), dtype=np.float32)
    labels = generator.integers(classes, size=rows)
    noise = generator.standard_normal((rows, dimension), dtype=np.float32)
    names = np.array([f"{row:08}" for row in range(rows)])
    views = np.zeros(rows, np.int32)
    return Split(names, names, views, labels, noise + 0.12 * centres[labels])


def grid() -> list[Hyperparameters]:
    """8 learning rates x 8 weight decays: linear heads by AdamW."""
    rate, decay = np.geomspace(1e-3, 0.1, 8).tolist(), np.geomspace(0.01, 10, 8).tolist()
    return [Hyperparameters("adamw", r, d, 0, 0.0, 0.0, 0) for r, d in product(rate, decay)]


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Median wall-clock seconds, and what the last of them gave."""
    costs = in_turns(repeats, {"": work})[""]
    return statistics.median(cost.wall for cost in costs), costs[-1].gave


def one_against_many(rows: int, classes: int, epochs: int, device: str) -> tuple[object, ...]:
    """A row of the first table: seconds of one head and of all together."""
    train, val = (made_up(n, DIMENSION, classes, seed) for seed, n in enumerate((rows, rows // 10)))
    schedule = Schedule(epochs, BATCH, 0, np.ones(classes, np.float32))
    heads = grid()

    def run(hyperparameters: list[Hyperparameters]) -> list[Trained]:
        return fit_heads(train, val, hyperparameters, schedule, device)

    run(heads[:1])  # wakes the device and its libraries up
    # Standardising the rows and placing them on the device is done once for any number of heads.
    some = {"one": heads[:1], "many": heads, "fixed": []}
    costs = in_turns(REPEATS, {name: partial(run, these) for name, these in some.items()})
    one, many, fixed = (statistics.median(cost.wall for cost in each) for each in costs.values())
    size, alone, together = f"{rows:,}, {classes} classes", one - fixed, many - fixed
    return device, size, epochs, one, many, many / one, alone, together, together / alone


def grids(name: str, classes: int, splits: list[Split]) -> list[tuple[object, ...]]:
    """Rows of the second table: seconds, and accuracies of the head that validation chooses."""
    train, val, test = (replace(split, features=raised(split.features, POWER)) for split in splits)
    schedule = Schedule(50, BATCH, 10, np.ones(classes, np.float32))
    cells = f"{name}, {len(train.labels):,} rows, {classes} classes"
    rows: list[tuple[str, float, float, float]] = []

    def add(how: str, seconds: float, trained: list[Trained]) -> None:
        chosen = min(trained, key=order)
        assert chosen.head is not None
        assert chosen.kept is not None
        right = (chosen.head.logits(test.features).argmax(axis=1) == test.labels).mean()
        rows.append((how, seconds, chosen.kept.val_accuracy, right))

    heads = grid()

    def run(hyperparameters: list[Hyperparameters]) -> list[Trained]:
        return fit_heads(train, val, hyperparameters, schedule, "cpu")

    add("together", *timed(lambda: run(heads), REPEATS))
    add("one after the other", *timed(lambda: [run([one])[0] for one in heads]))
    penalties = np.geomspace(1e-5, 1, HEADS).tolist()  # of the mean loss of a row
    solved = [Hyperparameters("lbfgs", 0, penalty, 0, 0.0, 0.0, 0) for penalty in penalties]
    add("`optimizer: lbfgs`", *timed(lambda: run(solved)))

    # Features scaled as `train_heads` scales them, so that the penalties mean the same.
    mean = train.features.mean(axis=0)
    scale = np.sqrt(np.square(train.features - mean).mean())
    scaled = [(split.features - mean) / scale for split in (train, val, test)]
    model = LogisticRegressionCV(
        Cs=1 / (len(train.labels) * np.array(penalties)),
        cv=PredefinedSplit([-1] * len(train.labels) + [0] * len(val.labels)),
        scoring="neg_log_loss",
        l1_ratios=(0,),
        max_iter=1000,
        refit=False,  # the heads above do not see the validation rows either
        use_legacy_attributes=False,
    )
    joined = np.concatenate(scaled[:2]), np.concatenate([train.labels, val.labels])
    seconds, _ = timed(lambda: model.fit(*joined))
    pairs = zip(scaled[1:], (val.labels, test.labels), strict=True)
    rows.append(
        ("LogisticRegressionCV", seconds, *((model.predict(x) == y).mean() for x, y in pairs))
    )
    return [(cells, how, took, took / rows[0][1], *of) for how, took, *of in rows]


def measure(scratch: Path, rows: int = 0) -> str:
    warnings.simplefilter("ignore", ConvergenceWarning)
    sizes = [(rows, 10, 1)] if rows else SIZES
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    many = [one_against_many(*size, device) for device in devices for size in sizes]
    found: list[tuple[object, ...]] = []
    for name in GRIDS:
        classes, splits = features(name, 0, Path(), scratch)
        found += grids(name, len(classes), splits)
    card = torch.cuda.get_device_name() if len(devices) > 1 else "no GPU was lent, so none is here"
    columns = f"device | rows | epochs | 1 head {{:.2f}} | {HEADS} heads {{:.2f}} | ratio {{:.1f}}"
    columns += f" | 1, training {{:.2f}} | {HEADS}, training {{:.2f}} | ratio {{:.1f}}"
    of_grid = "training rows | how | seconds {:.2f} | over together {:.1f}"
    of_grid += " | validation accuracy {:.4f} | test accuracy {:.4f}"
    return f"""# {HEADS} heads for the price of one

Linear heads by AdamW on {DIMENSION:,} made-up features, minibatches of {BATCH}; seconds, the median
of {REPEATS} ({card}). The last three columns leave out what is done once for any number of heads.
The goal, at most 3, is for a GPU. On a CPU the products themselves take the time, and {HEADS} heads
have {HEADS} times as many.

{table(columns, many)}

The same grid of {HEADS} heads (8 learning rates, 8 weight decays, at most 50 epochs, patience 10),
and {HEADS} L2 penalties by L-BFGS, all on the pipeline's features (seed 0, power {POWER}). Each
chooses by the loss on the same validation pictures.

{table(of_grid, found)}

The goal is to be faster at the same or better validation accuracy.
"""

"""`evaluate.repeats` beside brute force: fifty whole runs, each on a split of its own.

    python -m benchmarks repeats ../shared/data/hymenoptera [--runs RUNS]

The pictures lose their own split, so that `ingest` draws one. A run is `ingest`, `augment`,
`extract`, `train` and `evaluate` with `augment.views: 0` and a seed of its own for `ingest`; the
features come from the store. The second table is time alone, on made-up features of 1,000 examples:
50 repeats beside one training, which is to fit a head and to fit it again with the validation
examples, without augmented views and with the four of the default.
"""

import shutil
import statistics
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Project, in_turns, table
from benchmarks.heads import made_up
from pipeline.evaluate import evaluate
from pipeline.heads.fit import fit_heads, refit
from pipeline.heads.hyperparameters import Hyperparameters, from_used
from pipeline.heads.subsets import on_subsets
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split
from pipeline.train import train

REPEATS, EXAMPLES, CLASSES, DIMENSION = 50, 1000, 10, 1280
HEADS: dict[str, dict[str, Any]] = {
    "ridge": {"optimizer": "ridge", "weight_decay": 0.1},
    "nearest_mean": {"optimizer": "nearest_mean"},
    "lbfgs": {"optimizer": "lbfgs", "weight_decay": 0.003},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.001, "weight_decay": 0.01},
    "adamw, width 64": {
        "optimizer": "adamw", "learning_rate": 0.001, "weight_decay": 0.01, "width": 64
    },
}  # fmt: skip


def without_split(pictures: Path, folder: Path) -> Path:
    """The pictures in a folder for each class."""
    for file in sorted(pictures.glob("*/*/*")):
        target = folder / file.parent.name / f"{file.parent.parent.name}-{file.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return folder


def beside_brute_force(
    pictures: Path, scratch: Path, optimizer: str, decay: float, runs: int
) -> tuple[object, ...]:
    """A row of the first table."""
    project = Project(scratch / optimizer, pictures, scratch / "backbones", augment={"views": 0})
    project.set(train={"optimizer": optimizer, "weight_decay": decay})
    found = []
    with project.inside():
        for seed in range(1, runs + 1):
            project.set(ingest={"seed": seed})
            project.work("ingest", "augment", "extract", "train", "evaluate")
            found.append(project.report("metrics")["test"]["accuracy"])
        costs = in_turns(3, {"train": train, "none": evaluate})
        project.set(evaluate={"repeats": REPEATS})
        costs |= in_turns(3, {"repeats": evaluate})
        seconds = {name: statistics.median(c.wall for c in each) for name, each in costs.items()}
        lines = (project.folder / "reports" / "repeats.csv").read_text().splitlines()
    mean, low, high = (float(text) for text in lines[1].split(",")[1:4])
    brute = statistics.mean(found)
    spread = f"{min(found):.3f}–{max(found):.3f}"
    took = seconds["repeats"] - seconds["none"]
    said = f"{low:.4f}–{high:.4f}", str(low < brute < high)
    return (
        optimizer,
        runs,
        brute,
        spread,
        mean,
        *said,
        seconds["train"],
        took,
        took / seconds["train"],
    )


def epochs(train_rows: Split, val: Split, head: Hyperparameters, schedule: Schedule) -> int:
    """Fit a head, and fit it again with the validation rows; how many epochs it took."""
    (trained,) = fit_heads(train_rows, val, [head], schedule, "cpu")
    refit(trained, train_rows, val, schedule, "cpu")
    assert trained.kept is not None
    return trained.kept.epoch


def listed(work: Callable[[], Iterable[object]]) -> list[object]:
    return list(work())


def times(views: int) -> list[tuple[object, ...]]:
    """Rows of the second table."""
    pool = made_up(EXAMPLES, DIMENSION, CLASSES, 0)
    place = np.arange(EXAMPLES)

    def rows(chosen: np.ndarray, copies: int) -> Split:
        return pool.take(np.tile(np.flatnonzero(chosen), copies))

    train_rows, val = rows(place < 600, views + 1), rows((place >= 600) & (place < 800), 1)
    generator = np.random.default_rng(0)
    learnt = [generator.random(EXAMPLES) < 0.8 for _ in range(REPEATS)]
    schedule = Schedule(50, 256, 10, np.ones(CLASSES, np.float32))
    found: list[tuple[object, ...]] = []
    for name, used in HEADS.items():
        head = from_used(used)

        one = partial(epochs, train_rows, val, head, schedule)
        told = replace(schedule, epochs=one())
        asked = [~mask for mask in learnt]
        many = partial(on_subsets, pool, learnt, asked, head, told, "none")
        costs = in_turns(3, {"one": one, "many": partial(listed, many)})
        alone, all_of_them = (
            statistics.median(cost.wall for cost in costs[which]) for which in ("one", "many")
        )
        found.append((name, views, alone, all_of_them, all_of_them / alone))
    return found


def measure(scratch: Path, pictures: Path, runs: int = 50) -> str:
    flat = without_split(pictures, scratch / "pictures")
    brute = [
        beside_brute_force(flat, scratch, optimizer, decay, runs)
        for optimizer, decay in (("lbfgs", 0.003), ("ridge", 0.1))
    ]
    columns = "head | runs | their mean accuracy {:.4f} | lowest–highest | mean of repeats {:.4f}"
    columns += " | its interval | brute force lies in it | train, s {:.2f}"
    columns += " | what repeats add to evaluate, s {:.2f} | repeats / train {:.1f}"
    of_time = "head | augmented views | one training, s {:.2f} | 50 repeats, s {:.2f}"
    of_time += " | repeats / training {:.1f}"
    return f"""# `evaluate.repeats` beside brute force

Ants and bees, 398 pictures, `augment.views: 0`. A run is all stages from `ingest` to `evaluate`,
with another `ingest.seed`. The {REPEATS} repeats are drawn from other hashes, so no split is that
of a run.

{table(columns, brute)}

{EXAMPLES:,} made-up examples of {DIMENSION:,} features and {CLASSES} classes; median of three. One
training is to fit a head and to fit it again with the validation examples.

{table(of_time, [*times(0), *times(4)])}
"""

"""What a sweep costs: 64 heads together, against one head, a loop over them, and scikit-learn.

    python benchmarks/sweep.py

The first table is 64 linear heads by AdamW for the same number of epochs as one head, on made-up
features. The second is a grid of 64 heads on features of the surfaces and of scikit-learn's digits
(`benchmarks/heads.py`) as `train` reads them: together, one after the other, and scikit-learn's
LogisticRegressionCV over as many penalties; each chooses by the loss on the same validation rows.
Writes `benchmarks/sweep.md`.
"""

import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import PredefinedSplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.heads import digits, features  # noqa: E402
from pipeline.heads.fit import Knobs, Schedule, Trained, train_heads  # noqa: E402
from pipeline.tables.features import Split  # noqa: E402
from pipeline.tables.power import raised  # noqa: E402

DIMENSION, BATCH, REPEATS = 1280, 256, 3
SIZES = ((10_000, 10, 3), (100_000, 100, 1))  # rows, classes, epochs
POWER = 0.5  # the default of `train.power`
HEADS = 64


def made_up(rows: int, dimension: int, classes: int, seed: int) -> Split:
    """Gaussian classes that overlap, as float32 features [rows, dimension]."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, dimension), dtype=np.float32)
    labels = generator.integers(classes, size=rows)
    noise = generator.standard_normal((rows, dimension), dtype=np.float32)
    names = np.array([f"{row:08}" for row in range(rows)])
    views = np.zeros(rows, np.int32)
    return Split(names, names, views, labels, noise + 0.12 * centres[labels])


def grid() -> list[Knobs]:
    """8 learning rates x 8 weight decays: linear heads by AdamW."""
    rate, decay = np.geomspace(1e-3, 0.1, 8).tolist(), np.geomspace(0.01, 10, 8).tolist()
    return [Knobs("adamw", r, d, 0, 0.0, 0.0, 0) for r, d in product(rate, decay)]


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median wall-clock seconds, and what the last of them gave."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def one_against_many(rows: int, classes: int, epochs: int, device: str) -> str:
    """A row of the first table: seconds of one head and of all together."""
    train, val = (made_up(n, DIMENSION, classes, seed) for seed, n in enumerate((rows, rows // 10)))
    schedule = Schedule(epochs, BATCH, 0, np.ones(classes, np.float32))
    heads = grid()

    def run(knobs: list[Knobs]) -> list[Trained]:
        return train_heads(train, val, knobs, schedule, device)

    run(heads[:1])  # wakes the device and its libraries up
    one, _ = timed(lambda: run(heads[:1]), REPEATS)
    many, _ = timed(lambda: run(heads), REPEATS)
    # Standardising the rows and placing them on the device is done once for any number of heads.
    fixed, _ = timed(lambda: run([]), REPEATS)
    return (
        f"| {device} | {rows:,}, {classes} classes | {epochs} | {one:.2f} | {many:.2f} "
        f"| {many / one:.1f} | {one - fixed:.2f} | {many - fixed:.2f} "
        f"| {(many - fixed) / (one - fixed):.1f} |"
    )


def grids(name: str, classes: int, splits: list[Split]) -> list[str]:
    """Rows of the second table: seconds, and accuracies of the head that validation chooses.

    The last is a sentence.
    """
    train, val, test = (replace(split, features=raised(split.features, POWER)) for split in splits)
    schedule = Schedule(50, BATCH, 10, np.ones(classes, np.float32))
    cells = f"{name}, {len(train.labels):,} rows, {classes} classes"
    rows: list[tuple[str, float, float, float]] = []

    def add(how: str, seconds: float, trained: list[Trained]) -> None:
        chosen = min(trained, key=lambda one: one.kept.val_loss)
        right = (chosen.head.logits(test.features).argmax(axis=1) == test.labels).mean()
        rows.append((how, seconds, chosen.kept.val_accuracy, right))

    heads = grid()
    add("together", *timed(lambda: train_heads(train, val, heads, schedule, "cpu"), REPEATS))
    one_by_one = [[one] for one in heads]
    add(
        "one after the other",
        *timed(lambda: [train_heads(train, val, h, schedule, "cpu")[0] for h in one_by_one], 1),
    )
    penalties = np.geomspace(1e-5, 1, HEADS).tolist()  # of the mean loss of a row
    solved = [Knobs("lbfgs", 0, penalty, 0, 0.0, 0.0, 0) for penalty in penalties]
    add("`optimizer: lbfgs`", *timed(lambda: train_heads(train, val, solved, schedule, "cpu"), 1))

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
    seconds, _ = timed(lambda: model.fit(*joined), 1)
    pairs = zip(scaled[1:], (val.labels, test.labels), strict=True)
    rows.append(
        ("LogisticRegressionCV", seconds, *((model.predict(x) == y).mean() for x, y in pairs))
    )
    (_, took, val_of, _), *others = rows
    said = ", ".join(
        f"{how} {seconds / took:.1f} ({'no better' if accuracy <= val_of else 'better'})"
        for how, seconds, accuracy, _ in others
    )
    return [
        f"| {cells} | {how} | {seconds:.2f} | {seconds / took:.1f} | {val:.4f} | {test:.4f} |"
        for how, seconds, val, test in rows
    ] + [f"{name}, times as long as together, and its validation accuracy: {said}."]


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    many = [one_against_many(*size, device) for device in devices for size in SIZES]
    rows, said = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        digits(folder / "pictures of digits")
        for name in ("surfaces", "digits"):
            classes, splits = features(name, 0, folder / "pictures of digits", folder)
            *more, sentence = grids(name, len(classes), splits)
            rows += more
            said.append(sentence)
    card = torch.cuda.get_device_name() if len(devices) > 1 else "no GPU was lent, so none is here"
    lines = [
        f"# {HEADS} heads for the price of one",
        "",
        f"Made by `python benchmarks/sweep.py` on {torch.get_num_threads()} CPU cores ({card}),",
        f"load {os.getloadavg()[1]:.1f}, torch {torch.__version__}, scikit-learn"
        f" {sklearn.__version__}.",
        "",
        f"Linear heads by AdamW on {DIMENSION:,} made-up features, minibatches of {BATCH}; seconds,"
        f" the median of {REPEATS}. The last three columns leave out what is done once for any"
        " number of heads. The goal, at most 3, is for a GPU. On a CPU the products themselves"
        " take the time, and 64 heads have 64 times as many.",
        "",
        f"| device | rows | epochs | 1 head | {HEADS} heads | ratio | 1, training | {HEADS},"
        " training | ratio |",
        "|" + " --- |" * 9,
        *many,
        "",
        f"The same grid of {HEADS} heads (8 learning rates, 8 weight decays, at most 50 epochs,"
        f" patience 10), and {HEADS} L2 penalties by L-BFGS, all on the pipeline's features (seed"
        f" 0, power {POWER}). Each chooses by the loss on the same validation pictures.",
        "",
        "| training rows | how | seconds | over together | validation accuracy | test accuracy |",
        "|" + " --- |" * 6,
        *rows,
        "",
        *said,
        "The goal is to be faster at the same or better validation accuracy.",
        "",
    ]
    (ROOT / "benchmarks" / "sweep.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""What a sweep costs: 64 heads together, against one head, a loop over them, and scikit-learn.

    python benchmarks/sweep.py --rows 100000 --classes 100

writes benchmarks/sweep.md.

The first table is 64 linear heads by AdamW for the same number of epochs as one head, on made-up
features. The second is the same grid of 64 heads three ways on features that the pipeline left in
data/features (or made-up ones): together, one after the other, and scikit-learn's
LogisticRegressionCV over as many penalties, each choosing by the same validation rows.
It needs torch, numpy and what `pipeline.sweep` imports.
"""

import argparse
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from pipeline import features  # noqa: E402
from pipeline.features import Split  # noqa: E402
from pipeline.sweep import Knobs, Schedule, Trained, train_heads  # noqa: E402

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


def grid(rates: int, decays: int) -> list[Knobs]:
    """rates x decays linear heads by AdamW."""
    rate = np.geomspace(1e-4, 1e-2, rates).tolist()
    decay = np.geomspace(1e-3, 10, decays).tolist()
    return [Knobs("adamw", r, d, 0, 0.0, 0.0, 0) for r, d in product(rate, decay)]


def timed(work: Callable[[], list[Trained]], repeats: int) -> tuple[float, list[Trained]]:
    """Median wall-clock seconds, and what the last of them gave."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def one_against_many(arguments: argparse.Namespace, device: str) -> list[str]:
    """Rows of the first table: seconds of 1 head, of all together and of a loop over them."""
    train = made_up(arguments.rows, arguments.dimension, arguments.classes, 0)
    val = made_up(max(100, arguments.rows // 10), arguments.dimension, arguments.classes, 1)
    weights = np.ones(arguments.classes, np.float32)
    schedule = Schedule(arguments.epochs, arguments.batch_size, 0, weights)
    heads = grid(8, HEADS // 8)

    def run(knobs: list[Knobs]) -> list[Trained]:
        return train_heads(train, val, knobs, schedule, device)

    run(heads[:1])  # wakes the device and its libraries up
    run(heads)
    one, _ = timed(lambda: run(heads[:1]), arguments.repeats)
    many, _ = timed(lambda: run(heads), arguments.repeats)
    # Standardising the rows and placing them on the device is done once for any number of heads.
    fixed, _ = timed(lambda: run([]), arguments.repeats)
    size = f"{arguments.rows:,} x {arguments.dimension:,}, {arguments.classes} classes"
    return [
        f"| {device_name(device)} | {size} | {arguments.batch_size} | {arguments.epochs} "
        f"| {one:.3f} | {many:.3f} | {many / one:.1f} "
        f"| {one - fixed:.3f} | {many - fixed:.3f} | {(many - fixed) / (one - fixed):.1f} |"
    ]


def against_scikit_learn(train: Split, val: Split, test: Split, classes: int) -> list[str]:
    """Rows of the second table: seconds, and accuracies of the head that validation chooses."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import PredefinedSplit

    schedule = Schedule(50, 256, 10, np.ones(classes, np.float32))
    heads, cpu = grid(4, HEADS // 4), "cpu"

    def best(trained: list[Trained]) -> Trained:
        return min(trained, key=lambda one: one.kept.val_loss)

    def row(name: str, seconds: float, chosen: Trained) -> str:
        right = (chosen.head.logits(test.features).argmax(axis=1) == test.labels).mean()
        return f"| {name} | {seconds:.2f} | {chosen.kept.val_accuracy:.4f} | {right:.4f} |"

    together, trained = timed(lambda: train_heads(train, val, heads, schedule, cpu), 3)
    rows = [row(f"{HEADS} heads together", together, best(trained))]
    loop, trained = timed(
        lambda: [train_heads(train, val, [one], schedule, cpu)[0] for one in heads], 1
    )
    rows.append(row(f"{HEADS} heads, one after the other", loop, best(trained)))

    mean, deviation = train.features.mean(axis=0), train.features.std(axis=0) + 1e-6
    scaled = [(split.features - mean) / deviation for split in (train, val, test)]
    model = LogisticRegressionCV(
        Cs=1 / (len(train.labels) * np.geomspace(1e-3, 10, HEADS)),
        cv=PredefinedSplit([-1] * len(train.labels) + [0] * len(val.labels)),
        scoring="neg_log_loss",
        l1_ratios=(0,),
        max_iter=1000,
        refit=False,  # the heads above do not see the validation rows either
        use_legacy_attributes=False,
    )
    warnings.simplefilter("ignore", ConvergenceWarning)
    start = time.perf_counter()
    model.fit(np.concatenate(scaled[:2]), np.concatenate([train.labels, val.labels]))
    seconds = time.perf_counter() - start
    pairs = zip(scaled[1:], (val.labels, test.labels), strict=True)
    scores = [(model.predict(rows_of) == labels).mean() for rows_of, labels in pairs]
    name = f"scikit-learn's LogisticRegressionCV, {HEADS} penalties"
    rows.append(f"| {name} | {seconds:.2f} | {scores[0]:.4f} | {scores[1]:.4f} |")
    return rows


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads of a CPU ({platform.machine()})"


def pictures() -> tuple[Split, Split, Split, int] | None:
    """The three splits that the pipeline left in the working folder, if it did."""
    if not Path("data/features").is_dir():
        return None
    manifest = features.read_manifest(Path("data/manifest.parquet"))
    classes = sorted(manifest["label"].unique())
    splits = features.read_splits(
        Path("data/features"), manifest, classes, ["train", "val", "test"]
    )
    return splits["train"], splits["val"], splits["test"], len(classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dimension", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), action="append")
    parser.add_argument("--no-scikit-learn", action="store_true")
    parser.add_argument("--write", type=Path, default=PROJECT / "benchmarks" / "sweep.md")
    arguments = parser.parse_args()
    found = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    lines = [
        f"# {HEADS} heads for the price of one",
        "",
        f"Made by `python {' '.join(['benchmarks/sweep.py', *sys.argv[1:]])}`, torch "
        f"{torch.__version__}. Linear heads by AdamW, seconds; median of {arguments.repeats}. The "
        "last three columns leave out what is done once for any number of heads: standardising the "
        "rows and placing them on the device.",
        "",
        "| device | rows | batch | epochs | 1 head | 64 heads | ratio | 1, training | 64, training "
        "| ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in arguments.device or found:
        lines += one_against_many(arguments, name)
    if not arguments.no_scikit_learn:
        data = pictures()
        what = "the features of the pipeline's pictures"
        if data is None:
            sizes = arguments.dimension, arguments.classes
            data = *(made_up(n, *sizes, seed) for seed, n in enumerate((2000, 500, 2000))), sizes[1]
            what = "made-up features"
        train, val, test, classes = data
        lines += [
            "",
            f"On {what} ({len(train.labels):,} training rows, {len(val.labels):,} validation, "
            f"{len(test.labels):,} test, {classes} classes), on "
            f"{device_name('cpu')}. A grid of 4 learning rates and 16 weight decays "
            "for at most 50 epochs, against as many L2 penalties; "
            "each chooses by the validation loss.",
            "",
            "| how | seconds | validation accuracy | test accuracy |",
            "| --- | --- | --- | --- |",
            *against_scikit_learn(train, val, test, classes),
        ]
    text = "\n".join(lines) + "\n"
    print(text)
    arguments.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

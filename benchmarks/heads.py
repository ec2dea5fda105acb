"""Heads: the best default, 64 in one sweep, 1,200 classes, and a chosen penalty."""

import hashlib
import json
import statistics
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import PredefinedSplit
from sklearn.preprocessing import StandardScaler

from benchmarks.harness import ENVIRONMENT, Cost, Project, cost, digits, in_turns, need, table
from pipeline import kinds
from pipeline.core import params
from pipeline.core.paths import FEATURES, MANIFEST
from pipeline.evaluation import metrics
from pipeline.heads import gradient_descent, penalty
from pipeline.heads.fit import fit_heads
from pipeline.heads.head import Floats, one_thread, probabilities
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.scaling import PER_FEATURE, centre_and_scale
from pipeline.heads.trained import Schedule, Trained, order
from pipeline.tables.features import Split, read_splits, write_shards
from pipeline.tables.folds import folds
from pipeline.tables.labels import class_names
from pipeline.tables.manifest import read_manifest, write_manifest
from pipeline.tables.power import raised

# defaults

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


def measure_defaults(scratch: Path, pictures: Path, seeds: int = 5) -> str:
    """Which head is the best default? Candidates on three sets of pictures, five seeds each.

    The sets: ants and bees (its own `val` is the test split), the surfaces, and 600 of
    scikit-learn's handwritten digits, which no ImageNet backbone has seen. A seed is that of the
    split, of the augmentation and of the head. The pictures go through `ingest`, `augment` and
    `extract` with the parameters of `params.yaml`. A default is chosen by the validation columns;
    the test columns only report.
    """
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


# sweep

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


def measure_sweep(scratch: Path, rows: int = 0) -> str:
    """What a sweep costs: 64 heads together, against one head, a loop over them, and scikit-learn.

        python -m benchmarks heads sweep [--rows ROWS, instead of both sizes of the first table]

    The first table is 64 linear heads by AdamW for the same number of epochs as one head, on
    made-up features. The second is a grid of 64 heads on features of the surfaces and of
    scikit-learn's digits (`benchmarks/heads.py`) as `train` reads them: together, one after the
    other, and scikit-learn's LogisticRegressionCV over as many penalties; each chooses by the loss
    on the same validation rows.
    """
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


# many

FONTS = Path("/usr/share/fonts/truetype")
TYPEFACES = {
    "train/DejaVuSans": "dejavu/DejaVuSans.ttf",
    "train/FreeSerif": "freefont/FreeSerif.ttf",
    "val/DejaVuSerif": "dejavu/DejaVuSerif.ttf",
    "test/FreeMono": "freefont/FreeMono.ttf",
}
FROM_DEBIAN = "typefaces: apt-get install fonts-dejavu-core fonts-dejavu-extra fonts-freefont-ttf"
CLASSES = 1200
MANY = 20_000  # of the head that is fitted for its memory alone
SIDE = 128


def characters(count: int) -> list[str]:
    """Letters, digits and symbols that all typefaces have and draw each in its own way."""
    from matplotlib.ft2font import FT2Font

    shared = set.intersection(*(set(FT2Font(FONTS / f).get_charmap()) for f in TYPEFACES.values()))
    found = [chr(code) for code in shared if unicodedata.category(chr(code))[0] in "LNS"]
    found.sort(key=lambda one: hashlib.sha256(one.encode()).digest())
    fonts = [ImageFont.truetype(FONTS / file, 88) for file in TYPEFACES.values()]
    seen: set[bytes] = set()
    kept = []
    for one in found:
        drawn = {draw(one, font).tobytes() for font in fonts}
        if len(drawn) == len(fonts) and not drawn & seen:
            kept.append(one)
            seen |= drawn
    if len(kept) < count:
        raise SystemExit(f"the typefaces share only {len(kept)} characters; {count} are needed")
    return kept[:count]


def draw(character: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The character in black, in the middle of a white square."""
    picture = Image.new("L", (SIDE, SIDE), 255)
    left, top, right, bottom = font.getbbox(character)
    place = ((SIDE - left - right) / 2, (SIDE - top - bottom) / 2)
    ImageDraw.Draw(picture).text(place, character, fill=0, font=font)
    return picture


def pictures(folder: Path, classes: int) -> Path:
    """The set as `ingest` reads it: split/class/typeface.png; the folder."""
    chosen = characters(classes)
    for place, file in TYPEFACES.items():
        split, typeface = place.split("/")
        font = ImageFont.truetype(FONTS / file, 88)
        for one in chosen:
            path = folder / split / f"U+{ord(one):04X} {one}" / f"{typeface}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(one, font).convert("RGB").save(path)
    return folder


# What scikit-learn does with the same rows: it reads the features as `train` does.
SCIKIT_LEARN = """
import json, time
from sklearn.linear_model import LogisticRegression
from benchmarks.heads import read, objective

decay, splits = read()
train = splits["train"]
model = LogisticRegression(max_iter=1000, tol=1e-4, C=1 / (len(train.labels) * decay))
wall, cpu = time.perf_counter(), time.process_time()
model.fit(train.features, train.labels)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
test = splits["test"]
right = float((model.predict(test.features) == test.labels).mean())
loss = objective(train, decay, model.coef_, model.intercept_)
print(json.dumps([wall, cpu, loss, right, int(model.n_iter_.max())]))
"""
# The head of `train` before it is trained again, and what comes of training it again.
HEADSTART = """
import json, time
from benchmarks.heads import read, objective
from pipeline.heads.closed_forms import SOLVERS
from pipeline.heads.fit import class_weights, fit_heads, refit
from pipeline.heads.scaling import centre_and_scale
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.losses import LOSSES, Units
from pipeline.heads.trained import Schedule

decay, splits = read()
train, val, test = splits["train"], splits["val"], splits["test"]
schedule = Schedule(1, 1, 0, class_weights("none", train.labels, int(train.labels.max()) + 1))
one = Hyperparameters("lbfgs", 0, decay, 0, 0, 0, 0)
found = []
wall, cpu = time.perf_counter(), time.process_time()
(fitted,) = fit_heads(train, val, [one], schedule, "cpu")
found.append((fitted.head, time.perf_counter() - wall, time.process_time() - cpu))
wall, cpu = time.perf_counter(), time.process_time()
again = refit(fitted, train, val, schedule, "cpu")
found.append((again, time.perf_counter() - wall, time.process_time() - cpu))
mean, scale = centre_and_scale(train.features)
results = []
for head, wall, cpu in found:
    right = float((head.logits(test.features).argmax(axis=1) == test.labels).mean())
    bias = head.bias + head.weight @ mean
    results.append([wall, cpu, objective(train, decay, head.weight * scale, bias), right])
print(json.dumps(results))
"""


def read() -> tuple[float, dict[str, Split]]:
    """The penalty, and the splits of the project in this folder, scaled as `train` scales them."""
    settings = params.load(kinds.schema).train
    manifest = read_manifest(MANIFEST)
    names = ["train", "val", "test"]
    splits = read_splits(FEATURES, manifest, class_names(manifest), names, settings.power)
    mean, scale = centre_and_scale(splits["train"].features)
    scaled = {
        name: replace(rows, features=(rows.features - mean) / scale)
        for name, rows in splits.items()
    }
    return float(settings.weight_decay), scaled  # type: ignore[arg-type]


def objective(rows: Split, decay: float, weight: Floats, bias: Floats) -> float:
    """The mean loss and the penalty of a head, in float64."""
    loss = 0.0
    for start in range(0, len(rows.labels), 1000):
        some = slice(start, start + 1000)
        logits = rows.features[some].astype(np.float64) @ weight.T.astype(np.float64) + bias
        own = logits[np.arange(len(logits)), rows.labels[some]]
        loss += float((logsumexp(logits, axis=1) - own).sum())
    return loss / len(rows.labels) + decay / 2 * float(np.square(weight, dtype=np.float64).sum())


def fitted_once(classes: int, dimension: int = 320) -> str:
    """A process that fits one head of so many classes, of one row each, on made-up features."""
    return f"""
import numpy as np
from pipeline.heads import lbfgs, many_classes
from pipeline.heads.head import one_thread
random = np.random.default_rng(0)
centres = random.standard_normal(({classes}, {dimension}), dtype=np.float32)
labels = np.arange({classes})
features = centres[labels]
features += random.standard_normal(features.shape, dtype=np.float32)
features /= np.sqrt(np.square(features).mean())
lbfgs.MOST_ITERATIONS = 1
many_classes.PARTS = (1,)
with one_thread():
    ones = np.ones(len(labels), np.float32)
    many_classes.minimum(features, labels, ones, {classes}, 0.003, None)
"""


def measure_many(scratch: Path, classes: int = CLASSES, rounds: int = 1, project: str = "") -> str:
    """A run with 1,200 classes, beside scikit-learn: characters in four typefaces of Debian's
    packages.

        apt-get install fonts-dejavu-core fonts-dejavu-extra fonts-freefont-ttf
        python -m benchmarks heads many [--project FOLDER, in which `extract` ran already]

    Each class is a character that all four typefaces have: two typefaces are for training, one is
    for validation and one for the test. One is kept of characters that a typeface draws alike.
    Nothing of it is kept in the repository.
    """
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if project:  # one in which `extract` ran, to try something out
        made = Project.__new__(Project)
        made.folder, made.store = Path(project) / "project", Path(project) / "store"
        made.environment = ENVIRONMENT | {"HEADSTART_STORE": str(made.store)}
    else:
        there = [file for file in TYPEFACES.values() if (FONTS / file).exists()]
        need(len(there) == len(TYPEFACES), FROM_DEBIAN)
        made = Project(scratch, pictures(scratch / "pictures", classes))
        made.stages("ingest", "augment", "extract")
    works = {
        "scikit-learn": lambda: made.run(sys.executable, "-c", SCIKIT_LEARN, **one),
        "Headstart": lambda: made.run(sys.executable, "-c", HEADSTART, **one),
        "train": lambda: made.run(sys.executable, "-m", "pipeline.train", **one),
        "evaluate": lambda: made.run(sys.executable, "-m", "pipeline.evaluate", **one),
    }
    costs = in_turns(rounds, works)
    results = {n: [json.loads(c.gave.splitlines()[0]) for c in costs[n]] for n in list(works)[:2]}
    fit = min(one[1] for one in results["scikit-learn"])
    rows: list[tuple[object, ...]] = []

    def add(name: str, found: list[list[float]]) -> None:
        best = min(found, key=lambda one: one[1])
        rows.append((name, best[0], best[1], best[1] / fit, best[2], best[3]))

    add("`LogisticRegression`, one fit", results["scikit-learn"])
    add("fit", [one[0] for one in results["Headstart"]])
    both = [[*np.add(one[0][:2], one[1][:2]), None, one[1][3]] for one in results["Headstart"]]
    add("fit, and again on train and validation", both)
    for stage in ("train", "evaluate"):
        best = min(costs[stage], key=lambda cost: cost.cpu)
        rows.append((f"the stage `{stage}`", best.wall, best.cpu, best.cpu / fit, None, None))
    large = made.run(sys.executable, "-c", fitted_once(MANY), **one)
    peaks = {name: max(cost.peak for cost in costs[name]) for name in works}
    table_of = (made.folder / "reports" / "predictions.csv").stat().st_size / 1e6
    columns = "what | wall clock {:.1f} s | processor {:.1f} s | over scikit-learn's fit {:.2f}"
    columns += " | objective {:.5f} | test accuracy {:.4f}"
    return f"""# {classes:,} classes, beside scikit-learn

Characters of Debian's typefaces: two typefaces are for training, with four augmented views of each
picture, one is for validation and one for the test. All figures are of one thread, in one run: of
{rounds} rounds the one of the least processor time. Other work shared the machine, so the wall
clock says less. The objective is the mean loss of a training row and the penalty, in float64 on
the scaled features; scikit-learn stops by its own default rule (`tol=1e-4`).

{table(columns, rows)}

`predictions.csv` has {table_of:.2f} MB. Peak memory: `LogisticRegression`
{peaks["scikit-learn"]:,.0f} MB, `train` {peaks["train"]:,.0f} MB, `evaluate`
{peaks["evaluate"]:,.0f} MB. One iteration with {MANY:,} classes of 320 features, one row each, on
made-up features: {large.peak:,.0f} MB, {large.wall:.0f} s.
"""


# penalty

COUNTS, DRAWS = (10, 20, 50), 10  # training examples a class
LEAST_ASKED = 40  # test examples
THOUSANDS = 10_000
OF_FIXED, OF_AUTO, OF_SKLEARN = "0.003", "auto", "scikit-learn"


def sets_in(cache: Path) -> Iterable[tuple[str, Split, list[str]]]:
    """View 0 of each set that `benchmarks/recipes_sets.py` left in the cache, and the groups."""
    for file in sorted(cache.glob("*.npz")):
        with np.load(file) as found:
            features = found["views"][:, 0, slice(*found["blocks"][0])]
            labels, groups = found["labels"].astype(np.int64), found["groups"]
        # Texts' vectors have length 1 already.
        long = np.abs(np.linalg.norm(features, axis=1) - 1).max() > 1e-3
        seen = raised(np.ascontiguousarray(features), 0.5 if long else 1.0)
        names = np.array([hashlib.sha256(f"{n}".encode()).hexdigest() for n in range(len(labels))])
        rows = Split(names, names, np.zeros(len(labels), np.int32), labels, seen)
        yield file.stem, rows, groups.tolist()


def some_of_each(
    pool: Split, groups: list[str], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions of `count` examples a class to learn from, and of all of other groups.

    None where a class has fewer than half as many, or few are left to ask.
    """
    classes, of = int(pool.labels.max()) + 1, np.array(groups)
    taken, left = set(), np.full(classes, count)
    for name in sorted(
        set(groups), key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).digest()
    ):
        sizes = np.bincount(pool.labels[of == name], minlength=classes)
        if (sizes <= left).all():
            taken.add(name)
            left -= sizes
    inside = np.isin(of, list(taken))
    if (left > count / 2).any() or (~inside).sum() < LEAST_ASKED:
        return None
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def by_sklearn(learnt: Split, asked: Split, groups: list[str]) -> np.ndarray:
    """Which test examples StandardScaler and LogisticRegressionCV tell right.

    With fewer rows than features, the scaled rows are turned onto their own axes, which changes
    neither the loss nor the penalty, and saves most of the time.
    """
    scaler = StandardScaler().fit(learnt.features)
    rows, new = (scaler.transform(one.features).astype(np.float64) for one in (learnt, asked))
    if len(rows) < rows.shape[1]:
        values, vectors = np.linalg.eigh(rows @ rows.T)
        kept = values > 1e-9 * values[-1]
        axes = rows.T @ (vectors[:, kept] / np.sqrt(values[kept]))
        rows, new = rows @ axes, new @ axes
    fold = folds(groups, learnt.labels, 5, numbers=False)
    model = LogisticRegressionCV(
        Cs=10, cv=PredefinedSplit(fold) if (fold >= 0).any() else 3, scoring="neg_log_loss",
        l1_ratios=(0,), max_iter=1000, use_legacy_attributes=False,
    )  # fmt: skip
    return np.asarray(model.fit(rows, learnt.labels).predict(new) == asked.labels)


def of_draw(
    pool: Split, groups: list[str], count: int, seed: int
) -> tuple[dict[str, float], penalty.Choice] | None:
    """The accuracy of each way on one draw, and what `auto` chose."""
    drawn = some_of_each(pool, groups, count, seed)
    if drawn is None:
        return None
    learnt, asked = (pool.take(rows) for rows in drawn)
    keys = [groups[row] for row in drawn[0]]
    schedule = Schedule(1, 1, 0, np.ones(int(pool.labels.max()) + 1, np.float32))
    chosen = penalty.choose(learnt, keys, "lbfgs", schedule, len(keys))
    fixed = Hyperparameters("lbfgs", weight_decay=0.003)
    right = {}
    for way, used in {OF_FIXED: fixed, OF_AUTO: chosen.head(fixed)}.items():
        (one,) = fit_heads(learnt, learnt.take(slice(0)), [used], schedule, "cpu")
        assert one.head is not None
        right[way] = float((one.head.logits(asked.features).argmax(axis=1) == asked.labels).mean())
    with one_thread():
        right[OF_SKLEARN] = float(by_sklearn(learnt, asked, keys).mean())
    return right, chosen


def accuracies(cache: Path, draws: int) -> list[tuple[object, ...]]:
    """A row for each set and count: mean accuracies, and what was chosen."""
    rows: list[tuple[object, ...]] = []
    for name, pool, groups in sets_in(cache):
        for count in COUNTS:
            found = [of_draw(pool, groups, count, seed) for seed in range(draws)]
            some = [one for one in found if one is not None]
            if not some:
                continue
            means = {way: float(np.mean([right[way] for right, _ in some])) for way in some[0][0]}
            decays = sorted(choice.weight_decay for _, choice in some)
            each = sum(choice.candidate.scaling == PER_FEATURE for _, choice in some)
            ended = sum(bool(choice.end) for _, choice in some)
            fixed, auto, other = means[OF_FIXED], means[OF_AUTO], means[OF_SKLEARN]
            middle = decays[len(decays) // 2]
            rows.append(
                (name, count, len(some), fixed, auto, other, auto - fixed, auto - other,
                 f"{middle:g}", each, ended)
            )  # fmt: skip
    return rows


def auto_seconds(scratch: Path) -> list[tuple[object, ...]]:
    """CPU seconds and memory of the stage `train` with and without `auto`."""
    project = Project(scratch / "seconds")
    pool = made_up(THOUSANDS, DIMENSION, 10, 0)
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in pool.digests]
    data = project.folder / "data"
    manifest = pd.DataFrame(
        {"digest": digests, "path": [f"data/raw/{n:05}.png" for n in range(THOUSANDS)],
         "label": [f"c{label}" for label in pool.labels],
         "split": ["val" if n % 5 == 0 else "train" for n in range(THOUSANDS)]}
    )  # fmt: skip
    write_manifest(manifest, "image", data / "manifest.parquet")
    order = np.argsort(digests)
    write_shards(
        data / "features",
        [(sorted(digests), pool.views, pool.features[order])],
    )
    rows: list[tuple[object, ...]] = []
    for optimizer in ("lbfgs", "ridge"):

        def trained(decay: Any, optimizer: str = optimizer) -> Cost:
            project.set(train={"optimizer": optimizer, "weight_decay": decay})
            return project.stages("train")["train"]

        costs = in_turns(REPEATS, {decay: partial(trained, decay) for decay in (0.003, "auto")})
        for decay, each in costs.items():
            cpu, peak = (min(getattr(one, of) for one in each) for of in ("cpu", "peak"))
            rows.append((optimizer, decay, cpu, peak))
    schedule = Schedule(1, 1, 0, np.ones(10, np.float32))
    for optimizer in ("lbfgs", "ridge"):
        named = replace(pool, digests=np.array(digests))
        choose = partial(penalty.choose, named, digests, optimizer, schedule, THOUSANDS)
        alone = min(cost(choose).cpu for _ in range(REPEATS))
        rows.append((optimizer, "the choice alone", alone, "–"))
    return rows


def measure_penalty(scratch: Path, cache: Path, draws: int = DRAWS) -> str:
    """`weight_decay: auto` beside 0.003 and scikit-learn, on sets of a cache.

        python -m benchmarks heads penalty CACHE [--draws DRAWS]

    The cache holds the features that `benchmarks/recipes_sets.py` makes: the last layer of view 0.
    A draw takes 10, 20 or 50 examples a class to learn from, whole groups, and asks all others.
    `auto` and 0.003 are heads by `lbfgs` on the features as `train` reads them, scikit-learn is
    `StandardScaler` and `LogisticRegressionCV` (ten `C`, log loss, the same kind of folds).
    """
    warnings.simplefilter("ignore")
    found = accuracies(cache, draws)
    columns = "set | a class | draws | 0.003 {:.4f} | auto {:.4f} | scikit-learn {:.4f}"
    columns += " | auto − 0.003 {:+.4f} | auto − scikit-learn {:+.4f} | chosen, median"
    columns += " | each feature scaled | ends of the path"
    means = np.mean([[float(value) for value in row[3:8]] for row in found], axis=0)  # type: ignore[arg-type]
    costs = table("optimizer | weight_decay | CPU s {:.2f} | peak MB {:.0f}", auto_seconds(scratch))
    return f"""# `weight_decay: auto`

Test accuracy, the mean of {draws} draws. Mean over the rows: 0.003 {means[0]:.4f}, auto
{means[1]:.4f}, scikit-learn {means[2]:.4f}.

{table(columns, found)}

The stage `train` on {THOUSANDS:,} made-up examples of {DIMENSION:,} features and 10 classes,
without augmented views: processor seconds of the whole process, the least of {REPEATS} runs.

{costs}
"""


PARTS = {
    "defaults": measure_defaults,
    "sweep": measure_sweep,
    "many": measure_many,
    "penalty": measure_penalty,
}

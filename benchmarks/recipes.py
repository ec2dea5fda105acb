"""Which recipe on frozen features wins, and against whom: views, blocks, penalties, heads.

    python -m benchmarks recipes FOLDER [--draws DRAWS]

The sets are those of benchmarks/recipes_sets.py. For each draw and number of examples a class a
training set is drawn, three quarters of it from the examples that have augmented views. A quarter
plays the part of the pipeline's validation examples: it has view 0 and the mirror image only, as in
a project, and a head is trained on both. The test examples are all that were in no group of the
training set, of those without augmented views. FOLDER keeps features and results, so that a run
that was cut off goes on.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from benchmarks.harness import table
from benchmarks.recipes_sets import SETS, Set, made
from pipeline.evaluation.slices import holm
from pipeline.heads import lbfgs
from pipeline.heads.fit import fit_heads
from pipeline.heads.head import Head
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split
from pipeline.tables.power import raised

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
SIZES = (10, 20, 50)
FEW = (1, 2, 5)
PATH = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
OF_TEXTS = (0.3, 0.1, 0.03, 0.01)  # the list of examples/text/params.yaml
FOLDS = 5
WIDE = 2  # draws in which every recipe is measured; the others are of those that matter
MANY = 420  # rows that are not turned
LEVEL = 0.95
TODAY, MIRRORED = "today", "; mirrored answers"

# A draw


@dataclass(frozen=True)
class Draw:
    """Rows [n] of a set: to train on, those of them without augmented views, and of the test."""

    rows: Integers
    plain: npt.NDArray[np.bool_]
    test: Integers


def drawn(data: Set, size: int, seed: int) -> Draw:
    """At most `size` examples of each class, at most three fifths of a class."""
    random = np.random.default_rng([seed, 27])
    order = random.permutation(len(data.labels))
    names = sorted(set(data.groups[~data.augmented]))
    place = dict(zip(random.permutation(names), range(len(names)), strict=True))
    with_views, without = [], []
    for label in range(len(data.classes)):
        mine = order[data.labels[order] == label]
        wanted = min(size, int(0.6 * len(mine)))
        held = wanted // 4
        views, plain = mine[data.augmented[mine]], mine[~data.augmented[mine]]
        if len(names) == 1:  # all of one group are for the test
            views, plain = views[held:], views[:held]
        else:
            plain = np.array(sorted(plain, key=lambda row: place[data.groups[row]]))
        with_views.append(views[: wanted - held])
        without.append(plain[:held])
    plain_rows = np.concatenate(without).astype(np.int64)
    rows = np.concatenate([*with_views, plain_rows]).astype(np.int64)
    trained = set(data.groups[rows])
    test = [row for row in np.flatnonzero(~data.augmented) if data.groups[row] not in trained]
    return Draw(rows, np.isin(rows, plain_rows), np.array(test, dtype=np.int64))


# Features in fewer dimensions. A head with an L2 penalty lies in the span of its training rows: in
# the axes of that span it is found many times faster, and is the same.


@dataclass(frozen=True)
class Space:
    """Training rows [n, r], test rows and their mirror images in the same axes; d before."""

    train: Floats
    test: Floats
    mirrored: Floats
    dimension: int

    def decay(self, asked: float) -> float:
        """The weight decay that does in r dimensions what `asked` does in d; see `fit_heads`."""
        return asked * float(self.train.shape[1]) / self.dimension


def space(train: Floats, test: Floats, mirrored: Floats, scales: Floats) -> Space:
    """Rows divided by the scales of columns, centred, in the axes of the span of `train`.

    Many rows are only scaled: to find their axes takes longer than to fit them.
    """
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    train, test, mirrored = ((one - mean) / scales for one in (train, test, mirrored))
    if len(train) > MANY and train.shape[1] < 2 * len(train):
        return Space(train, test, mirrored, train.shape[1])
    values, vectors = np.linalg.eigh(train.astype(np.float64) @ train.T)
    kept = values > 1e-9 * values.max()
    axes = (train.T @ (vectors[:, kept] / np.sqrt(values[kept]))).astype(np.float32)
    return Space(train @ axes, test @ axes, mirrored @ axes, train.shape[1])


def one_number(rows: Floats, blocks: Sequence[slice]) -> Floats:
    """The scale of columns: each block's root mean square about its centre."""
    centred = rows - rows.mean(axis=0)
    scales = np.empty(rows.shape[1], np.float32)
    for block in blocks:
        scales[block] = max(float(np.sqrt(np.square(centred[:, block]).mean())), 1e-12)
    return scales


def each_column(rows: Floats, blocks: Sequence[slice]) -> Floats:
    """The scale of columns: each one's standard deviation, as `StandardScaler`."""
    scales = rows.std(axis=0)
    return np.where(scales > 1e-6 * scales.max(), scales, 1).astype(np.float32)


# Heads


def rows_of(features: Floats, labels: Integers, names: npt.NDArray[np.str_]) -> Split:
    return Split(names, names, np.zeros(len(names), np.int32), labels, features)


def heads(
    features: Floats,
    labels: Integers,
    classes: int,
    decays: Sequence[float],
    optimizer: str = "lbfgs",
    names: npt.NDArray[np.str_] | None = None,
) -> list[Head]:
    """The pipeline's heads by their penalties; with names, an example's rows weigh as one."""
    schedule = Schedule(
        1, 256, 0, np.ones(classes, np.float32), row_weights="none" if names is None else "example"
    )
    if names is None:
        names = np.arange(len(labels)).astype(str)
    split = rows_of(features, labels, names)
    asked = [Hyperparameters(optimizer, weight_decay=decay) for decay in decays]
    found = fit_heads(split, split.take(slice(0)), list(dict.fromkeys(asked)), schedule, "cpu")
    by_decay = {one.hyperparameters: one.head for one in found}
    return [head for one in asked if (head := by_decay[one]) is not None]


def log_loss(logits: Floats, labels: Integers) -> npt.NDArray[np.float64]:
    exact = logits.astype(np.float64)
    return np.asarray(logsumexp(exact, axis=1) - exact[np.arange(len(labels)), labels])


def folds(labels: Integers) -> list[npt.NDArray[np.int64]]:
    """Held-out rows by class, in at most five folds."""
    least = int(np.bincount(labels).min())
    if least < 2:
        return []
    split = StratifiedKFold(min(FOLDS, least), shuffle=True, random_state=0)
    return [held for _, held in split.split(labels, labels)]


def validated(
    one: Space, labels: Integers, classes: int, decays: Sequence[float] = PATH
) -> dict[str, tuple[float, npt.NDArray[np.float64]]]:
    """The penalty of the lowest held-out loss, and the losses [n] of held-out rows by it.

    `auto` compares losses as they are, `tempered` those at the best temperature of each penalty.

    All folds and penalties are fitted at once, by the pipeline's L-BFGS: the objective is that of
    `lbfgs`, without its own centre and scale in each fold.
    """
    count, held = len(labels), folds(labels)
    if not held:
        return dict.fromkeys(("auto", "tempered"), (0.01, np.zeros(count)))
    level = np.sqrt(np.square(one.train).sum() / count / one.dimension)  # as `fit_heads` scales
    x = np.concatenate([np.ones((count, 1), np.float32), one.train / level], axis=1)
    learnt = np.ones((len(held), count), np.float32)
    for fold, rows in enumerate(held):
        learnt[fold, rows] = 0
    learnt /= learnt.sum(axis=1, keepdims=True)
    share = np.tile(learnt, (len(decays), 1))  # [problems, n]
    penalty = np.repeat(np.array(decays, np.float32), len(held))
    truth = np.eye(classes, dtype=np.float32)[labels]
    width = x.shape[1]
    bent = np.full(width, 1.0, np.float32)
    bent[0] = 0

    def objective(weights: Floats, live: Integers) -> tuple[npt.NDArray[np.float64], Floats]:
        shaped = weights.reshape(-1, width)  # [problems * classes, width]
        logits = (x @ shaped.T).reshape(count, len(live), classes)
        logits -= logits.max(axis=2, keepdims=True)
        own = np.einsum("npc,nc->np", logits, truth)
        shares = np.exp(logits, out=logits)
        sums = shares.sum(axis=2)
        loss = ((np.log(sums) - own) * share[live].T).sum(axis=0, dtype=np.float64)
        shares /= sums[:, :, None]
        shares -= truth[:, None]
        shares *= share[live].T[:, :, None]
        slope = (shares.reshape(count, -1).T @ x).reshape(len(live), classes, width)
        plain = weights.reshape(len(live), classes, width) * bent
        slope += penalty[live, None, None] * plain
        loss += penalty[live] / 2 * np.square(plain).sum(axis=(1, 2))
        return loss, slope.reshape(weights.shape)

    variances = np.square(x).mean(axis=0) * (1 / classes) * (1 - 1 / classes)
    curved = np.maximum(variances[None] + penalty[:, None] * bent, 1e-8)
    divisors = np.tile(curved, classes)  # [problems, classes * width]

    def newton(_: int, __: Floats) -> Any:
        return lambda gradient, live: gradient / divisors[live]

    start = np.zeros((len(penalty), classes * width), np.float32)
    weights, _ = lbfgs.minimum(objective, start, newton, 1e-2)
    logits = np.zeros((len(decays), count, classes), np.float32)
    heads_of = weights.reshape(len(decays), len(held), classes, width)
    for fold, rows in enumerate(held):
        for number in range(len(decays)):
            logits[number, rows] = x[rows] @ heads_of[number, fold].T
    plain = int(np.argmin([log_loss(one, labels).mean() for one in logits]))
    losses = [tempered(one, labels) for one in logits]
    fair = int(np.argmin([one.mean() for one in losses]))
    return {"auto": (decays[plain], losses[plain]), "tempered": (decays[fair], losses[fair])}


def left_out(one: Space, labels: Integers, classes: int) -> float:
    """The penalty of ridge with the lowest squared error of examples left out (Allen, 1974)."""
    x = one.train.astype(np.float64)
    truth = np.eye(classes)[labels]
    truth -= truth.mean(axis=0)
    level = np.square(x).sum() / len(x) / one.dimension
    if x.shape[1] == one.dimension:  # the axes are not those of the span
        values, vectors = np.linalg.eigh(x @ x.T)
    else:
        values, lengths = np.square(x).sum(axis=0), np.linalg.norm(x, axis=0)
        vectors = x / lengths
    found = []
    for decay in PATH:
        shrunk = values / (values + decay * len(x) * level)
        fitted = (vectors * shrunk) @ (vectors.T @ truth)
        lever = np.square(vectors) @ shrunk + 1 / len(x)
        found.append(np.square((truth - fitted) / (1 - np.minimum(lever, 0.999))[:, None]).mean())
    return PATH[int(np.argmin(found))]


def shrunken_lda(
    one: Space, labels: Integers, classes: int, examples: Integers | None = None
) -> Head:
    """Linear discriminants; the covariance within classes is shrunk (Ledoit and Wolf, 2004).

    The shrinkage is that in all d dimensions, of which those outside the span have no variance.
    With `examples` [n], the rows of an example weigh as one, and count as one in what the shrinkage
    takes for noise, since they resemble each other.
    """
    x = one.train.astype(np.float64)
    if examples is None:
        examples = np.arange(len(x))
    share = 1.0 / np.bincount(examples)[examples]
    share /= share.sum()
    of_example = np.bincount(examples, share)
    of_class = np.bincount(labels, share, classes)
    means = np.stack(
        [share[labels == one] @ x[labels == one] / of_class[one] for one in range(classes)]
    )
    within = (x - means[labels]) * np.sqrt(share)[:, None]
    dual = len(x) < x.shape[1]
    products = within @ within.T if dual else within.T @ within
    squares, level = float(np.square(products).sum()), np.trace(products) / one.dimension
    far = squares - one.dimension * level**2
    fourth = np.square(np.square(x - means[labels]).sum(axis=1))
    noise = (share * of_example[examples]) @ fourth - np.square(of_example).sum() * squares
    if level <= 0 or far <= 0:
        weight = means
    else:
        shrink = float(np.clip(noise / far, 1e-3, 1))
        ridge = shrink * level * np.eye(len(products))
        if dual:  # Woodbury's identity
            inner = np.linalg.solve(ridge + (1 - shrink) * products, within @ means.T)
            weight = (means - (1 - shrink) * inner.T @ within) / (shrink * level)
        else:
            weight = np.linalg.solve(ridge + (1 - shrink) * products, means.T).T
    bias = -0.5 * (weight * means).sum(axis=1)
    return Head(weight.astype(np.float32), bias.astype(np.float32))


def tempered(logits: Floats, labels: Integers) -> npt.NDArray[np.float64]:
    """The losses [n] at the best of some temperatures."""
    unit = logits / max(float(logits.std()), 1e-12)
    found = [log_loss(unit * factor, labels) for factor in np.geomspace(0.03, 30, 31)]
    return min(found, key=lambda losses: float(losses.mean()))


# Recipes


Answers = dict[str, npt.NDArray[np.bool_]]


def recipes(data: Set, size: int, seed: int, wide: bool) -> Answers:
    """Which test examples each recipe has right; those of pictures that lost only if `wide`."""
    draw = drawn(data, size, seed)
    labels, classes = data.labels[draw.rows], len(data.classes)
    tests, count = data.labels[draw.test], len(draw.rows)
    pictures = data.kind == "image"
    wide = wide or not pictures
    found: Answers = {}

    def answered(name: str, head: Head, where: Space) -> None:
        straight = head.logits(where.test)
        found[name] = np.asarray(straight.argmax(axis=1) == tests)
        if pictures:
            both = straight + head.logits(where.mirrored)
            found[name + MIRRORED] = np.asarray(both.argmax(axis=1) == tests)

    views = raised(data.views, 1.0 if data.kind == "text" else 0.5)
    shown, test, mirror = views[draw.rows, 0], views[draw.test, 0], views[draw.test, int(pictures)]
    ways = ("view 0", "mirror")[: 1 + (pictures and wide)]
    rules = ("auto", "tempered")[: 1 + wide]
    losses: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
    for layer, blocks in {"last": data.blocks[:1], "blocks": data.blocks}.items():
        columns = slice(0, blocks[-1].stop)
        cut = shown[:, columns], test[:, columns], mirror[:, columns]
        best: dict[str, str] = {}
        ways_to_scale = {"global": one_number, "per feature": each_column}
        if layer == "last" and not wide:
            del ways_to_scale["per feature"]
        for scale, of in ways_to_scale.items():
            scales = of(cut[0], blocks)
            where = space(*cut, scales)
            by_rule = validated(where, labels, classes)
            for rule in rules:
                loss = by_rule[rule][1]
                if rule not in best or loss.mean() < losses[layer, rule].mean():
                    best[rule], losses[layer, rule] = scale, loss
            tried = {rule: by_rule[rule][0] for rule in rules}
            if scale == "global":
                tried["0.003"] = 0.003
            if scale == "global" and layer == "last" and data.kind == "text":
                tried[TODAY] = validated(where, labels, classes, OF_TEXTS)["auto"][0]
            for word, value in tried.items():
                (head,) = heads(where.train, labels, classes, [where.decay(value)])
                name = word if word == TODAY else f"{layer}, view 0, {scale}, {word}"
                answered(name, head, where)
            if scale == "global" and wide:
                again = where.decay(left_out(where, labels, classes))
                (head,) = heads(where.train, labels, classes, [again], "ridge")
                answered(f"{layer}, view 0, ridge, auto", head, where)
                (head,) = heads(where.train, labels, classes, [0.0], "nearest_mean")
                answered(f"{layer}, view 0, nearest mean", head, where)
            of_scale = "LDA" if scale == "global" else "LDA per feature"
            answered(f"{layer}, view 0, {of_scale}", shrunken_lda(where, labels, classes), where)
            if pictures and wide:
                flipped = views[draw.rows, 1][:, columns]
                both = space(np.concatenate([cut[0], flipped]), *cut[1:], scales)
                for word, value in tried.items():
                    (head,) = heads(both.train, np.tile(labels, 2), classes, [both.decay(value)])
                    answered(f"{layer}, mirror, {scale}, {word}", head, both)
                if scale == "global":
                    pairs = np.tile(np.arange(count), 2)
                    head = shrunken_lda(both, labels[pairs], classes, pairs)
                    answered(f"{layer}, mirror, LDA", head, both)
            # As in a project of today.
            if scale == "global" and data.kind != "text":
                turned = np.flatnonzero(~draw.plain)
                many = [cut[0], *(views[draw.rows[turned], 2 + n][:, columns] for n in range(4))]
                names = np.concatenate([np.arange(count), *[turned] * 4])
                rows = np.concatenate(many)
                centre = rows.mean(axis=0)
                learnt, *asked = ((one - centre) / scales for one in (rows, *cut[1:]))
                every = Space(learnt, asked[0], asked[1], rows.shape[1])
                if layer == "last":
                    (head,) = heads(every.train, labels[names], classes, [0.003])
                    answered(TODAY, head, every)
                if layer == "last" and not wide:
                    continue
                head = shrunken_lda(every, labels[names], classes, names)
                answered(f"{layer}, 4 views weighed, LDA", head, every)
                for word, value in {"0.003": 0.003, "auto": tried["auto"]}.items():
                    given = every.train, labels[names], classes, [value]
                    (head,) = heads(*given, names=names.astype(str))
                    answered(f"{layer}, 4 views weighed, global, {word}", head, every)
        for rule, way in product(rules, ways):
            for ending in ("", MIRRORED)[: 1 + pictures]:
                of_best = f"{layer}, {way}, {best[rule]}, {rule}{ending}"
                found[f"{layer}, {way}, {rule}{ending}"] = found[of_best]
    for rule, ending in product(rules, ("", MIRRORED)[: 1 + pictures]):
        lead = losses["last", rule] - losses["blocks", rule]
        error = float(lead.std(ddof=1)) / np.sqrt(count)
        for how, more in {"lower loss": lead.mean() > 0, "paired": lead.mean() > error}.items():
            for way in ways:
                of_best = f"{'blocks' if more else 'last'}, {way}, {rule}{ending}"
                found[f"chosen ({how}), {way}, {rule}{ending}"] = found[of_best]
    return found | baselines(data, draw, wide)


def baselines(data: Set, draw: Draw, wide: bool) -> Answers:
    """What others make of the same rows: view 0, features as they are, standardised."""
    labels, tests, classes = data.labels[draw.rows], data.labels[draw.test], len(data.classes)
    found: Answers = {}
    for layer, blocks in {"last": data.blocks[:1], "blocks": data.blocks}.items():
        if layer == "last" and not wide:
            continue
        columns = slice(0, blocks[-1].stop)
        train, test = (data.views[rows, 0][:, columns] for rows in (draw.rows, draw.test))
        where = space(train, test, test, each_column(train, blocks))
        decay, _ = validated(where, labels, classes)["auto"]
        (logistic,) = heads(where.train, labels, classes, [where.decay(decay)])
        (nearest,) = heads(where.train, labels, classes, [0.0], "nearest_mean")
        lda = shrunken_lda(where, labels, classes)
        of = {"logistic regression": logistic, "LDA": lda, "nearest mean": nearest}
        for name, head in of.items():
            found[f"their {name}, {layer}"] = head.logits(where.test).argmax(axis=1) == tests
        every = np.arange(len(labels))
        cv = [(np.setdiff1d(every, one), one) for one in folds(labels)]
        if not cv:
            continue
        x, y = where.train.astype(np.float64), where.test.astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if wide and len(labels) <= 100:
                model = LogisticRegressionCV(
                    Cs=np.logspace(-5, 1, 13), cv=cv, max_iter=300, scoring="neg_log_loss",
                    l1_ratios=(0.0,), use_legacy_attributes=False,
                )  # fmt: skip
                answers = model.fit(x, labels).predict(y)
                found[f"LogisticRegressionCV itself, {layer}"] = answers == tests
            dots = x @ x.T, y @ x.T
            apart = [
                np.add.outer(np.square(one).sum(axis=1), np.square(x).sum(axis=1)) - 2 * dot
                for one, dot in zip((x, y), dots, strict=True)
            ]
            width = np.square(x).sum() / len(x)  # as `gamma="scale"` of SVC
            grids = {
                "linear": (dots, np.logspace(-5, -2, 4)),
                "RBF": ([np.exp(-one / width) for one in apart], np.logspace(0, 3, 4)),
            }
            if not wide:
                del grids["RBF"]
            for name, ((of_train, of_test), grid) in grids.items():
                search = GridSearchCV(SVC(kernel="precomputed"), {"C": grid}, cv=cv)
                answers = search.fit(of_train, labels).predict(of_test)
                found[f"their SVM, {name}, {layer}"] = answers == tests
    return found


# Results


@dataclass(frozen=True)
class Cell:
    """A set at a number of examples a class: accuracies by draw, and test over training rows."""

    name: str
    size: int
    accuracies: list[dict[str, float]]
    ratio: float

    def of(self, recipe: str) -> npt.NDArray[np.float64]:
        """The accuracy of each draw; NaN if it was not measured."""
        return np.array([one.get(recipe, np.nan) for one in self.accuracies])

    def gain(self, recipe: str, over: str) -> tuple[float, float, float, float]:
        """Mean difference, its interval's ends and its p-value (Nadeau and Bengio, 2003)."""
        apart = self.of(recipe) - self.of(over)
        apart = apart[~np.isnan(apart)]
        draws = len(apart)
        mean, spread = float(apart.mean()), float(apart.std(ddof=1)) if draws > 1 else 0.0
        error = spread * np.sqrt(1 / draws + self.ratio)
        if not all(np.nanstd(self.of(one)) > 1e-9 for one in (recipe, over)):
            return mean, np.nan, np.nan, 1.0  # every draw has the same examples, or no mistake
        reach = float(stats.t.ppf((1 + LEVEL) / 2, draws - 1)) * error
        return mean, mean - reach, mean + reach, 2 * float(stats.t.sf(abs(mean / error), draws - 1))

    def best_of_theirs(self) -> str:
        """The baseline with the highest mean, which was seen only after the tests: no handicap."""
        theirs = [one for one in self.accuracies[0] if one.startswith("their ")]
        theirs = [one for one in theirs if not np.isnan(self.of(one)).any()]
        return max(theirs, key=lambda one: float(self.of(one).mean()))


def cells(cache: Path, sizes: Sequence[int], draws: int) -> list[Cell]:
    """The results of every set, from the cache or measured now."""
    found = []
    for name in SETS:
        data: Set | None = None
        for size in sizes:
            every, ratio = [], 0.0
            for seed in range(draws):
                file = cache / "results" / f"{name} {size} {seed}.json"
                if not file.exists():
                    data = data or made(name, cache)
                    if size > 0.6 * np.median(np.bincount(data.labels)) + 3:
                        break  # hardly a class has so many
                    with threadpool_limits(1):
                        right = recipes(data, size, seed, seed < WIDE or size in FEW)
                    draw = drawn(data, size, seed)
                    kept = {one: float(np.mean(answers)) for one, answers in right.items()}
                    about = {"ratio": len(draw.test) / len(draw.rows), "accuracy": kept}
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(json.dumps(about, indent=1))
                one = json.loads(file.read_text())
                every.append(one["accuracy"])
                ratio = one["ratio"]
            if every:
                found.append(Cell(name, size, every, ratio))
    return found


def overview(of_kind: list[Cell]) -> str:
    """Every recipe's gain over today's default: means by size, and the worst set."""
    common = set.intersection(*(set().union(*cell.accuracies) for cell in of_kind))
    rows = []
    for recipe in common - {TODAY}:
        gains = {
            (cell.name, cell.size): float(np.nanmean(cell.of(recipe) - cell.of(TODAY)))
            for cell in of_kind
        }
        by_size = [
            np.mean([gain for (_, size), gain in gains.items() if size == one]) for one in SIZES
        ]
        by_set = {
            name: np.mean([gain for (one, _), gain in gains.items() if one == name])
            for name, _ in gains
        }
        worst = min(by_set, key=lambda name: by_set[name])
        rows.append((recipe, float(np.mean([*by_set.values()])), *by_size,
                     f"{by_set[worst]:+.3f} ({worst})", min(gains.values())))  # fmt: skip
    columns = "recipe | mean over sets {:+.4f} | " + " | ".join(f"{one} {{:+.3f}}" for one in SIZES)
    columns += " | worst set | worst cell {:+.3f}"
    return table(columns, sorted(rows, key=lambda row: -row[1]))


def by_cell(every: list[Cell], recipe: dict[str, str]) -> str:
    """The recommended recipe of each kind beside today's default and the best baseline."""
    rows, pairs = [], []
    for cell in every:
        ours = recipe[SETS[cell.name].kind]
        theirs = cell.best_of_theirs()
        gain, behind = cell.gain(ours, TODAY), cell.gain(ours, theirs)
        pairs += [gain[3], behind[3]]
        said = [
            f"{mean:+.3f}" + (f" ({low:+.3f} to {high:+.3f})" if low == low else "")
            for mean, low, high, _ in (gain, behind)
        ]
        figures = (float(cell.of(one).mean()) for one in (TODAY, ours))
        best = f"{theirs.removeprefix('their ')} {cell.of(theirs).mean():.3f}"
        rows.append([cell.name, cell.size, *figures, said[0], best, said[1]])
    adjusted = holm(np.array(pairs))
    for number, row in enumerate(rows):
        marks = ["**" if adjusted[2 * number + at] < 1 - LEVEL else "" for at in (0, 1)]
        row[4], row[6] = f"{marks[0]}{row[4]}{marks[0]}", f"{marks[1]}{row[6]}{marks[1]}"
    columns = "set | a class | today {:.3f} | recommended {:.3f} | gain, 95 %"
    columns += " | best of the baselines, seen afterwards | ahead of it, 95 %"
    return table(columns, rows)


def by_number(every: list[Cell], kind: str) -> str:
    """Accuracies of some recipes by the number of examples a class, means over sets."""
    mine = [cell for cell in every if SETS[cell.name].kind == kind]
    sizes = sorted({cell.size for cell in mine})
    everywhere = [
        name for name in dict.fromkeys(cell.name for cell in mine)
        if {cell.size for cell in mine if cell.name == name} >= set(sizes)
    ]  # fmt: skip
    rows = []
    for recipe in BY_NUMBER:
        if all(any(recipe in one for one in cell.accuracies) for cell in mine):
            of = {
                size: np.mean(
                    [
                        np.nanmean(c.of(recipe))
                        for c in mine
                        if c.size == size and c.name in everywhere
                    ]
                )
                for size in sizes
            }
            rows.append((recipe, *of.values()))
    return table("recipe | " + " | ".join(f"{size} {{:.3f}}" for size in sizes), rows)


def about(cache: Path) -> str:
    rows = []
    for name, one in SETS.items():
        data = made(name, cache)
        rows.append((name, one.what, one.source, one.licence, one.imagenet or "–",
                     len(data.classes), len(data.labels)))  # fmt: skip
    return table("set | what | source | licence | of ImageNet's kind | classes | examples", rows)


RECOMMENDED = {
    "image": "blocks, view 0, LDA",
    "text": "chosen (lower loss), view 0, tempered",
    "audio": "blocks, view 0, tempered",
}
BY_NUMBER = (
    TODAY,
    *(
        "last, view 0, global, 0.003",
        "last, view 0, global, auto",
        "last, view 0, global, tempered",
    ),
    *("last, view 0, nearest mean", "last, view 0, LDA", "last, view 0, ridge, auto"),
    *("blocks, view 0, global, auto", "blocks, view 0, per feature, auto"),
    *("blocks, view 0, per feature, tempered", "blocks, view 0, nearest mean"),
    *("blocks, view 0, LDA", "blocks, view 0, ridge, auto", "blocks, 4 views weighed, LDA"),
)
KINDS = {"image": "Pictures", "text": "Texts", "audio": "Sounds"}


def measure(cache: Path, draws: int = 10) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every, few = cells(cache, SIZES, draws), cells(cache, FEW, min(draws, WIDE))
    sections = []
    for kind, title in KINDS.items():
        if mine := [cell for cell in every if SETS[cell.name].kind == kind]:
            sections.append(
                f"## {title}\n\n{overview(mine)}\n\n### By number of examples a class\n"
            )
            sections.append(by_number([*few, *every], kind))
    joined = "\n\n".join(sections)
    return f"""# Recipes on frozen features

EfficientNet-Lite0, MiniLM and the speech embedding, as they are; {draws} draws. {PAGE}

## The sets

{about(cache)}

{joined}

## By set

{by_cell(every, RECOMMENDED)}
"""


PAGE = """A recipe is named by
its features (`last`: the last layer's mean; `blocks`: the means of five inner blocks beside it,
each divided by one number), by the views of training examples (`view 0`; `mirror`: view 0 and its
mirror image; `4 views weighed`: view 0 and four rotated and scaled views of three quarters of the
examples, the rows of an example weighing as one), by the scale of features (`global` or
`per feature`), and by its penalty: 0.003, or of a path from 100 to 0.0003 the one with the lowest
held-out loss in five folds, as it is (`auto`) or at its best temperature (`tempered`).
`mirrored answers` are the mean of the logits of a picture and its mirror image, at twice the cost.
`chosen` compares held-out losses. `today` is the pipeline's default: the last layer, four augmented
views of three quarters of the examples, all rows weighing alike, penalty 0.003, power 0.5; for
texts view 0, power 1 and the penalties of examples/text/params.yaml; for sounds as for pictures.

`their` recipes are baselines on the same rows: view 0, features standardised, without a power, and
the penalty by cross-validation. Their logistic regression is the same model as `StandardScaler` and
`LogisticRegressionCV`, found by the pipeline's solver; `LogisticRegressionCV itself` was measured
with at most 100 rows. LDA is shrunk by Ledoit and Wolf's formula.

Intervals and p-values are over draws, corrected for what they have in common (Nadeau and Bengio,
2003); bold ones stay below 0.05 after Holm's correction over all of the table. There is none where
every draw has the same training examples. Recipes of pictures that lost early were measured in two
draws only, as were the numbers below 10 a class. Baselines of pictures stand on `blocks`; those on
`last` were measured in two draws."""

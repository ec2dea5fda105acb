"""Defaults on sets that none of them was chosen on, and what else the same features give.

    python -m benchmarks unseen PART FOLDER [--draws DRAWS]

The sets are `UNSEEN` of benchmarks/recipes_sets.py, which was committed before the first run, and
those of benchmarks/recipes.py, whose FOLDER keeps features and results here too. Features are those
of view 0, by the pipeline's engines. In a draw, two fifths of the groups are for the test; of each
class of the others, at most so many examples are learned from.
"""

import hashlib
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from benchmarks.harness import table
from benchmarks.recipes import Cell, each_column, heads, space, validated
from benchmarks.recipes_sets import SETS, UNSEEN, chosen
from flows.choose import chosen as as_parameters
from pipeline import kinds
from pipeline.backbones.engines import open_encoder
from pipeline.core.params import EvaluateParams, ExtractParams, TrainParams
from pipeline.evaluation.floor import compared
from pipeline.heads import choice, floor, penalty
from pipeline.heads.fit import fit_heads
from pipeline.heads.head import Head
from pipeline.heads.hyperparameters import every_combination
from pipeline.heads.trained import Schedule
from pipeline.tables import joined
from pipeline.tables.features import Split
from pipeline.tables.floor import LEARNED
from pipeline.tables.layers import LAST, Layer, Layers, by_layer
from pipeline.tables.power import raised
from pipeline.transfer.comparison import headed, unions, winner

Rows = npt.NDArray[np.int64]
EVERY = UNSEEN | SETS
MOST = 200  # examples of a class of the unseen sets
SIZES = (10, 50, 0)  # examples of a class to learn from; 0: all
BACKBONES = {
    "image": ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"),
    "text": ("minilm_l6_v2", "tf_idf"),
    "audio": ("speech_embedding", "whisper_tiny_en", "efficientnet_lite0"),
}
OF_DEFAULT = {kind: names[0] for kind, names in BACKBONES.items()}
OF_DEFAULT["audio"] = "speech_embedding+mfcc"
DEFAULTS = {  # as `headstart init` writes them
    "image": TrainParams(optimizer=["lda", "lbfgs"], layers="auto"),
    "text": TrainParams(optimizer="lbfgs", weight_decay="auto", layers="auto", power=1.0),
    "audio": TrainParams(optimizer="lbfgs", weight_decay="auto", layers="auto"),
}
BEFORE = TrainParams(optimizer="lbfgs", weight_decay=0.003)  # without `layers` and `auto`
BEFORE_TEXTS = TrainParams(optimizer="lbfgs", weight_decay=0.03, power=1.0)


@dataclass(frozen=True)
class Seen:
    """The examples of a set as a backbone sees them; `cpu` is milliseconds of processor for one."""

    rows: Split
    groups: npt.NDArray[np.str_]
    layers: Layers
    classes: int
    cpu: float = 0.0

    @property
    def parts(self) -> list[npt.NDArray[np.float32]]:
        return by_layer(self.rows.features, self.layers)

    def last(self) -> "Seen":
        """Without inner blocks."""
        last = np.ascontiguousarray(self.parts[0])
        return replace(self, rows=replace(self.rows, features=last), layers=())


def seen(name: str, backbone: str, cache: Path) -> Seen:
    """A set with its features, raised to its kind's power; joined ones from those of the parts."""
    if "+" in backbone:
        parts = [seen(name, part, cache) for part in backbone.split("+")]
        # Scaled after they were raised, which makes a difference of a number for each example.
        last, blocks = joined.parted([part.parts for part in parts])
        features = joined.with_blocks(last, blocks)
        layers = tuple(layer for part in parts for layer in part.layers[1:])
        if layers:
            layers = (Layer(LAST, sum(one.shape[1] for one in last)), *layers)
        rows = replace(parts[0].rows, features=features)
        return replace(parts[0], rows=rows, layers=layers, cpu=sum(one.cpu for one in parts))
    source = EVERY[name]
    file = cache / "unseen" / f"{name} {backbone}.npz"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        if not (folder := cache / "sets" / name).exists():
            source.gather(folder, cache / "raw")
        of_class = chosen(folder, source.classes, MOST if name in UNSEEN else 100)
        files = [(*of, n) for n, some in enumerate(of_class.values()) for of in some]
        kind = kinds.named(source.kind)
        asked = ExtractParams(backbone=backbone, blocks="all", engine="onnxruntime")
        encoder, start, found = open_encoder(asked, kind), time.process_time(), []
        for at in range(0, len(files), 64):
            views = [(path.read_bytes(), [kind.original]) for path, *_ in files[at : at + 64]]
            found.append(encoder.engines[0].features(encoder.engines[0].make_views(views), 8))
        np.savez(
            file, features=np.concatenate(found), groups=[group for _, group, _ in files],
            labels=[label for *_, label in files], widths=[of.width for of in encoder.layers],
            cpu=1000 * (time.process_time() - start) / len(files),
        )  # fmt: skip
    with np.load(file) as kept:
        features = raised(kept["features"], DEFAULTS[source.kind].power)
        layers = tuple(Layer(f"{n}" if n else LAST, int(w)) for n, w in enumerate(kept["widths"]))
        names = [f"{n}" for n in range(len(features))]
        return of_rows(names, kept["labels"], features, kept["groups"], layers, float(kept["cpu"]))


def of_rows(
    names: list[str], labels: Any, features: Any, groups: Any, layers: Layers = (), cpu: float = 0
) -> Seen:
    digests = np.array([hashlib.sha256(name.encode()).hexdigest() for name in names])
    rows = Split(digests, digests, np.zeros(len(names), np.int32), labels, features)
    return Seen(rows, np.asarray(groups), layers, int(labels.max()) + 1, cpu)


def drawn(one: Seen, size: int, seed: int) -> tuple[Rows, Rows]:
    """Rows to learn from, and to test on; classes that are not learned are in neither."""
    random = np.random.default_rng([seed, 28])
    names, labels = random.permutation(np.unique(one.groups)), one.rows.labels
    asked = np.isin(one.groups, names[: round(0.4 * len(names))])
    order = random.permutation(len(labels))
    order = order[~asked[order]]
    learnt = [order[labels[order] == label][: size or None] for label in range(one.classes)]
    here = np.isin(labels, [label for label, rows in enumerate(learnt) if len(rows)])
    return np.concatenate(learnt), np.flatnonzero(asked & here)


@dataclass(frozen=True)
class Model:
    """A head as `train` makes it, and the columns that it takes."""

    head: Head
    columns: slice

    def right(self, rows: Split) -> float:
        answers = self.head.logits(rows.features[:, self.columns]).argmax(axis=1)
        return float((answers == rows.labels).mean())


def trained(one: Seen, learnt: Rows, how: TrainParams, counts: bool = False) -> Model:
    """What `train` makes with these parameters, with no example left for validation."""
    one = one.last() if how.layers == LAST else one
    rows, keys, layers = one.rows.take(learnt), one.groups[learnt].tolist(), one.layers
    schedule = Schedule(1, 1, 0, np.ones(one.classes, np.float32), counts, layers=layers)
    asked, columns = every_combination(how), None
    if how.cross_validates:
        best, *_ = choice.choose(rows, keys, asked, layers, schedule)
        asked, layers, columns = [best.hyperparameters], best.layers, best.of_last
    elif how.weight_decay == "auto":
        options = penalty.candidates(layers, how.layers == "auto")
        found = penalty.choose(rows, keys, "lbfgs", schedule, len(learnt), options)
        asked, layers = [found.head(asked[0])], found.candidate.layers
        columns = found.candidate.columns
    columns = columns or slice(rows.features.shape[1])
    rows = replace(rows, features=rows.features[:, columns].copy())
    schedule = replace(schedule, layers=layers)
    (fitted,) = fit_heads(rows, rows.take(slice(0)), asked, schedule, "cpu")
    assert fitted.head is not None
    return Model(fitted.head, columns)


def kept(file: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a piece of work gave, from the file if it is there."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")
            found = work()
        file.write_text(json.dumps(found))
    return dict(json.loads(file.read_text()))


# default

TITLES = "titles"  # on which defaults were chosen: for the line about the floor alone
DEFAULT, OWN, LDA, TUNED = "default", "own features", "floor, LDA", "floor, tuned"


def tuned(one: Seen, learnt: Rows, asked: Rows) -> float:
    """The accuracy of standardised features and logistic regression, tuned by five folds."""
    train, test = one.rows.features[learnt], one.rows.features[asked]
    where = space(train, test, test, each_column(train, [slice(None)]))
    present, labels = np.unique(one.rows.labels[learnt], return_inverse=True)
    decay, _ = validated(where, labels, len(present))["auto"]
    (head,) = heads(where.train, labels, len(present), [where.decay(decay)])
    answers = present[head.logits(where.test).argmax(axis=1)]
    return float((answers == one.rows.labels[asked]).mean())


def of_draw(name: str, size: int, seed: int, cache: Path) -> dict[str, Any]:
    """Accuracies of the default, of tuned heads on its features and on its floor; the line."""
    kind = EVERY[name].kind
    of_floor = kinds.named(kind).floor
    assert of_floor is not None
    own, cheap = (seen(name, of, cache) for of in (OF_DEFAULT[kind], of_floor))
    learnt, asked = drawn(own, size, seed)
    test, model = own.rows.take(asked), trained(own, learnt, DEFAULTS[kind])
    some = np.random.default_rng(seed).permutation(learnt)[:LEARNED]
    some = some[own.rows.digests[some].argsort()]
    rich = own.rows.take(some)
    rich = replace(rich, features=rich.features[:, model.columns].copy())
    given = cheap.rows.take(some), {"train": rich}, "classification", own.classes, False
    pair = floor.fitted(*given)
    assert pair is not None
    below = pair.floor.logits(cheap.rows.features[asked])
    above = pair.backbone.logits(test.features[:, model.columns])
    names, group = np.unique(own.groups, return_inverse=True)
    groups = None if len(names) == len(group) else group[asked]
    answers = test.labels, below, above
    lead = compared(of_floor, "classification", *answers, EvaluateParams(), groups)
    return {
        "ratio": len(asked) / len(learnt),
        "said": "hardly better" in "".join(lead.lines(0.95)),
        "accuracy": {
            DEFAULT: model.right(test),
            OWN: tuned(own.last() if kind == "text" else own, learnt, asked),
            LDA: float((below.argmax(axis=1) == test.labels).mean()),
            TUNED: tuned(cheap, learnt, asked),
        },
    }  # fmt: skip


def measure_default(cache: Path, draws: int = 10) -> str:
    """Defaults on unseen sets, beside their floor and tuned logistic regression; the floor's line.

    Takes the sets of packages example-text and example-audio, Debian's apt-get, pip, and a clone of
    the digits' repository in FOLDER/raw.
    """
    rows, behind = [], dict[str, list[float]]()
    for name in (*UNSEEN, TITLES):
        own = seen(name, OF_DEFAULT[EVERY[name].kind], cache)
        most = 0.6 * np.bincount(own.rows.labels).max()
        for size in (one for one in SIZES if one < most):  # others are all
            found = [
                kept(cache / "unseen" / f"{name} {size} {seed}.json",
                     partial(of_draw, name, size, seed, cache))
                for seed in range(draws)
            ]  # fmt: skip
            cell = Cell(name, size, [one["accuracy"] for one in found], found[0]["ratio"])
            means = {way: float(cell.of(way).mean()) for way in (DEFAULT, OWN, LDA, TUNED)}
            best = max((OWN, LDA, TUNED), key=lambda way: means[way])
            gain, low, high, _ = cell.gain(DEFAULT, best)
            if name in UNSEEN:
                behind.setdefault(name, []).append(gain)
            interval = f"{gain:+.3f}" + (f" ({low:+.3f} to {high:+.3f})" if low == low else "")
            said = sum(one["said"] for one in found)
            rows.append((name, size or "all", *means.values(), interval, f"{said} of {draws}"))
    lost = [name for name, gains in behind.items() if np.mean(gains) < -0.01]
    cells = [gain for gains in behind.values() for gain in gains]
    columns = f"set | a class | default {{:.3f}} | {OWN}, tuned {{:.3f}} | {LDA} {{:.3f}}"
    columns += f" | {TUNED} {{:.3f}} | default − best of the others, 95 % | draws with the line"
    about = [(name, of.what, of.source, of.licence) for name, of in UNSEEN.items()]
    return f"""# Defaults on sets that none was chosen on

{table("set | what | source | licence", about)}

Texts: MiniLM. Sounds: the speech embedding joined with `mfcc`. `default` is the head that `train`
makes with the parameters of `headstart init`, on the last layer or all. The others are logistic
regression on standardised features, with a penalty by five folds, on the features of the default
(of texts only on the last layer) and on its floor (`characters`, `mfcc`), and the floor's own head
in a run. {draws} draws; intervals are corrected for what draws have in common (Nadeau and Bengio,
2003). The best of the others is seen afterwards.
That texts have `layers: auto` was decided when these sets of texts had been seen without it, and
that sounds have `mfcc` when these sets of sounds had been seen without it. [heads.md](heads.md) has
three further sets of texts.
The line says that the backbone is hardly better than its floor.

Behind by more than 0.01 in the mean over sizes: {", ".join(lost) or "none"} ({len(lost)} of
{len(behind)} sets); in single rows {sum(gain < -0.01 for gain in cells)} of {len(cells)}.
`{TITLES}`, on which defaults were chosen, are here for the line alone.

{table(columns, rows)}
"""


# choose

OF_CHOOSE = (20,)  # examples of a class
OF_KIND = {
    "image": ("digits", "letters", "sprites", "stamps", "emoji", "hymenoptera"),
    "text": ("glosses", "computing", "reviews", "German sayings"),
    "audio": ("languages", "samples"),
}
BUDGETS = {"choose, its time": 1.0, "2.5 times": 2.5, "no budget": None}
LOWEST = ", lowest loss"


def of_choice(name: str, size: int, seed: int, cache: Path) -> dict[str, Any]:
    """Test accuracies of heads on single backbones, and of what `choose` takes; what that is."""
    kind = EVERY[name].kind
    (first, *_), cheap, how = BACKBONES[kind], kinds.named(kind).floor, DEFAULTS[kind]
    every = [one for one in unions(BACKBONES[kind]) if one == "tf_idf" or "tf_idf" not in one]
    views = {one: seen(name, one, cache) for one in (*every, cheap)}
    learnt, asked = drawn(views[first], size, seed)
    keys = np.unique(views[first].groups[learnt], return_inverse=True)[1]

    def right(backbone: str, how: TrainParams) -> float:
        model = trained(views[backbone], learnt, how, backbone == "tf_idf")
        return model.right(views[backbone].rows.take(asked))

    before = BEFORE_TEXTS if kind == "text" else BEFORE
    found = {"before": right(first, before)} | {one: right(one, how) for one in BACKBONES[kind]}
    candidates = [
        headed(one, of.rows.take(learnt), keys, of.layers, how, one == "tf_idf", of.classes, of.cpu)
        for one, of in views.items()
    ]
    taken, accuracies = {}, dict[str, float]()
    for way, budget in BUDGETS.items():
        limit = None if budget is None else budget * 1.001 * views[first].cpu
        endings = ("", LOWEST) if budget is None else ("",)
        for ending, one in zip(endings, winner(candidates, limit), strict=False):
            if one.name not in accuracies:
                lines = as_parameters(one, how).items()
                more = {key[6:]: of for key, of in lines if key.startswith("train.")}
                accuracies[one.name] = right(one.name, TrainParams(**(how.model_dump() | more)))
            found[way + ending], taken[way + ending] = accuracies[one.name], one.name
    return {"ratio": len(asked) / len(learnt), "accuracy": found, "taken": taken}


def measure_choose(cache: Path, draws: int = 3) -> str:
    """What `headstart choose` gains on test examples that it did not see, within budgets."""
    sections = []
    ways = [*BUDGETS, f"no budget{LOWEST}"]
    for kind, names in OF_KIND.items():
        rows = []
        taken: Counter[str] = Counter()
        for name in names:
            for size in OF_CHOOSE:
                found = [
                    kept(cache / "unseen" / f"choose {name} {size} {seed}.json",
                         partial(of_choice, name, size, seed, cache))
                    for seed in range(draws)
                ]  # fmt: skip
                columns = ["before", *BACKBONES[kind], *ways]
                means = [np.mean([one["accuracy"][way] for one in found]) for way in columns]
                rows.append((name, size, *means))
                taken.update(one["taken"]["no budget"] for one in found)
        means = list(np.mean(np.array([row[2:] for row in rows], float), axis=0))
        rows.append(("**mean**", "", *means))
        rows.append(("**more than before**", "", *(f"{one - means[0]:+.4f}" for one in means)))
        head = f"set | a class | {' | '.join(f'{one} {{:.3f}}' for one in columns)}"
        most = ", ".join(f"{one} {count}" for one, count in taken.most_common(4))
        title = kinds.named(kind).nouns.capitalize()
        sections.append(f"## {title}\n\n{table(head, rows)}\n\nMost taken, no budget: {most}.")
    together = "\n\n".join(sections)
    return f"""# What `headstart choose` gains

{draws} draws, accuracies. `before` is the default of before inner blocks and `weight_decay: auto`:
the last layer, 0.003 (texts: 0.03). Then come heads on single backbones with the default's
parameters; the first of these is the default. Then comes what `choose` takes: within a budget of
processor time an answer, the candidate with the lowest loss; without a budget, the fastest of those
that are not significantly worse than that, and beside it the one with the lowest loss. Candidates
are the backbones, their joins, and the floor, cross-validated on the examples to learn from, so the
test examples play no part. `choose` takes the lowest loss within a budget since this table showed
that the fastest one gains less, so the columns with a budget are a little flattered.

{together}
"""


PARTS = {
    "default": measure_default,
    "choose": measure_choose,
}

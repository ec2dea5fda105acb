"""Which backbone recognises topics of titles? MiniLM, TF-IDF, and TF-IDF with scikit-learn.

The titles of `examples/text/data.py`, of which none occurs twice: equal ones, and those that
the kind calls copies, are left out before anything is split. A seed draws the test titles and the
order of the others, of which the first 50, 250 or 1,780 are learned from. Our heads are trained as
`train` trains them with `examples/text/params.yaml`: a fifth of the titles to learn from is for
validation, which picks the weight decay, and the head is then trained on all of them.
"""

import runpy
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import yaml
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.pipeline import make_pipeline

from benchmarks.harness import ROOT, table
from pipeline import kinds
from pipeline.backbones.engines import open_engine
from pipeline.core.params import ExtractParams, TrainParams
from pipeline.heads.fit import fit_heads, refit
from pipeline.heads.hyperparameters import every_combination
from pipeline.heads.trained import Schedule, order
from pipeline.kinds.text.copies import same, words
from pipeline.tables.features import Split
from pipeline.tables.power import raised

SIZES = (50, 250, 1780)
TITLES = 10_000  # that are looked at: all
BATCH = 256
LEVEL = 0.95
OURS = {"MiniLM": "minilm_l6_v2", "MiniLM, int8": "minilm_l6_v2_int8", "TF-IDF": "tf_idf"}
FIXED, TUNED = "scikit-learn, C = 1", "scikit-learn, C by cross-validation"

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def titles() -> tuple[list[tuple[str, str]], int]:
    """Titles and topics without doubles and near-doubles, and how many titles there were."""
    every = runpy.run_path(str(ROOT / "examples" / "text" / "data.py"))["titles"]()
    every = every[:: -(-len(every) // TITLES)]
    kept: dict[tuple[str, ...], tuple[str, str]] = {}
    for title, topic in every:
        key = tuple(words(title))
        if key not in kept and not any(_alike(key, other) for other in kept):
            kept[key] = (title, topic)
    return list(kept.values()), len(every)


def _alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """As `same`, which is not asked where the two share less than half of their words."""
    return 2 * len({*one} & {*other}) >= min(len(one), len(other)) and same(list(one), list(other))


def features(texts: list[str], backbone: str) -> Floats:
    """What `extract` makes of the texts."""
    engine = open_engine(ExtractParams(backbone=backbone), kinds.named("text"))
    return engine.features(engine.make_views([(text.encode(), [()]) for text in texts]), BATCH)


def rows(features: Floats, labels: Integers, chosen: Integers) -> Split:
    names = chosen.astype(str)
    return Split(names, names, np.zeros(len(chosen), np.int32), labels[chosen], features[chosen])


def by_head(
    seen: Floats, counts: bool, labels: Integers, learnt: Integers, asked: Integers
) -> npt.NDArray[np.bool_]:
    """Which titles our head has right, after `train`."""
    section = yaml.safe_load((ROOT / "examples" / "text" / "params.yaml").read_text())["train"]
    settings = TrainParams(**section)
    held = len(learnt) // 5
    train, val = (
        rows(raised(seen, settings.power), labels, some) for some in (learnt[held:], learnt[:held])
    )
    schedule = Schedule(1, BATCH, 0, np.ones(labels.max() + 1, np.float32), counts)
    best = min(fit_heads(train, val, every_combination(settings), schedule, "cpu"), key=order)
    head = refit(best, train, val, schedule, "cpu")
    logits = head.logits(raised(seen[asked], settings.power))
    return np.asarray(logits.argmax(axis=1) == labels[asked])


def by_sklearn(
    texts: npt.NDArray[np.object_], tuned: bool, labels: Integers, learnt: Integers, asked: Integers
) -> npt.NDArray[np.bool_]:
    """Which titles scikit-learn's TF-IDF and logistic regression tell right."""
    model = LogisticRegression(max_iter=1000)
    if tuned:
        least = np.bincount(labels[learnt]).min()
        model = LogisticRegressionCV(
            Cs=np.logspace(-1, 3, 9), cv=max(2, min(5, int(least))), max_iter=1000,
            l1_ratios=(0.0,), use_legacy_attributes=False,
        )  # fmt: skip
    both = make_pipeline(TfidfVectorizer(), model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both.fit(texts[learnt], labels[learnt])
    return np.asarray(both.predict(texts[asked]) == labels[asked])


def interval(values: npt.NDArray[np.float64]) -> str:
    """The mean of one figure a seed, and its interval by Student's t."""
    reach = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values)
    return f"{values.mean():+.3f} ({values.mean() - reach:+.3f} to {values.mean() + reach:+.3f})"


def measure(seeds: int = 5) -> str:
    kept, total = titles()
    texts = np.array([title for title, _ in kept], dtype=object)
    topics = sorted({topic for _, topic in kept})
    labels = np.array([topics.index(topic) for _, topic in kept], dtype=np.int64)
    ways: dict[str, Callable[..., npt.NDArray[np.bool_]]] = {
        name: partial(by_head, features(texts.tolist(), backbone), backbone == "tf_idf", labels)
        for name, backbone in OURS.items()
    }
    ways |= {FIXED: partial(by_sklearn, texts, False, labels)}
    ways |= {TUNED: partial(by_sklearn, texts, True, labels)}
    found: dict[tuple[str, int], list[float]] = {}
    for seed in range(seeds):
        drawn = np.random.default_rng(seed).permutation(len(texts))
        asked, others = drawn[max(SIZES) :], drawn[: max(SIZES)]
        for size in SIZES:
            for name, way in ways.items():
                right = way(others[:size], asked)
                found.setdefault((name, size), []).append(float(right.mean()))
    accuracy = [(name, *(np.mean(found[name, size]) for size in SIZES)) for name in ways]
    ahead = [
        (
            name,
            *(
                interval(np.array(found["MiniLM", size]) - np.array(found[name, size]))
                for size in SIZES
            ),
        )
        for name in ways
        if name != "MiniLM"
    ]
    sizes = [f"{size:,} titles" for size in SIZES]
    return f"""# Topics of BBC news from titles alone

{len(texts):,} of {total:,} titles, without doubles and near-doubles, in {len(topics)} topics;
{len(texts) - max(SIZES)} are for the test, drawn again by each of {seeds} seeds. The head and its
settings are those of `examples/text/params.yaml`, validated on a fifth of the titles to learn from.

Accuracy on test titles, means over the seeds, by how many titles were learned from:

{table(" | ".join(["backbone", *(f"{size} {{:.3f}}" for size in sizes)]), accuracy)}

How far MiniLM is ahead, on the same titles: means of the differences over the seeds, and their
{100 * LEVEL:g} % intervals by Student's t:

{table(" | ".join(["of", *sizes]), ahead)}
"""

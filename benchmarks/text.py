"""Texts: which backbone, how fast, and what finetuning an encoder is worth."""

import contextlib
import csv
import hashlib
import json
import os
import random
import runpy
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import yaml
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.pipeline import make_pipeline

from benchmarks.harness import ROOT, Project, cost, need, optional, ratios, spread, table
from pipeline import kinds
from pipeline.backbones import catalogue
from pipeline.backbones.engines import Engine, open_engine
from pipeline.backbones.minilm import FILES, LONGEST
from pipeline.core.backbone import Backbone
from pipeline.core.params import ExtractParams, FinetuneParams, TrainParams
from pipeline.heads import penalty
from pipeline.heads.fit import fit_heads
from pipeline.heads.head import Head
from pipeline.heads.hyperparameters import every_combination
from pipeline.heads.trained import Schedule
from pipeline.kinds.text import tokens
from pipeline.kinds.text.copies import same, words
from pipeline.runners.threads import batches, features_of
from pipeline.tables.features import Split
from pipeline.tables.power import raised
from pipeline.transfer import finetuning, lora
from pipeline.transfer.network import Network
from pipeline.transfer.recipe import Recipe

# accuracy

SIZES = (50, 250, 1780)
sentence_transformers = optional("sentence_transformers")
TITLES = 10_000  # that are looked at: all
BATCH = 256  # as in examples/text/params.yaml
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
    given = rows(raised(seen, settings.power), labels, learnt)
    schedule = Schedule(1, BATCH, 0, np.ones(labels.max() + 1, np.float32), counts)
    # `weight_decay: auto`
    chosen = penalty.choose(given, given.digests.tolist(), "lbfgs", schedule, len(learnt))
    used = [chosen.head(one) for one in every_combination(settings)]
    (trained,) = fit_heads(given, given.take(slice(0)), used, schedule, "cpu")
    head = trained.head
    assert head is not None
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


def measure_accuracy(seeds: int = 5) -> str:
    """Which backbone recognises topics of titles? MiniLM, TF-IDF, and TF-IDF with scikit-learn.

    The titles of `examples/text/data.py`, of which none occurs twice: equal ones, and those that
    the kind calls copies, are left out before anything is split. A seed draws the test titles and
    the order of the others, of which the first 50, 250 or 1,780 are learned from. Our heads are
    trained as `train` trains them with `examples/text/params.yaml`, on the last layer:
    cross-validation chooses the weight decay.
    """
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
settings are those of `examples/text/params.yaml`, on the last layer.

Accuracy on test titles, means over the seeds, by how many titles were learned from:

{table(" | ".join(["backbone", *(f"{size} {{:.3f}}" for size in sizes)]), accuracy)}

How far MiniLM is ahead, on the same titles: means of the differences over the seeds, and their
{100 * LEVEL:g} % intervals by Student's t:

{table(" | ".join(["of", *sizes]), ahead)}
"""


# speed

THEIR_BATCHES = (32, 256)  # the default of `encode`, and ours


def articles(some: int) -> list[str]:
    """Articles in an order that does not go by topic."""
    folder = runpy.run_path(str(ROOT / "examples" / "text" / "data.py"))["articles"]()
    files = sorted(folder.rglob("*.txt"))
    random.Random(0).shuffle(files)  # noqa: S311 (no secret)
    return [file.read_text(encoding="utf-8", errors="replace") for file in files[:some]]


def mixed(every: list[str]) -> list[str]:
    """One half are titles, the other half beginnings of up to some 256 tokens."""
    drawn = random.Random(1)  # noqa: S311
    return [
        text.splitlines()[0]
        if drawn.random() < 0.5
        else " ".join(text.split()[: drawn.randint(10, 200)])
        for text in every
    ]


def measure_speed(scratch: Path, rounds: int = 5, some: int = 128) -> str:
    """Texts a second: `extract`'s way beside sentence-transformers' `encode`, with the same
    weights.

    Both on one thread, taking turns in one process, and OpenVINO in bfloat16 beside them. Seconds
    are those of the processor, so that other work on the machine matters little: with more threads
    than free cores, PyTorch would wait for itself and look slower than it is. The texts are the
    titles of `examples/text/data.py` and, for the mixed lengths, beginnings of the same articles of
    up to 256 tokens. sentence-transformers is in no set of packages: `pip install
    sentence-transformers`.
    """
    need(sentence_transformers, "sentence-transformers: pip install sentence-transformers")
    with contextlib.chdir(scratch):
        return measured(rounds, some)


def measured(rounds: int, some: int) -> str:
    _, path, _ = FILES["minilm_l6_v2"]
    spec = find_spec(path.partition("/")[0])
    assert spec
    theirs = sentence_transformers.SentenceTransformer(
        str(Path(str(spec.origin)).parent / "model"), device="cpu"
    )
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    kind = kinds.named("text")
    asked = ExtractParams(backbone="minilm_l6_v2", batch_size=BATCH)
    engine = open_engine(asked, kind)
    shorter = open_engine(asked.model_copy(update={"precision": "bfloat16"}), kind)

    every = articles(some)
    lines, furthest = [], 0.0
    for name, texts in (
        ("titles", [text.splitlines()[0] for text in every]),
        ("mixed lengths", mixed(every)),
    ):
        lengths = [len(tokens.encoded(text, engine.preprocessing).ids) for text in texts]
        assert max(lengths) <= LONGEST
        ours = Extraction(Path(name), texts, engine)
        works = {"ours": ours, "bfloat16": Extraction(Path(f"{name}, again"), texts, shorter)} | {
            f"theirs {size}": partial(theirs.encode, texts, batch_size=size)
            for size in THEIR_BATCHES
        }
        furthest = max(furthest, float(np.abs(ours() - theirs.encode(texts)).max()))
        rates: dict[str, list[float]] = {work: [] for work in works}
        for _ in range(rounds):
            for work, call in works.items():
                start = time.process_time()
                call()
                rates[work].append(len(texts) / (time.process_time() - start))
        lines.append(
            (
                name,
                float(np.mean(lengths)),
                *(spread(rates[work], "{:.0f}") for work in works),
                *(spread(ratios(rates["ours"], rates[w])) for w in works if w.startswith("theirs")),
            )
        )
    columns = "texts | tokens, mean {:.0f} | Headstart | in bfloat16"
    columns += "".join(f" | encode, batches of {size}" for size in THEIR_BATCHES)
    columns += "".join(f" | Headstart over batches of {size}" for size in THEIR_BATCHES)
    return f"""# Texts a second, beside sentence-transformers

{some} texts in float32, from bytes to features, with the same weights; texts a second of the
processor, one thread each. sentence-transformers {sentence_transformers.__version__}, PyTorch
{torch.__version__}. Medians of {rounds} rounds in turns, with the least and the most. The features
differ by at most {furthest:.1e}.

{table(columns, lines)}
"""


class Extraction:
    """What `extract` does but for the store."""

    def __init__(self, folder: Path, texts: list[str], engine: Engine) -> None:
        """Write the texts to a folder of the working directory, where what is read has to lie."""
        folder.mkdir()
        rows = []
        for number, text in enumerate(texts):
            file = folder / f"{number}.txt"
            file.write_text(text, encoding="utf-8")
            digest = hashlib.sha256(text.encode()).hexdigest()
            rows.append((digest, str(file), number.to_bytes(4, "big")))
        self._table = pd.DataFrame(rows, columns=["digest", "path", "key"])
        self._engine = engine

    def __call__(self) -> np.ndarray:
        """The features, in the order of the texts."""
        found: dict[bytes, np.ndarray] = {}
        for batch in batches(self._table, BATCH):
            found |= features_of(batch, self._engine, BATCH)
        return np.stack([found[key] for key in self._table["key"]])


# lora

FEW = (50, 250)
MOST = 1780
WAYS: dict[str, dict[str, Any]] = {
    "blocks": {"method": "blocks", "learning_rate": 1e-4},
    "lora": {"method": "lora", "learning_rate": 3e-3},
}
NAMES = {"blocks": "the last three blocks", "lora": "LoRA of rank 8"}


def made(size: int, seed: int, scratch: Path) -> Project:
    """A project of that many titles to learn from, up to what `evaluate` and `bundle` need."""
    kept, _ = titles()
    drawn = np.random.default_rng(seed).permutation(len(kept))
    learnt = drawn[:size]
    split = dict.fromkeys(learnt[: size // 5], "val") | dict.fromkeys(learnt[size // 5 :], "train")
    split |= dict.fromkeys(drawn[MOST:], "test")
    project = Project(scratch)
    with (project.folder / "data" / "raw" / "titles.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["text", "label", "split"])
        rows.writerows([*kept[number], name] for number, name in split.items())
    (project.folder / "plugins").mkdir()
    text = (ROOT / "examples" / "text" / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(text)
    project.set(evaluate={"bootstrap": 10}, train={"layers": "last"})
    return project


def figures(size: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Test accuracies and losses of the ways of one draw, and what each took."""
    project = made(size, seed, scratch)
    found: dict[str, Any] = {}
    with project.inside():
        project.work("ingest", "augment", "extract", "train", "evaluate")
        found["frozen"] = project.report("metrics")["test"]["accuracy"]
        for way, settings in WAYS.items():
            project.set(finetune=settings)
            took = cost(lambda: project.work("finetune"))
            report = project.report("finetune")
            alone = {name: report["test"][name] for name in ("frozen", "finetuned")}
            taken = report["taken"]
            found[way] = {
                "taken": taken,
                "epoch": report["epoch"],
                "alone": {name: test["accuracy"] for name, test in alone.items()},
                "loss": {name: test["loss"] for name, test in alone.items()},
                "chosen": report["test"]["refit"]["accuracy"] if taken else found["frozen"],
                "wall": took.wall,
                "cpu": took.cpu,
            }
    return found


def megabytes() -> dict[str, tuple[int, float]]:
    """How many numbers of the backbone each way trains, and megabytes of what a checkpoint keeps.

    A checkpoint holds each number that learns four times: as it is, of the best epoch, and AdamW's
    two moments.
    """
    found = {}
    for way, settings in WAYS.items():
        backbone = catalogue.to_train(Backbone.parse("minilm_l6_v2"))
        head = Head(np.zeros((5, backbone.dimension), np.float32), np.zeros(5, np.float32))
        recipe = Recipe.of(FinetuneParams(**settings), np.ones(5, np.float32))
        network = Network(backbone.module, head, 1.0)
        if settings["method"] == "lora":
            lora.insert(network.backbone, recipe.lora_rank, recipe.seed)
        changing, _ = finetuning._unfrozen(network, recipe)
        count = sum(tensor.numel() for tensor in changing.values())
        found[way] = count, 4 * 4 * count / 1e6
    return found


def measure_lora(page: Path, scratch: Path, part: int = 0, seed: int = 0) -> str:
    """What finetuning an encoder of texts is worth: its last blocks, or LoRA, beside a frozen head.

        python -m benchmarks text lora --part 250 --seed 3

    works out one number of titles under one seed; the parts are kept in `benchmarks/text.json`, and
    without a part only the table is written. A seed draws the test titles and the order of the
    others, of which the first so many are learned from, a fifth of them for validation. The stages
    are run with `examples/text/params.yaml`; the learning rates were chosen on the validation
    titles of another draw (seed 100).
    """
    file = page.with_suffix(".json")
    known = json.loads(file.read_text()) if file.exists() else {}
    if part:
        torch.set_num_threads(1)
        known[f"{part} {seed}"] = figures(part, seed, scratch)
        file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    accuracies: list[tuple[object, ...]] = []
    gains: list[tuple[object, ...]] = []
    losing: list[tuple[object, ...]] = []
    costs: list[tuple[object, ...]] = []
    sizes, rates = megabytes(), {way: settings["learning_rate"] for way, settings in WAYS.items()}
    for size in FEW:
        draws = {key: row for key, row in sorted(known.items()) if key.startswith(f"{size} ")}
        if not draws:
            continue
        frozen = np.array([row["frozen"] for row in draws.values()])
        before = np.array([row["lora"]["alone"]["frozen"] for row in draws.values()])
        accuracies.append((f"{size}", "frozen", len(draws), before.mean(), frozen.mean(), None))
        learned, chosen = {}, {}
        for way, name in NAMES.items():
            of_way = [row[way] for row in draws.values()]
            alone = np.array([row["alone"]["finetuned"] for row in of_way])
            chosen[way] = np.array([row["chosen"] for row in of_way])
            taken = sum(row["taken"] for row in of_way)
            accuracies.append(
                (f"{size}", name, len(draws), alone.mean(), chosen[way].mean(), f"{taken}")
            )
            gains.append((f"{size}", f"{name} over frozen", interval(alone - before),
                          interval(chosen[way] - frozen)))  # fmt: skip
            wall, cpu = (np.median([row[key] for row in of_way]) for key in ("wall", "cpu"))
            costs.append((f"{size}", name, wall, cpu, f"{sizes[way][0]:,}", sizes[way][1]))
            for key, row in zip(draws, of_way, strict=True):
                was, now = row["alone"]["frozen"], row["alone"]["finetuned"]
                if now < was or row["chosen"] < draws[key]["frozen"]:
                    losing.append((key, name, was, now, draws[key]["frozen"], row["chosen"],
                                   "yes" if row["taken"] else "no"))  # fmt: skip
            learned[way] = alone
        pair = [interval(of["lora"] - of["blocks"]) for of in (learned, chosen)]
        gains.append((f"{size}", "LoRA over the last three blocks", *pair))
    accuracy = (
        "titles | way | seeds | learned from training titles {:.3f} | as a bundle {:.3f} | taken"
    )
    took = (
        "titles | way | seconds {:.0f} | of the processor {:.0f} | numbers that learn"
        " | checkpoint, MB {:.1f}"
    )
    lost = (
        "titles and seed | way | frozen {:.3f} | finetuned {:.3f} | bundle {:.3f} | best {:.3f}"
        " | taken"
    )
    return f"""# Finetuning an encoder of texts

MiniLM-L6 on the titles of BBC news, five topics, 314 test titles drawn again by each seed;
`examples/text/params.yaml` with `train.layers: last`, 10 epochs in batches of 32, learning rate
{rates["blocks"]:g} for blocks and {rates["lora"]:g} for LoRA. These had the lowest validation loss
of 0.00003, 0.0001 and 0.0003, and of 0.0003, 0.001 and 0.003, on one draw of 250 titles that is not
below. A fifth of the titles is for validation. The first accuracy is that of a network, or of the
frozen one's head, that learned from training titles alone. `As a bundle` is what `bundle` (frozen)
and `best` hold: they learned from validation titles too, and `best` is the finetuned network only
where validation said so (`taken`).

{table(accuracy, accuracies)}

Differences in accuracy on the same titles: means over the seeds, and their 95 % intervals by
Student's t:

{table("titles | what | learned from training titles | as a bundle", gains)}

What `finetune` took, without the start of Python: medians, on one thread. Other work ran on the
same cores (a load of 9 to 20 on two), so that only seconds of the processor compare. It trains
twice where the network is taken. A checkpoint holds each trained number four times (now, the best,
AdamW's moments).

{table(took, costs)}

Every draw in which finetuning lost accuracy on the test titles, in either of both comparisons:

{table(lost, losing) if losing else "None."}
"""


# languages

FORTUNES = {
    "German": "fortunes-de", "Spanish": "fortunes-es", "Italian": "fortunes-it",
    "Polish": "fortunes-pl", "Czech": "fortunes-cs", "Portuguese": "fortunes-br",
    "Russian": "fortunes-ru", "Bulgarian": "fortunes-bg", "Chinese": "fortunes-zh",
    "English": "fortunes",
}  # fmt: skip
IN_A_SET, FEW_WORDS = 50, 6


def fortunes(package: str, cache: Path) -> list[str]:
    """The sayings of 20 to 400 characters of a package of Debian."""
    from benchmarks import alarms

    found: dict[str, None] = {}
    for file in sorted(alarms.unpacked(cache, package).rglob("games/fortunes/**/*")):
        if file.is_file() and not file.is_symlink() and file.suffix in ("", ".fortunes"):
            with contextlib.suppress(UnicodeDecodeError):
                sayings = file.read_text(encoding="utf-8").split("\n%\n")
                found |= dict.fromkeys(" ".join(one.split()) for one in sayings)
    return [saying for saying in found if 20 < len(saying) < 400]


def measure_languages(cache: Path, sets: int = 1000, texts: int = 600) -> str:
    """Does `checks` warn of texts that MiniLM does not read, and of no English ones?

    Texts are sayings of Debian's packages of fortunes, and the titles of BBC news. Sets are drawn
    of those that were looked at, without replacement within a set.
    """
    from pipeline.kinds.text.language import language, unread

    random = np.random.default_rng(0)
    found = {f"{name} sayings": fortunes(package, cache) for name, package in FORTUNES.items()}
    found["English titles"] = [title for title, _ in titles()[0]]
    lines = []
    for name, every in found.items():
        some = random.permutation(np.array(every, dtype=object))[:texts].tolist()
        line: list[object] = [name, len(some)]
        for form in (some, [" ".join(one.split()[:FEW_WORDS]) for one in some]):
            codes = np.array([language(one.encode()) for one in form])
            warned = 0
            for _ in range(sets):
                drawn = random.choice(codes, min(IN_A_SET, len(codes)), replace=False)
                warned += bool(unread(Counter(drawn.tolist()), ("en",)))
            ((most, count),) = Counter(codes.tolist()).most_common(1)
            line += [f"{most}: {count / len(codes):.2f}", f"{warned / sets:.3f}"]
        lines.append(tuple(line))
    head = "texts | looked at | most are taken for | sets with a warning"
    head += f" | most of the first {FEW_WORDS} words | sets with a warning"
    return f"""# The language of texts

{sets} sets of {IN_A_SET} texts each, `py3langid`; MiniLM reads English.

{table(head, lines)}
"""


PARTS = {
    "languages": measure_languages,
    "accuracy": measure_accuracy,
    "speed": measure_speed,
    "lora": measure_lora,
}

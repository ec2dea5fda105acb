"""Five sites that share no example: the joined head beside the pooled one and each site's own.

    python -m benchmarks federated ../shared/data/hymenoptera

Each class's examples are dealt to five sites in shares that are drawn from a Dirichlet distribution
(0.5 for each site), so that most sites miss classes; a site has none or at least five of a class.
Every site is a repository of its own with DVC and a feature store of its own, in which a process
runs `dvc repro extract` and `headstart site`, all five side by side. The largest is killed
(SIGKILL, with all that it started) while it extracts, and started again. A server joins the
folders. The test examples of all sites are asked about; they take no part in sums.
"""

import csv
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.datasets import load_digits

from benchmarks import text
from benchmarks.harness import ROOT, Project, Repository, table
from benchmarks.sets import divided, vectors
from pipeline.core.params import TrainParams
from pipeline.federated import privacy, submission, sums
from pipeline.federated.privacy import Noise
from pipeline.federated.sums import Sums
from pipeline.heads.fit import fit_heads
from pipeline.heads.head import Head, probabilities
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split, read_splits
from pipeline.tables.manifest import read_manifest

SITES = ("berlin", "lima", "oslo", "pune", "quito")
LEAST = 5
ALPHA = 0.5
EPSILONS = (1.0, 8.0, 64.0)
DELTA = 1e-5
DRAWS = 5  # of noise
DECAY = {"power": 0.5, "weight_decay": 0.1}


@dataclass
class Example:
    """Where an example is, or its text, its class and split, and the site that holds it."""

    what: Path | str
    label: str
    split: str
    site: int = -1


def deal(examples: list[Example]) -> int:
    """Give each example a site; the seed with which every site can take part."""
    labels = sorted({one.label for one in examples})
    for seed in range(100_000):
        random = np.random.default_rng(seed)
        for label in labels:
            known = [e for e in examples if e.label == label and e.split != "test"]
            ends = np.cumsum(random.dirichlet([ALPHA] * len(SITES))) * len(known)
            places = np.searchsorted(ends[:-1], np.arange(len(known)), side="right")
            counts = np.bincount(places, minlength=len(SITES))
            places[np.isin(places, np.flatnonzero(counts < LEAST))] = counts.argmax()
            for one, place in zip(random.permutation(np.array(known, object)), places, strict=True):
                one.site = int(place)
            held = [e for e in examples if e.label == label and e.split == "test"]
            for number, one in enumerate(held):
                one.site = int(np.unique(places)[number % len(np.unique(places))])
        if all(fits([e for e in examples if e.site == site]) for site in range(len(SITES))):
            return seed
    raise AssertionError("no deal fits")


def fits(own: list[Example]) -> bool:
    """Whether `ingest` and `headstart site` take these examples."""
    classes = {one.label for one in own}
    trained = {one.label for one in own if one.split == "train"}
    known = sum(one.split != "test" for one in own)
    return len(classes) > 1 and classes == trained and known >= 20 and known < len(own)


class Place(Repository):
    """The repository of a site."""

    def fill(self, own: list[Example], kind: str) -> None:
        raw = self.folder / "data" / "raw"
        column = "path" if kind == "image" else "text"
        with (raw / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            rows.writerow([column, "label", "split"])
            for number, one in enumerate(own):
                named = one.what
                if isinstance(one.what, Path):
                    named = f"{number:05}{one.what.suffix}"
                    shutil.copy(one.what, raw / str(named))
                rows.writerow([named, one.label, one.split])

    def site(self, name: str) -> "Any":
        script = f"dvc repro extract && {sys.executable} -m headstart site {name}"
        return self.start("bash", "-c", script, start_new_session=True)

    def splits(self, classes: list[str], power: float) -> dict[str, Split]:
        manifest = read_manifest(self.folder / "data" / "manifest.parquet")
        names = ["train", "val", "test"]
        return read_splits(self.folder / "data" / "features", manifest, classes, names, power)


@dataclass
class Run:
    """What the sites of a set of data did."""

    name: str
    seed: int
    classes: list[str]
    power: float
    sites: list[dict[str, Split]]
    sent: list[submission.Submission]
    reused: int
    computed: int
    sites_seconds: float
    server_seconds: float

    def rows(self, *splits: str) -> Split:
        return Split.concat(site[name] for site in self.sites for name in splits)


def run(scratch: Path, name: str, examples: list[Example], **changes: Any) -> Run:
    """Deal, have five processes run, kill one and start it again, and join."""
    seed = deal(examples)
    kind = changes["ingest"]["kind"]
    path = "data/raw" if kind == "image" else "data/raw/labels.csv"
    changes["ingest"] |= {"source": "csv", "path": path}
    exported = scratch / "exported"
    exported.mkdir(exist_ok=True)
    places = []
    for number, site in enumerate([*SITES, "server"]):
        (scratch / name / site).mkdir(parents=True)
        place = Place(scratch / name / site, None, exported)
        if kind == "text":
            shutil.copy(ROOT / "examples" / "text" / "params.yaml", place.folder)
        place.set(augment={"views": 0}, **changes)
        place.fill([one for one in examples if one.site == number], kind)
        places.append(place)
    *places, server = places
    # An export is made once, not by five in one moment.
    backbone = changes["extract"]["backbone"]
    made = (
        "from pipeline.backbones import exports; from pipeline.core.backbone import Backbone;"
        f" exports.exported(Backbone.parse({backbone!r}))"
    )
    server.run(sys.executable, "-c", made)

    began = time.monotonic()
    processes = [place.site(site) for place, site in zip(places, SITES, strict=True)]
    sizes = [sum(one.site == number for one in examples) for number in range(len(SITES))]
    killed = int(np.argmax(sizes))
    victim = processes[killed]
    before = []
    while "Running stage 'extract'" not in (line := victim.stdout.readline()):
        before.append(line)
        assert line, f"the site ended before it could be killed: {before}"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not kept(places[killed]):
        time.sleep(0.05)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    processes[killed] = places[killed].site(SITES[killed])
    said = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes), said
    sites_seconds = time.monotonic() - began
    shown = re.search(r"(\d+) reused, (\d+) computed", said[killed])
    assert shown, f"it was killed too late: {said[killed]}"
    reused, computed = shown.groups()
    folders = [p.folder / "site" / site for p, site in zip(places, SITES, strict=True)]
    cost = server.run(sys.executable, "-m", "headstart", "federate", *folders)
    print(cost.gave, flush=True)
    power = changes["train"]["power"]
    classes = sorted({one.label for one in examples})
    return Run(
        name,
        seed,
        classes,
        power,
        [place.splits(classes, power) for place in places],
        [submission.read(folder) for folder in folders],
        int(reused),
        int(computed),
        sites_seconds,
        cost.wall,
    )


def kept(place: Place) -> bool:
    """Whether a store holds some vectors."""
    return sum(f.stat().st_size for f in place.store.rglob("*") if f.is_file()) > 100_000


def accuracy(found: npt.NDArray[Any], labels: npt.NDArray[Any]) -> tuple[float, str]:
    """The share that is right, with Wilson's interval of 95 %."""
    right = int((found == labels).sum())
    low, high = binomtest(right, len(labels)).proportion_ci(method="wilson")
    return right / len(labels), f"{low:.3f}–{high:.3f}"


def rows_of(run: Run, decay: float) -> list[list[Any]]:
    """Pooled, joined and each site alone."""
    known, test = run.rows("train", "val"), run.rows("test")
    of_all = sums.of(known.features, known.labels, run.classes)
    parts = [one.sums for one in run.sent]
    heads = [("pooled", of_all), ("joined", sums.joined(parts))]
    heads += list(zip([f"{site} alone" for site in SITES], parts, strict=True))
    table = []
    for name, part in heads:
        (head,) = sums.ridge(part, [decay])
        places = np.array([run.classes.index(label) for label in part.classes])
        found = places[head.logits(test.features).argmax(axis=1)]
        examples = len(known.labels) if name in ("pooled", "joined") else int(part.total)
        shown = accuracy(found, test.labels)
        table.append([run.name, name, examples, len(part.classes), *shown])
    return table


def pooled_by_train(run: Run, decay: float) -> Head:
    """The head that `train` makes of all examples, with the scale that validation gives."""
    train, val, ones = run.rows("train"), run.rows("val"), np.ones(len(run.classes), np.float32)
    knobs = Hyperparameters("ridge", 0, decay, 0, 0, 0, 0)
    schedule = Schedule(1, 1, 0, ones)
    (first,) = fit_heads(train, val, [knobs], schedule, "cpu")
    known = run.rows("train", "val")
    (again,) = fit_heads(known, val.take(slice(0)), [knobs], schedule, "cpu")
    assert again.head is not None
    return again.head.scaled(first.scale / again.scale)


def exactness(run: Run, decay: float) -> list[Any]:
    """How far joined and pooled are from each other."""
    known, test = run.rows("train", "val"), run.rows("test")
    (pooled,) = sums.ridge(sums.of(known.features, known.labels, run.classes), [decay])
    whole = sums.joined([one.sums for one in run.sent])
    (joined,) = sums.ridge(whole, [decay])
    wanted, got = pooled.logits(test.features), joined.logits(test.features)
    largest = np.abs(wanted).max()
    trained = pooled_by_train(run, decay)
    scale = sums.fair_scale(whole, joined, "ridge", decay)
    of_train = trained.logits(test.features).astype(np.float64)
    ours = (got * scale).argmax(axis=1)
    losses = []
    logits: Any
    for logits in (of_train, joined.head(scale).logits(test.features)):
        shares = probabilities(logits)[np.arange(len(test.labels)), test.labels]
        losses.append(float(-np.log(shares).mean()))
    bytes_ = [sum(f.stat().st_size for f in one.folder.iterdir()) for one in run.sent]
    return [
        run.name,
        float(np.abs(got - wanted).max() / largest),
        int((ours != of_train.argmax(axis=1)).sum()),
        len(test.labels),
        *losses,
        max(bytes_) / 1e6,
        run.sites_seconds,
        run.server_seconds,
        f"{run.reused} of {run.reused + run.computed}",
    ]


def noise_rows(
    name: str, sites: list[Split], classes: list[str], test: Split, decay: float, clip: float
) -> list[list[Any]]:
    """A row for each ε: accuracy of both heads, means over draws."""
    clear = [part_of(site, classes, site.features) for site in sites]
    shortened = [part_of(s, classes, privacy.clipped(s.features, clip)) for s in sites]
    table = []
    for epsilon in (*EPSILONS, None):
        noise = epsilon and Noise(epsilon, DELTA, clip)
        found: dict[str, list[float]] = {"ridge": [], "nearest_mean": []}
        for seed in range(DRAWS if noise else 1):
            random = np.random.default_rng(seed)
            parts = [loud(one, noise, random) for one in shortened] if noise else clear
            whole = sums.joined(parts)
            places = np.array([classes.index(label) for label in whole.classes])
            for optimizer, solve in sums.SOLVERS.items():
                (head,) = solve(whole, [decay])
                answers = places[head.logits(test.features).argmax(axis=1)]
                found[optimizer].append(float((answers == test.labels).mean()))
        means = [float(np.mean(found[optimizer])) for optimizer in sums.SOLVERS]
        shown = f"{epsilon:g}" if epsilon else "no noise"
        examples = sum(len(site.labels) for site in sites)
        table.append([name, examples, test.features.shape[1], shown, *means])
    return table


def part_of(site: Split, classes: list[str], features: npt.NDArray[Any]) -> Sums:
    own = np.unique(site.labels)
    return sums.of(features, np.searchsorted(own, site.labels), [classes[c] for c in own])


def loud(part: Sums, noise: Noise, random: np.random.Generator) -> Sums:
    """The sums with as much noise as `headstart site` gives them, of a generator that is quick."""
    scale = privacy.scale_for(noise, np.sqrt(privacy.BLOCKS))
    triangle = sums.packed(part.gram)
    triangle += random.standard_normal(len(triangle)) * scale * noise.clip**2
    return replace(
        part,
        gram=sums.symmetric(triangle),
        class_sums=part.class_sums
        + random.standard_normal(part.class_sums.shape) * scale * noise.clip,
        rows=part.rows + random.standard_normal(len(part.rows)) * scale,
        noise=scale * noise.clip**2,
    )


def length(splits: list[Split]) -> float:
    """The median length of feature vectors."""
    return float(np.median(np.concatenate([np.linalg.norm(s.features, axis=1) for s in splits])))


def surfaces(scratch: Path) -> list[Example]:
    project = Project(scratch / "surfaces cut")
    project.stages("ingest")
    files = sorted((project.folder / "data" / "pictures").glob("*/*/*.png"))
    return [Example(file, file.parent.name, file.parent.parent.name) for file in files]


def insects(folder: Path) -> list[Example]:
    found: list[Example] = []
    for file in sorted(folder.glob("*/*/*.jpg")):
        drawn = np.random.default_rng(len(found)).random() < 0.2
        split = "test" if file.parent.parent.name == "val" else "val" if drawn else "train"
        found.append(Example(file, file.parent.name, split))
    return found


def titles() -> list[Example]:
    random = np.random.default_rng(0)
    kept, _ = text.titles()
    places = random.random(len(kept))
    return [
        Example(title, topic, "train" if at < 0.6 else "val" if at < 0.8 else "test")
        for (title, topic), at in zip(kept, places, strict=True)
    ]


def digits() -> tuple[list[Split], list[str], Split]:
    """scikit-learn's digits at five sites that hold all classes."""
    found = load_digits()
    data = vectors(found.data, found.target, TrainParams(power=1.0))
    train, val, test = divided(data, 0)
    known = Split.concat([train, val])
    place = np.random.default_rng(0).integers(len(SITES), size=len(known.labels))
    sites = [known.take(place == s) for s in range(len(SITES))]
    return sites, data.classes, test


def measure(hymenoptera: Path, scratch: Path) -> str:
    image: dict[str, dict[str, Any]] = {
        "ingest": {"kind": "image"},
        "extract": {"backbone": "efficientnet_lite0", "batch_size": 8},
    }
    of_text: dict[str, dict[str, Any]] = {
        "ingest": {"kind": "text"},
        "extract": {"backbone": "minilm_l6_v2", "batch_size": 32},
    }
    runs = []
    for name, examples, changes, power in (
        ("titles", titles(), of_text, 1.0),
        ("surfaces", surfaces(scratch), image, 0.5),
        ("hymenoptera", insects(hymenoptera), image, 0.5),
    ):
        training = {"optimizer": "ridge", "weight_decay": DECAY["weight_decay"], "power": power}
        asked = {section: dict(values) for section, values in changes.items()}
        runs.append(run(scratch, name, examples, **asked, train=training))
    decay = DECAY["weight_decay"]
    accuracies = [row for one in runs for row in rows_of(one, decay)]
    known = {
        one.name: [
            Split(
                *(np.concatenate([vars(s["train"])[n], vars(s["val"])[n]]) for n in vars(s["val"]))
            )
            for s in one.sites
        ]
        for one in runs
    }
    # The length of vectors is public knowledge where it is that of other examples.
    clips = {
        "surfaces": length(known["hymenoptera"]),
        "hymenoptera": length(known["surfaces"]),
        "titles": 1.0,
    }
    noises = []
    for one in runs:
        args = (known[one.name], one.classes, one.rows("test"), decay, clips[one.name])
        noises += noise_rows(one.name, *args)
    sites, classes, test = digits()
    noises += noise_rows("digits, vectors", sites, classes, test, decay, 60.0)
    seeds = ", ".join(f"{one.name} {one.seed}" for one in runs)
    return PAGE.format(
        alpha=ALPHA,
        decay=decay,
        seeds=seeds,
        accuracies=table(
            "data | head | examples {:,} | classes | accuracy {:.3f} | 95 %", accuracies
        ),
        exact=table(
            "data | largest difference {:.1e} | other answers than `train`'s | of |"
            " log loss of `train`'s {:.3f} | of the joined {:.3f} | MB a site {:.1f} |"
            " s, all sites {:.0f} | s, server {:.0f} | vectors kept by the kill",
            [exactness(one, decay) for one in runs],
        ),
        noises=table(
            "data | examples {:,} | features {:,} | ε of each site | ridge {:.3f} |"
            " nearest mean {:.3f}",
            noises,
        ),
        delta=DELTA,
        draws=DRAWS,
    )


PAGE = """# Federated: five sites that share no example

Ridge with `weight_decay: {decay}`, no augmented views. The classes are dealt by a Dirichlet
distribution ({alpha} for each site); the seeds of the deal are the first with which every site can
take part ({seeds}).
Every site is a process with a repository and a store of its own; one is killed while it extracts,
and started again. Accuracy is that on the test examples of all sites together, with Wilson's
interval. A site alone cannot name a class that it has no example of. If all sites have the two
classes, two of five sites alone are as good as the joined head, and in the figure better: joining
is for what a site does not have.

{accuracies}

## Is the joined head the pooled one?

The largest difference is that of logits, in float64, of the joined head and of one solved from the
sums over all examples at once, as a share of the largest logit. `train`'s head is the pooled ridge
of the pipeline, whose sums are float32, and whose scale comes from validation examples; the joined
head's scale comes from the sums alone. Seconds are those of a loaded machine with two cores:
`dvc repro extract` and `headstart site` at five sites side by side, and `headstart federate`. The
last column is how many vectors of the killed site were not computed again.

{exact}

## What noise costs

Every site adds noise for (ε, {delta:g}) of its own; `--clip` is the median length of other
pictures' vectors (of titles 1, which is their length; of digits 60). Means of {draws} draws, by
NumPy, with the strength that OpenDP reports: drawing by OpenDP takes minutes. With so few examples,
an ε that promises much (1) leaves little or nothing of the accuracy. At ε = 64, which promises
little, the sums of few sites with two classes are about as good as without noise.

{noises}
"""

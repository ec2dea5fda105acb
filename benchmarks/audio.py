"""Sounds: which backbone, and how fast."""

import csv
import itertools
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import files, version
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.harness import CORES, ROOT, in_turns, need, optional, ratios, spread, table
from pipeline import kinds
from pipeline.backbones import exports, speech
from pipeline.backbones.engines.on_onnxruntime import on_export
from pipeline.core.backbone import Backbone
from pipeline.heads.fit import class_weights, fit_heads, refit
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule, order
from pipeline.kinds.audio.parameters import Augment
from pipeline.tables.features import Split
from pipeline.tables.power import raised

# accuracy

SETS = ("digits", "letters", "drums")
BACKBONES = ("speech_embedding", "whisper_tiny_en", "efficientnet_lite0", "mfcc", "log_mel")
SEEDS = range(5)
DECAYS = (0.0001, 0.001, 0.01, 0.1)
POWERS = (0.5, 1.0)
VIEWS = 4
MOST = 10_000  # sounds of a set: all of them
RESAMPLES = 2000
AUDIO = kinds.named("audio")


@dataclass(frozen=True)
class Set:
    """The sounds of a set; `features` are [n, 1 + views, d] by backbone."""

    labels: np.ndarray
    groups: np.ndarray
    features: dict[str, np.ndarray]


def made(name: str, scratch: Path) -> Set:
    """Make a set, and the features of its sounds."""
    folder = scratch / name
    folder.mkdir()
    script = ROOT / "examples" / "audio" / "data.py"
    subprocess.run([sys.executable, script, name], cwd=folder, check=True)
    root = folder / "data" / "raw" / "sounds"
    with (root / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = rows[:: -(-len(rows) // MOST)]
    data = [(root / row["path"]).read_bytes() for row in rows]
    return Set(
        np.unique([row["label"] for row in rows], return_inverse=True)[1],
        np.array([row["group"] for row in rows]),
        {backbone: features_of(data, backbone) for backbone in BACKBONES},
    )


def features_of(data: list[bytes], backbone: str) -> np.ndarray:
    """The features [n, 1 + views, d] of sounds; only the speech embedding has augmented views."""
    engine = on_export(exports.exported(Backbone.parse(backbone, "pretrained")), AUDIO)
    settings, views = Augment(views=VIEWS), VIEWS if backbone == "speech_embedding" else 0
    parts = []
    for start in range(0, len(data), 16):
        asked = []
        for one in data[start : start + 16]:
            digest = sha256(one).hexdigest()
            drawn = [AUDIO.draw(digest, number, settings) for number in range(1, views + 1)]
            asked.append((one, [AUDIO.original, *drawn]))
        parts.append(engine.features(engine.make_views(asked), 32))
    return np.concatenate(parts).reshape(len(data), 1 + views, -1)


def divided(groups: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Three fifths of the groups for training, a fifth each to choose by and to test on.

    Groups come in an order that only their names and the seed decide; one is passed over that
    would leave training without a label.
    """
    for attempt in range(1000):
        text = f"{seed}:{attempt}"
        names = sorted(
            np.unique(groups), key=lambda name: sha256(f"{text}:{name}".encode()).digest()
        )
        fifth = round(len(names) / 5)
        parts = {
            "train": names[2 * fifth :],
            "val": names[:fifth],
            "test": names[fifth : 2 * fifth],
        }
        split = {part: np.flatnonzero(np.isin(groups, some)) for part, some in parts.items()}
        if len(np.unique(labels[split["train"]])) == len(np.unique(labels)):
            return split
    raise ValueError("no split has all labels in training")


def rows_of(data: Set, backbone: str, chosen: np.ndarray, views: int, power: float) -> Split:
    """Some sounds' views as the heads take them."""
    features = data.features[backbone][chosen, : 1 + views]
    count = features.shape[1]
    names = np.repeat([f"{number:06d}" for number in chosen], count)
    return Split(
        names,
        names,
        np.tile(np.arange(count, dtype=np.int32), len(chosen)),
        np.repeat(data.labels[chosen], count).astype(np.int64),
        raised(np.ascontiguousarray(features.reshape(-1, features.shape[-1])), power),
    )


def right(data: Set, backbone: str, split: dict[str, np.ndarray], views: int = 0) -> np.ndarray:
    """Which of the test sounds a head gets right that was chosen by validation loss."""
    classes = int(data.labels.max()) + 1
    found = []
    for power in POWERS:
        train = rows_of(data, backbone, split["train"], views, power)
        val = rows_of(data, backbone, split["val"], 0, power)
        schedule = Schedule(50, 256, 10, class_weights("none", train.labels, classes))
        wanted = [Hyperparameters("lbfgs", 0, decay, 0, 0, 0, 0) for decay in DECAYS]
        best = min(fit_heads(train, val, wanted, schedule, "cpu"), key=order)
        found.append((order(best), power, best, train, val, schedule))
    _, power, best, train, val, schedule = min(found, key=lambda one: one[0])
    head = refit(best, train, val, schedule, "cpu")
    test = rows_of(data, backbone, split["test"], 0, power)
    return np.asarray(head.logits(test.features).argmax(axis=1) == test.labels)


def interval(gains: list[tuple[str, np.ndarray]]) -> tuple[float, float, float]:
    """The mean gain and its 95 % interval, from resampled groups.

    Args:
        gains: of each test group in each split, its name and, for each sound, the gain: 1, 0 or -1.
    """
    names = sorted({name for name, _ in gains})
    sums = np.array([sum(one.sum() for name, one in gains if name == own) for own in names])
    sizes = np.array([sum(len(one) for name, one in gains if name == own) for own in names])
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(sums.sum() / sizes.sum()), float(low), float(high)


def compared(
    data: Set, splits: list[dict[str, np.ndarray]], ours: list[np.ndarray], theirs: list[np.ndarray]
) -> tuple[float, float, float, str]:
    """How much more often one is right than the other, from where to where, and what that says."""
    gains = []
    for split, one, other in zip(splits, ours, theirs, strict=True):
        gain, groups = one.astype(int) - other, data.groups[split["test"]]
        gains += [(group, gain[groups == group]) for group in np.unique(groups)]
    mean, low, high = interval(gains)
    return mean, low, high, "ahead" if low > 0 else "behind" if high < 0 else "cannot tell"


def measure_accuracy(scratch: Path) -> str:
    """Sounds: two speech encoders, a picture network on spectrograms, and untrained floors.

    On the three sets that examples/audio/data.py makes, five splits by group each. A head is
    chosen on validation groups alone, trained again with them, and measured on the test groups.
    Takes the set of packages example-audio, and Debian's apt-get.
    """
    accuracies, differences, sets = [], [], []
    augmented = f"speech_embedding, {VIEWS} views"
    pairs = [(one, floor) for one in BACKBONES[:3] for floor in BACKBONES[3:]]
    pairs += [*itertools.combinations(BACKBONES[:3], 2), (augmented, BACKBONES[0])]
    ways = {backbone: (backbone, 0) for backbone in BACKBONES}
    ways[augmented] = ("speech_embedding", VIEWS)
    for name in SETS:
        data = made(name, scratch)
        counts = Counter(data.labels.tolist())
        sizes = f"{min(counts.values())}–{max(counts.values())}"
        sets.append((name, len(data.labels), len(counts), sizes, len(np.unique(data.groups))))
        splits = [divided(data.groups, data.labels, seed) for seed in SEEDS]
        answers = {
            way: [right(data, backbone, split, views) for split in splits]
            for way, (backbone, views) in ways.items()
        }
        for way, correct in answers.items():
            each = [float(one.mean()) for one in correct]
            dimension = data.features[ways[way][0]].shape[-1]
            accuracies.append((name, way, dimension, np.mean(each), min(each), max(each)))
        for one, other in pairs:
            differences.append(
                (name, one, other, *compared(data, splits, answers[one], answers[other]))
            )
    of_accuracies = (
        "set | backbone | numbers | mean accuracy {:.3f} | lowest {:.3f} | highest {:.3f}"
    )
    of_differences = (
        "set | backbone | beside | difference {:+.3f} | from {:+.3f} | to {:+.3f} | verdict"
    )
    return f"""# Sounds: what pretraining is worth

The sets are made by `examples/audio/data.py`.

{table("set | sounds | labels | sounds of a label | groups", sets)}

Five splits each, by group: three fifths of the groups for training, one fifth to choose by, one
fifth to test on. Weight decay ({", ".join(f"{decay:g}" for decay in DECAYS)}) and power
({", ".join(f"{power:g}" for power in POWERS)}) are chosen by validation loss, and the head is
trained again with the validation sounds. No augmented views, but where it says so: {VIEWS} views of
each training sound, with the default parameters.

{table(of_accuracies, accuracies)}

The difference of two on the same test sounds, with its 95 % interval by resampling groups:

{table(of_differences, differences)}
"""


# speed

librosa = optional("librosa")
ROUNDS = 3
SPEED_MOST = 200  # sounds of a set
SOME = 8  # sounds that a thread takes at once, as extract.batch_size of examples/audio


def ours(paths: list[Path]) -> np.ndarray:
    """As `extract` does it: each core takes whole sounds."""
    engine = on_export(exports.exported(Backbone.parse("speech_embedding", "pretrained")), AUDIO)

    def of(start: int) -> np.ndarray:
        asked = [(path.read_bytes(), [AUDIO.original]) for path in paths[start : start + SOME]]
        return engine.features(engine.make_views(asked), SOME)

    with ThreadPoolExecutor(CORES) as pool:
        return np.concatenate(list(pool.map(of, range(0, len(paths), SOME))))


def plain(paths: list[Path], threads: int) -> np.ndarray:
    """A loop that anybody writes: load, resample and fill up with librosa, run, take statistics."""
    packaged = next(file for file in files(speech.PACKAGE) or () if str(file) == speech.FILE)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # 0: as many as there are cores
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(packaged.locate()), options, providers=["CPUExecutionProvider"]
    )
    rows = []
    for path in paths:
        sound, _ = librosa.load(path, sr=speech.RATE)
        windows = [sound]
        if len(sound) > speech.WINDOW:
            pieces = -(-len(sound) // speech.WINDOW)
            starts = np.linspace(0, len(sound) - speech.WINDOW, pieces).round().astype(int)
            windows = [sound[start : start + speech.WINDOW] for start in starts]
        seen = []
        for window in windows:
            filled = librosa.util.pad_center(window, size=speech.WINDOW)
            (frames,) = session.run(None, {"samples:0": filled[None].astype(np.float32)})
            frames = frames[0, :, 0]
            seen.append(np.concatenate([frames.mean(0), frames.std(0), frames.max(0)]))
        rows.append(np.mean(seen, axis=0))
    return np.stack(rows)


def measure_speed(scratch: Path) -> str:
    """Sounds a second, from files to features, beside a plain loop of librosa and the same network.

    Takes librosa in the environment, which the pipeline does without, the set of packages
    example-audio, and Debian's apt-get. pip install librosa
    """
    need(librosa, "librosa: pip install librosa")
    rows = []
    for name in SETS:
        folder = scratch / name
        folder.mkdir()
        script = ROOT / "examples" / "audio" / "data.py"
        subprocess.run([sys.executable, script, name], cwd=folder, check=True)
        found = sorted((folder / "data" / "raw" / "sounds").glob("*.[!c]*"))
        paths = found[:: -(-len(found) // SPEED_MOST)]
        first = paths[:SOME]
        plain(first, 0), ours(first)  # imports, and what is compiled once
        ways = {
            "Headstart": partial(ours, paths),
            "librosa, one thread": partial(plain, paths, 1),
            f"librosa, {CORES} threads": partial(plain, paths, 0),
        }
        costs = in_turns(ROUNDS, ways)
        walls = {way: [cost.wall for cost in some] for way, some in costs.items()}
        cpus = {way: [cost.cpu for cost in some] for way, some in costs.items()}
        reference = costs["librosa, one thread"][0].gave
        apart = np.abs(costs["Headstart"][0].gave - reference).max(axis=1)
        largest = np.abs(reference).max(axis=1)
        for way, seconds in walls.items():
            rows.append(
                (
                    name,
                    len(paths),
                    way,
                    spread((len(paths) / wall for wall in seconds), "{:.0f}"),
                    spread(ratios(seconds, walls["Headstart"])),
                    spread(ratios(cpus[way], cpus["Headstart"])),
                    float(np.median(apart / largest)) if way == "Headstart" else None,
                )
            )
    columns = (
        "set | sounds | way | sounds a second | seconds beside Headstart's"
        " | processor seconds beside Headstart's | features apart, of the largest {:.0e}"
    )
    return f"""# Sounds: speed beside a plain loop of librosa

From files to features of the speech embedding, {ROUNDS} rounds in turns; the median, and the least
and the most. The loop is librosa {version("librosa")} and the package's own ONNX file in ONNX
Runtime {version("onnxruntime")}, a sound at a time; the sounds are filled up and cut in the same
way. {CORES} cores, load {os.getloadavg()[0]:.1f} as it ended.

{table(columns, rows)}
"""


PARTS = {
    "accuracy": measure_accuracy,
    "speed": measure_speed,
}

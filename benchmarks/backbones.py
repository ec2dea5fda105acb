"""Backbones: which families run here, and what `headstart choose` gains."""

import io
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedGroupKFold

import headstart
from benchmarks.harness import CORES, PHOTOGRAPHS, Project, table
from pipeline import ingest, kinds
from pipeline.backbones import catalogue, exports
from pipeline.backbones.engines import Engine, open_engine
from pipeline.backbones.onnx_export import map_source
from pipeline.backbones.pooling import last
from pipeline.core.backbone import Backbone
from pipeline.core.params import EvaluateParams, ExtractParams
from pipeline.core.paths import MANIFEST
from pipeline.evaluation.floor import compared
from pipeline.heads.fit import fit_heads
from pipeline.heads.floor import fitted
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.trained import Schedule
from pipeline.tables import joined
from pipeline.tables.floor import LEARNED
from pipeline.tables.manifest import read_manifest
from pipeline.tables.power import raised
from pipeline.transfer.comparison import _rows, folds, probed, unions, winner

# families

FAMILIES = (
    ("EfficientNet-Lite", "efficientnet_lite0", "auto"),
    ("MobileNetV4", "timm:mobilenetv4_conv_small.e2400_r224_in1k", "auto"),
    ("ConvNeXt", "timm:convnext_atto.d2_in1k", "auto"),
    ("EVA-02", "timm:eva02_tiny_patch14_224.mim_in22k", "auto"),
    ("DINOv3", "timm:vit_small_patch16_dinov3.lvd1689m", "auto"),
    ("DINOv3", "timm:vit_small_patch16_dinov3.lvd1689m", "class_mean"),
    ("DINOv2", "timm:vit_small_patch14_dinov2.lvd142m", "auto"),
    ("CLIP", "timm:vit_base_patch32_clip_224.openai", "auto"),
    ("SigLIP 2", "timm:vit_base_patch32_siglip_256.v2_webli", "auto"),
)
VIEWS = 4  # that each core looks at when timed


def measure_families(scratch: Path) -> str:
    """Which families of backbones run here, what do they cost, and are their exports equal to
    PyTorch?

    The smallest variant of each family, by timm's name, with random weights (there is no hub here):
    the figures tell of size, speed and equality, and nothing of how well their features tell
    classes apart. Each is exported to ONNX as `extract` does it. Features of four photographs are
    compared with those that PyTorch computes; views a second are those of ONNX Runtime on all
    cores, without decoding.
    """
    os.environ["HEADSTART_STORE"] = str(scratch / "features")
    rows = []
    for family, name, pooling in FAMILIES:
        rows.append(one(family, name, pooling))
        print(*rows[-1], flush=True)
        for file in (scratch / "features").rglob("*.*"):  # some are of hundreds of megabytes
            if file.suffix in (".onnx", ".safetensors"):
                file.unlink()
    columns = (
        "family | backbone | pooling | parameters (million) {:.1f} | pixels a side {:d}"
        " | features {:d} | ends in | class maps | views a second {:.1f}"
        " | largest feature {:.3g} | largest difference {:.1e} | licence of the weights"
    )
    return PAGE.format(table=table(columns, rows), cores=CORES)


PAGE = """# Families of backbones

The smallest variant of each family, with random weights. Views a second: ONNX Runtime on {cores}
cores, float32, without decoding. The difference is the largest one between a feature of the export
and of PyTorch, over four photographs. The licence is that of the trained weights as timm states it.

{table}
"""


def one(family: str, name: str, pooling: str) -> tuple[object, ...]:
    """A row of the table."""
    backbone = catalogue.load(Backbone.parse(name, "random", pooling))
    asked = ExtractParams(backbone=name, weights="random", pooling=pooling, engine="onnxruntime")  # type: ignore[arg-type]
    engine = open_engine(asked, kinds.named("image"))
    seen = photographs(engine)
    found = engine.run(seen)
    with torch.inference_mode():
        wanted = backbone.module(torch.from_numpy(seen)).numpy()
        end = last(network_of(backbone), torch.zeros(1, 3, *seen.shape[1:3]))
    return (
        family,
        f"`{name}`",
        pooling,
        sum(tensor.numel() for tensor in backbone.module.parameters()) / 1e6,
        backbone.preprocessing.crop,
        backbone.dimension,
        "tokens" if end is not None and end.ndim == 3 else "maps",
        "yes" if map_source(backbone) else "no",
        speed(engine, seen),
        float(np.abs(wanted).max()),
        float(np.abs(found - wanted).max()),
        exports.licence(Backbone.parse(name)),
    )


def network_of(backbone: catalogue.TorchBackbone) -> torch.nn.Module:
    """The network as timm made it."""
    network: Any = backbone.module.network
    found: torch.nn.Module = getattr(network, "network", network)
    return found


def photographs(engine: Engine) -> NDArray[np.uint8]:
    """Four photographs as the backbone takes them."""
    asked = []
    for name in PHOTOGRAPHS[:4]:
        file = io.BytesIO()
        Image.fromarray(getattr(skimage.data, name)()).save(file, "PNG")
        asked.append((file.getvalue(), [engine.kind.original]))
    seen: NDArray[np.uint8] = engine.make_views(asked)
    return seen


def speed(engine: Engine, seen: NDArray[np.uint8]) -> float:
    """Views a second on all cores, the best of three goes."""
    batch = seen[np.arange(VIEWS) % len(seen)]
    seconds = []
    with ThreadPoolExecutor(CORES) as pool:
        for _ in range(3):
            start = time.monotonic()
            list(pool.map(engine.run, [batch] * CORES))
            seconds.append(time.monotonic() - start)
    return VIEWS * CORES / min(seconds)


# choose

NETWORKS = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
POWER = 0.5
DIGITS = 500
STAMPS = "*/**/*.png"
LEAST_STAMPS = 20  # of a class that is taken
Set = tuple[list[Path], npt.NDArray[np.int64], list[str]]  # files, labels, groups


def measure_choose(hymenoptera: Path, stamps: Path, scratch: Path, seeds: int = 5) -> str:
    """What `headstart choose` gains, measured on examples that it did not see: nested
    cross-validation.

        python -m benchmarks backbones choose ../shared/data/hymenoptera STAMPS [--seeds SEEDS]

    STAMPS is the folder `stamps` of Debian's package tuxpaint-stamps-default, with a folder for
    each class: a set that nobody looked at while `choose` was written. The other sets are the
    pictures of the default run, and 500 of scikit-learn's handwritten digits. For each seed a fifth
    of a set is put aside. `choose` takes a backbone by cross-validation on the rest. A head is then
    trained on the rest, and asked about the fifth. Each other candidate is measured in the same
    way, with the penalty of its own cross-validation. Features are view 0.

    Intervals of differences are Student's over the seeds, corrected for what the training sets of
    two seeds have in common (Nadeau and Bengio, 2003).
    """
    sets: dict[str, Set] = {
        "hymenoptera": of_folders(sorted(hymenoptera.glob("*/*/*.jpg"))),
        "surfaces": surfaces(scratch),
        "digits": digits(scratch / "digits"),
        "stamps (not looked at)": of_folders(sorted(stamps.glob(STAMPS)), stamps),
    }
    rows, gains = [], []
    for name, one in sets.items():
        found, taken = nested(one, seeds)
        base = found["efficientnet_lite0"]
        for candidate, accuracies in found.items():
            low, high = interval(np.subtract(accuracies, base))
            gained = f"{low:+.3f} to {high:+.3f}" if candidate != "efficientnet_lite0" else "–"
            shown = short(candidate)
            if candidate == "choose":
                counts = [f"{short(one)} {taken.count(one)}" for one in sorted(set(taken))]
                shown = f"**choose** ({', '.join(counts)})"
                gains.append(float(np.mean(accuracies) - np.mean(base)))
            rows.append((name, shown, f"{np.mean(accuracies):.3f}", gained))
    words = (
        "# What `headstart choose` gains\n\n"
        f"Mean gain of `choose` over Lite0 alone, over the sets: {np.mean(gains):+.4f}.\n\n"
    )
    columns = f"set | backbone | accuracy, mean of {seeds} | more than Lite0 alone, 95 %"
    return words + table(columns, rows)


def nested(one: Set, seeds: int) -> tuple[dict[str, list[float]], list[str]]:
    """Accuracies by candidate, a number a seed, `choose` among them; and what `choose` took."""
    files, labels, groups = one
    features, costs = {}, {}
    for network in NETWORKS:
        embedder = headstart.Embedder(network)
        features[network] = embedder.transform([str(file) for file in files])
        costs[network] = cost(embedder, files)
    found: dict[str, list[float]] = {}
    taken: list[str] = []
    for seed in range(seeds):
        divide = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        rest, aside = next(divide.split(labels, labels, groups))
        held_out = folds(labels[rest], [groups[row] for row in rest])
        candidates = []
        for name in unions(NETWORKS):
            parts = name.split("+")
            mine = [features[part][rest] for part in parts]
            price = sum(costs[part] for part in parts)
            of = np.unique([groups[row] for row in rest], return_inverse=True)[1]
            candidates.append(probed(name, mine, labels[rest], held_out, of, POWER, False, price))
            decay = candidates[-1].weight_decay
            whole = [features[part] for part in parts]
            found.setdefault(name, []).append(accuracy(whole, labels, rest, aside, decay))
        chosen, _ = winner(candidates, None)
        taken.append(chosen.name)
        found.setdefault("choose", []).append(found[chosen.name][-1])
    return found, taken


def accuracy(
    parts: Sequence[npt.NDArray[np.float32]],
    labels: npt.NDArray[np.int64],
    rest: npt.NDArray[np.int64],
    aside: npt.NDArray[np.int64],
    decay: float,
) -> float:
    """The loss of a head that is trained on `rest`, on the examples put `aside`."""
    rows = raised(joined.beside(parts), POWER)
    mask = np.zeros(len(labels), dtype=bool)
    mask[rest] = True
    head = Hyperparameters("lbfgs", weight_decay=decay)
    schedule = Schedule(1, 1, 0, np.ones(int(labels.max()) + 1, np.float32))
    learnt, none = _rows(rows, labels, mask), _rows(rows, labels, mask & ~mask)
    (trained,) = fit_heads(learnt, none, [head], schedule, "cpu")
    assert trained.head is not None
    return float((trained.head.logits(rows[aside]).argmax(axis=1) == labels[aside]).mean())


def interval(differences: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The interval of the mean difference, for a fifth put aside each time."""
    count = len(differences)
    error = float(differences.std(ddof=1)) * np.sqrt(1 / count + 0.2 / 0.8)
    reach = float(stats.t.ppf(0.975, count - 1)) * error
    return float(differences.mean()) - reach, float(differences.mean()) + reach


def cost(embedder: headstart.Embedder, files: list[Path]) -> float:
    """Milliseconds that eight pictures take to be looked at again, on an engine of their own."""
    (engine,) = embedder._opened().engines
    some = [(file.read_bytes(), [engine.kind.original]) for file in files[:8]]
    start = time.monotonic()
    engine.features(engine.make_views(some), 1)
    return 1000 * (time.monotonic() - start) / len(some)


def short(name: str) -> str:
    """Without the words that all have in common."""
    return name.replace("efficientnet_lite", "Lite").replace("+", " + ")


def of_folders(files: list[Path], root: Path | None = None) -> Set:
    """Pictures whose class is the folder that they are in, or the one just below `root`."""
    names = [file.relative_to(root).parts[0] if root else file.parent.name for file in files]
    kept = [row for row, name in enumerate(names) if names.count(name) >= LEAST_STAMPS]
    labels = np.unique([names[row] for row in kept], return_inverse=True)[1].astype(np.int64)
    return [files[row] for row in kept], labels, [str(row) for row in kept]


def surfaces(scratch: Path) -> Set:
    """The pictures of the default run; places are not kept apart, as the source keeps them."""
    project = Project(scratch / "surfaces", None, scratch / "backbones")
    with project.inside():
        ingest.ingest()
        manifest = read_manifest(MANIFEST)
        files = [Path(path).absolute() for path in manifest["path"]]
    labels = np.unique(manifest["label"], return_inverse=True)[1].astype(np.int64)
    return files, labels, manifest["path"].tolist()


def digits(folder: Path) -> Set:
    """500 handwritten digits as pictures of 64 pixels a side."""
    folder.mkdir()
    found = load_digits()
    files = []
    for number, image in enumerate(found.images[:DIGITS]):
        files.append(folder / f"{number:03d}.png")
        grey = Image.fromarray((image * 255 / 16).astype(np.uint8))
        grey.resize((64, 64), Image.Resampling.BICUBIC).convert("RGB").save(files[-1])
    return files, found.target[:DIGITS].astype(np.int64), [file.name for file in files]


# floor

DRAWS = 10
KLETTRES, TITLES = "languages of spoken letters", "topics of English titles"


def with_labels(name: str, cache: Path) -> tuple[str, str, list[bytes], list[str]]:
    """Kind, backbone, examples and labels of a set."""
    from benchmarks import recipes_sets, text

    if name == TITLES:
        every, _ = text.titles()
        return "text", "minilm_l6_v2", [one.encode() for one, _ in every], [of for _, of in every]
    folder = cache / "sets" / "spoken letters"
    if not folder.exists():
        recipes_sets.SETS["spoken letters"].gather(folder, cache / "raw")
    files = sorted(folder.glob("*/*"))
    read = [file.read_bytes() for file in files]
    return "audio", "speech_embedding", read, [file.name.split("=")[0] for file in files]


def measure_floor(cache: Path, draws: int = DRAWS) -> str:
    """Does a run say that its backbone is hardly better than its floor, where that is so?

    The languages of KLettres, each with one speaker, and the topics of BBC titles. A draw is
    another split: a fifth of the examples are for test.
    """
    lines = []
    for name in (KLETTRES, TITLES):
        kind, backbone, examples, labels = with_labels(name, cache)
        names, numbers = np.unique(labels, return_inverse=True)
        asked = [(one, [kinds.named(kind).original]) for one in examples]
        floor = kinds.named(kind).floor
        seen = {}
        for one in (backbone, floor):
            settings = ExtractParams(backbone=one, engine="onnxruntime", device="cpu")
            engine = open_engine(settings, kinds.named(kind))
            seen[one] = raised(engine.features(engine.make_views(asked), 64), 0.5)
        leads = []
        for draw in range(draws):
            test = np.random.default_rng(draw).random(len(examples)) < 0.2
            cheap, rich = (_rows(seen[one], numbers, ~test) for one in (floor, backbone))
            some = np.random.default_rng(draw).permutation(len(cheap.labels))[:LEARNED]
            order = some[cheap.digests[some].argsort()]
            cheap, rich = cheap.take(order), rich.take(order)
            pair = fitted(cheap, {"train": rich}, "classification", len(names), counts=False)
            assert pair is not None
            given = pair.floor.logits(seen[floor][test]), pair.backbone.logits(seen[backbone][test])
            leads.append(
                compared(floor, "classification", numbers[test], *given, EvaluateParams(), None)
            )
        said = sum("hardly better" in "".join(lead.lines(0.95)) for lead in leads)
        means = (
            np.mean([lead.backbone for lead in leads]),
            np.mean([lead.floor for lead in leads]),
        )
        ends = sorted(lead.high for lead in leads)
        lines.append(
            (
                *(name, len(examples), len(names), backbone, floor),
                *(f"{mean:.3f}" for mean in means),
                f"{ends[0]:+.3f} to {ends[-1]:+.3f}",
                f"{said} of {draws}",
            )
        )
    head = "set | examples | classes | backbone | floor | accuracy of equal heads | on the floor"
    head += " | upper end of the lead | draws with the line"
    return f"""# Where a backbone is hardly better than its floor

{draws} draws of train and test, by the code of `train` and `evaluate`.

{table(head, lines)}
"""


PARTS = {
    "families": measure_families,
    "floor": measure_floor,
    "choose": measure_choose,
}

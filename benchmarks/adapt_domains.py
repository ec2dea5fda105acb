"""Domains for benchmarks/adapt.py: what is shown of the same classes in another way.

Pictures go through EfficientNet-Lite0, texts through MiniLM; the feature store keeps what was
computed. Fonts come from packages of Debian, which are fetched with `apt-get download` and unpacked
into a folder; nothing is installed.
"""

import io
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont
from sklearn.datasets import load_digits

import headstart
from examples.patches import Patches
from examples.text.data import articles
from pipeline.tables.power import raised

Floats = npt.NDArray[np.float32]

FONTS = {
    "serif": (
        "fonts-linuxlibertine fonts-ebgaramond fonts-crosextra-caladea fonts-gfs-didot"
        " fonts-sil-gentiumplus fonts-sil-charis fonts-vollkorn fonts-oldstandard fonts-junicode"
        " fonts-gfs-artemisia fonts-averia-serif-gwf"
    ),
    "sans": (
        "fonts-crosextra-carlito fonts-cantarell fonts-open-sans fonts-roboto-unhinted fonts-hack"
        " fonts-jura fonts-yanone-kaffeesatz fonts-opendyslexic"
    ),
    "script": (
        "fonts-dancingscript fonts-kaushanscript fonts-kristi fonts-leckerli-one"
        " fonts-levien-typoscript fonts-lobster fonts-breip fonts-bwht fonts-dkg-handwriting"
        " fonts-femkeklaver fonts-havana fonts-joscelyn fonts-klaudia-berenika fonts-rufscript"
        " fonts-comic-neue fonts-humor-sans fonts-tomsontalks fonts-ecolier-court fonts-isabella"
        " fonts-sjfonts"
    ),
}
OF_PACKAGE = 5  # fonts
# Left out of these fonts: keys, initials, outlines and many widths of one.
NOT_FONTS = ("RZ", "_K.", "_DR", "_M.", "Beta-Cond", "Beta-Semi", "Beta-Exp")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PATCHES = 400  # of a split of the surfaces
DIGITS = 800
ARTICLES = 200  # of a topic


class Domain(NamedTuple):
    """Features [n, d], as `train` reads them, and labels [n]."""

    features: Floats
    labels: npt.NDArray[np.int64]


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def embedded(pictures: Sequence[Image.Image], labels: Sequence[int]) -> Domain:
    embedder = headstart.Embedder("efficientnet_lite0")
    found = embedder.transform([png(one) for one in pictures])
    return Domain(raised(found, 0.5), np.array(labels))


def dark(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Under less light: a third of it, and less contrast in the shade."""
    return ImageEnhance.Brightness(picture).enhance(float(random.uniform(0.2, 0.4)))


def bright(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Under so much light that a good part is white."""
    return ImageEnhance.Brightness(picture).enhance(float(random.uniform(1.8, 2.2)))


def blurred(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(float(random.uniform(1.0, 2.0))))


def noisy(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    values = np.asarray(picture, np.float64)
    return Image.fromarray(
        np.clip(values + random.normal(0, 25, values.shape), 0, 255).astype(np.uint8)
    )


SHIFTS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "dark": dark,
    "bright": bright,
    "blurred": blurred,
    "noisy": noisy,
}


def surfaces() -> dict[str, Domain]:
    """Patches of the training boxes, and of those of the test split as they are and otherwise."""
    found = {}
    for split in ("train", "test"):
        random = np.random.default_rng(0)
        patches = Patches(split, random)
        names = [number % len(patches.surfaces) for number in range(PATCHES)]
        drawn = [patches.draw(patches.surfaces[name]) for name in names]
        found[split] = embedded(drawn, names)
        for shift, change in SHIFTS.items():
            found[f"{split}, {shift}"] = embedded([change(one, random) for one in drawn], names)
    return found


def font_files(folder: Path) -> dict[str, list[Path]]:
    """Fonts by their look."""
    files: dict[str, list[Path]] = {}
    for look, packages in FONTS.items():
        files[look] = []
        for package in packages.split():
            into = folder / package
            if not into.exists():
                into.mkdir(parents=True)
                subprocess.run(
                    ["apt-get", "download", package], cwd=into, check=True, capture_output=True
                )
                (archive,) = into.glob("*.deb")
                subprocess.run(["dpkg", "-x", archive, into], check=True)
            fonts = sorted({file.name: file for file in into.rglob("*.[to]tf")}.items())
            fit = [file for name, file in fonts if not any(odd in name for odd in NOT_FONTS)]
            files[look] += fit[:OF_PACKAGE]
    return files


def drawn(character: str, font: Path, side: int) -> Image.Image:
    picture = Image.new("L", (side, side), 255)
    face = ImageFont.truetype(str(font), round(0.75 * side))
    ImageDraw.Draw(picture).text((side / 2, side / 2), character, 0, face, anchor="mm")
    return picture


def letters(fonts: dict[str, list[Path]]) -> dict[str, Domain]:
    """Small letters by the look of their fonts."""
    return {
        look: embedded(
            [drawn(letter, file, 64) for file in files for letter in LETTERS],
            [*range(26)] * len(files),
        )
        for look, files in fonts.items()
    }


def digits(fonts: dict[str, list[Path]]) -> dict[str, Domain]:
    """Handwritten digits of 8 x 8 pixels, and printed ones as coarse; pictures and vectors."""
    found = load_digits()
    hand = [
        Image.fromarray((255 - image * 255 / 16).astype(np.uint8))
        for image in found.images[:DIGITS]
    ]
    files = [file for look in fonts.values() for file in look]
    printed, labels = [], []
    for file in files:
        for digit in range(10):
            large = drawn(str(digit), file, 64)
            dark = np.argwhere(np.asarray(large) < 128)
            if len(dark) < 20:
                continue
            (top, left), (bottom, right) = dark.min(axis=0), dark.max(axis=0) + 1
            # As the handwritten ones, which fill the height.
            width = max(right - left, round(0.6 * (bottom - top)))
            middle = (left + right) / 2
            box = (round(middle - width / 2), int(top), round(middle + width / 2), int(bottom))
            small = large.crop(box).resize((8, 8), Image.Resampling.BOX)
            printed.append(small)
            labels.append(digit)
    vectors: list[Any] = [
        np.stack([255 - np.asarray(one, np.float32) for one in many]) / 255 * 16
        for many in (hand, printed)
    ]
    return {
        "handwritten": embedded(hand, found.target[:DIGITS].tolist()),
        "printed": embedded(printed, labels),
        "handwritten, vectors": Domain(
            vectors[0].reshape(len(hand), 64), found.target[:DIGITS].astype(np.int64)
        ),
        "printed, vectors": Domain(vectors[1].reshape(len(printed), 64), np.array(labels)),
    }


def news() -> dict[str, Domain]:
    """BBC articles: titles of some, and first and last paragraphs of others."""
    embedder = headstart.Embedder("minilm_l6_v2", kind="text")
    parts: dict[str, list[tuple[str, int]]] = {"titles": [], "first": [], "last": []}
    for number, topic in enumerate(sorted(articles().iterdir())):
        for place, file in enumerate(sorted(topic.glob("*.txt"))[: 2 * ARTICLES]):
            lines = [
                line.strip()
                for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
                if line.strip()
            ]
            if place % 2:
                parts["titles"].append((lines[0], number))
            else:
                parts["first"].append((lines[1], number))
                parts["last"].append((lines[-1], number))
    return {
        name: Domain(
            embedder.transform([one for one, _ in rows]),
            np.array([label for _, label in rows]),
        )
        for name, rows in parts.items()
    }


def hymenoptera(folder: Path) -> Domain:
    files = sorted(file for file in folder.rglob("*.jpg"))
    found = headstart.Embedder("efficientnet_lite0").transform(files)
    return Domain(raised(found, 0.5), np.array([int(f.parent.name == "bees") for f in files]))

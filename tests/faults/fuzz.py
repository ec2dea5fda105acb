"""Does any damaged picture crash the decoder, hang it, fill the memory, or get lost in ingest?

Pictures of every format (`picture_cases`, and photographs of scikit-image) are damaged at
random, each from its own number: bits turned, bytes and numbers overwritten, pieces cut out,
doubled, moved or taken from another file. Half of the PNGs get their checksums mended, so that
the damage is not found at once. Every one goes through `pictures.inspect` and `pictures.decode` in
a process that is watched, and then all of them through one run of `ingest`. Last come the files
that take longest of all that are known. (Two of the sound files hold the time of their making, so
that the counts of two runs differ by a few.)

    python -m benchmarks tests.faults.fuzz [--count 30000]

It needs 4 GB of memory and, for 100,000, a quarter of an hour.
"""

import csv
import multiprocessing
import random
import re
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import PIL
import skimage
from PIL import Image, features

from benchmarks.harness import Project, run, table
from pipeline import kinds
from pipeline.core.errors import RefusedError
from pipeline.kinds.image import decode
from tests.helpers import picture_cases

IMAGE = kinds.named("image")

LIMIT_S = 20  # a picture that takes longer counts as a hang
MEMORY_BYTES = 4_000_000_000
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def seeds() -> dict[str, bytes]:
    """The sound files, and some that are refused."""
    found = {name: case.data() for name, case in picture_cases.TAKEN.items()}
    for name, case in picture_cases.REFUSED.items():
        if not name.startswith(("bomb", "empty")):
            found[name] = case.data()
    photograph = Image.open(Path(skimage.__file__).parent / "data" / "coffee.png").resize(
        (300, 200)
    )
    details = {"exif": picture_cases.exif(6), "icc_profile": picture_cases.swapped_profile()}
    for form, options in {
        "JPEG": {"progressive": True}, "PNG": {}, "WEBP": {}, "AVIF": {"speed": 10}, "TIFF": {},
    }.items():  # fmt: skip
        found[f"photograph.{form.lower()}"] = picture_cases.file(
            photograph, form, **details, **options
        )
    return found


# Damage. Each changes `data` in place.


def turn_bits(data: bytearray, chance: random.Random, _: bytes) -> None:
    for _ in range(chance.choice((1, 1, 4, 16))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def overwrite_bytes(data: bytearray, chance: random.Random, _: bytes) -> None:
    start = chance.randrange(len(data))
    length = chance.choice((1, 2, 8, 64))
    data[start : start + length] = chance.randbytes(length)


def overwrite_number(data: bytearray, chance: random.Random, _: bytes) -> None:
    """A size, a count or a place becomes one that programs stumble over."""
    form = chance.choice(("<B", "<H", ">H", "<I", ">I"))
    size = struct.calcsize(form)
    # Most numbers that matter stand near the beginning.
    start = chance.randrange(chance.choice((min(64, len(data)), len(data))))
    data[start : start + size] = struct.pack(form, chance.choice(NUMBERS) % 256**size)


def cut_short(data: bytearray, chance: random.Random, _: bytes) -> None:
    del data[chance.randrange(len(data)) :]


def cut_out(data: bytearray, chance: random.Random, _: bytes) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.choice((1, 4, 32, 512))]


def double(data: bytearray, chance: random.Random, _: bytes) -> None:
    start = chance.randrange(len(data))
    piece = data[start : start + chance.choice((4, 32, 512))]
    data[start:start] = piece * chance.choice((1, 1, 10, 300))


def move(data: bytearray, chance: random.Random, _: bytes) -> None:
    start, length = chance.randrange(len(data)), chance.choice((4, 32, 512))
    piece = data[start : start + length]
    del data[start : start + length]
    place = chance.randrange(len(data) + 1)
    data[place:place] = piece


def take_from_another(data: bytearray, chance: random.Random, other: bytes) -> None:
    start, length = chance.randrange(len(other)), chance.choice((4, 32, 512, 4096))
    place = chance.randrange(len(data) + 1)
    data[place : place + chance.choice((0, length))] = other[start : start + length]


DAMAGE: list[Callable[[bytearray, random.Random, bytes], None]] = [
    turn_bits, turn_bits, overwrite_bytes, overwrite_number, overwrite_number,
    cut_short, cut_out, double, move, take_from_another,
]  # fmt: skip


def mended(png: bytes) -> bytes:
    """The same PNG with each chunk's checksum made right, as far as its chunks can be found."""
    result = png[:8]
    place = 8
    while place + 12 <= len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        content = png[place + 4 : place + 8 + length]
        result += png[place : place + 4] + content + struct.pack(">I", zlib.crc32(content))
        place += 12 + length
    return result + png[place:]


def damaged(number: int, sound: dict[str, bytes]) -> tuple[str, bytes]:
    """The damaged picture of that number, and the name of the sound one it was made of."""
    chance = random.Random(number)  # noqa: S311
    name = chance.choice(list(sound))
    like = [other for other in sound if other.split(".")[-1] == name.split(".")[-1]]
    data = bytearray(sound[name])
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if data:
            chance.choice(DAMAGE)(data, chance, sound[chance.choice(like)])
    if data[:8] == b"\x89PNG\r\n\x1a\n" and chance.random() < 0.5:
        return name, mended(bytes(data))
    return name, bytes(data)


# The decoder, watched


def outcome(data: bytes) -> str:
    """`taken` or `refused`; an error of any other kind is a crash."""
    try:
        seen = decode.inspect(data)
    except RefusedError as error:
        return "refused" if len(str(error).splitlines()) == 1 else "refused without one line"
    for shorter_side in (224, None):
        picture = decode.decode(data, shorter_side)
        assert picture.mode == "RGB"
        assert picture.size == (seen.width, seen.height) or shorter_side
    return "taken"


class Result(NamedTuple):
    """What came of one picture."""

    number: int
    word: str  # taken, refused, crashed or hung
    seconds: float


def decode_all(numbers: range, sound: dict[str, bytes], out: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for number in numbers:
        _, data = damaged(number, sound)
        start = time.perf_counter()
        word = outcome(data)
        out.send(Result(number, word, time.perf_counter() - start))
    out.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def watch(count: int, sound: dict[str, bytes]) -> tuple[list[Result], float]:
    """Decode all, a process at a time; a new one goes on behind a picture that stopped the last.

    And the most megabytes that one took.
    """
    results: list[Result] = []
    peak = 0
    while len(results) < count:
        numbers = range(len(results), count)
        receive, send = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=decode_all, args=(numbers, sound, send))
        process.start()
        send.close()
        word = "hung"
        while receive.poll(LIMIT_S):
            try:
                message = receive.recv()
            except EOFError:
                word = "crashed"
                break
            if isinstance(message, int):
                peak = max(peak, message)
                continue
            results.append(message)
            if len(results) % 1000 == 0:
                print(f"{len(results)} of {count} decoded", flush=True)
        process.kill()
        process.join()
        if len(results) < count:
            results.append(Result(len(results), word, float(LIMIT_S)))
    return results, peak / 1024


# Ingest


class Ingested(NamedTuple):
    """What `ingest` made of the same pictures."""

    taken: set[int]
    refused: dict[int, str]
    seconds: float
    peak: float  # megabytes


def ingest_all(count: int, sound: dict[str, bytes], folder: Path) -> Ingested:
    """One run of the stage on all of them, in two classes."""
    for number in range(count):
        name, data = damaged(number, sound)
        path = folder / "damaged" / f"class {number % 2}" / f"{number} {name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    project = Project(folder, folder / "damaged", ingest={"max_refused": 1.0})
    took = project.stages("ingest")["ingest"]
    manifest = pd.read_parquet(project.folder / "data/manifest.parquet")
    with (project.folder / "data/refused.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    def number_of(path: str) -> int:
        return int(Path(path).name.split()[0])

    refused = {number_of(row["path"]): row["reason"] for row in rows}
    taken = {number_of(path) for path in manifest["path"]}
    assert len(rows) == len(refused)
    assert not taken & refused.keys()
    return Ingested(taken, refused, took.wall, took.peak)


# The slowest files that are taken, and those made to be slow


def noise(side: int) -> Image.Image:
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8))


def most_scans() -> bytes:
    """A JPEG of as many pixels and scans as are taken."""
    side = 10_950
    data = picture_cases.file(Image.new("RGB", (side, side), "white"), "JPEG", progressive=True)
    scans = picture_cases.jpeg_scans(data)
    allowed = int(decode.MAX_SCANS * decode.MAX_PIXELS / side**2)
    whole = data[scans[0] : scans[1]]
    return data[:-2] + whole * (allowed - len(scans)) + b"\xff\xd9"


def most_chunks() -> bytes:
    """A PNG of sixteen million empty chunks."""
    data = picture_cases.png(picture_cases.colour())
    empty = picture_cases.chunk(b"abCd", b"")
    return picture_cases.with_chunks(data, empty * ((IMAGE.most_bytes - len(data)) // len(empty)))


def most_blocks() -> bytes:
    """A GIF with a comment in pieces of two letters."""
    head, rest = (data := picture_cases.TAKEN["still.gif"].data())[:25], data[25:]
    pieces = (IMAGE.most_bytes - len(data) - 10) // 3
    return head + b"!\xfe" + b"\x02ab" * pieces + b"\0" + rest


def most_segments() -> bytes:
    """A JPEG with fifty million empty notes."""
    data = picture_cases.jpeg()
    empty = b"\xff\xe1\0\2"
    return data[:2] + empty * ((IMAGE.most_bytes - len(data)) // 4) + data[2:]


def most_spaces() -> bytes:
    """A portable map with two hundred million spaces in its header."""
    data = b"P5 48 32 255\n" + bytes(48 * 32)
    return data[:3] + b" " * (IMAGE.most_bytes - len(data)) + data[3:]


def most_letters() -> bytes:
    """A portable map of a hundred million pixels, written out as letters."""
    return b"P2 10000 9999 255\n" + b"7 " * (10000 * 9999)


def odd_depth(width: int, height: int) -> bytes:
    return f"P5 {width} {height} 100\n".encode() + b"d" * (width * height)


def most_strips() -> bytes:
    return picture_cases.tiff_of_strips((IMAGE.most_bytes - 200) // 8)


SLOWEST: dict[str, Callable[[], bytes]] = {
    "JPEG, 120 megapixels of noise": lambda: picture_cases.file(noise(10_950), "JPEG"),
    "JPEG, 120 megapixels, 100 scans": most_scans,
    "PNG, 66 megapixels of noise": lambda: picture_cases.file(noise(8150), "PNG", compress_level=1),
    "WebP, 120 megapixels of noise": lambda: picture_cases.file(noise(10_950), "WEBP", method=0),
    "AVIF, 120 megapixels of noise": lambda: picture_cases.file(noise(10_950), "AVIF", speed=10),
    "GIF, 120 megapixels of noise": lambda: picture_cases.file(noise(10_950), "GIF"),
    "PGM in letters, 100 megapixels (200 MB)": most_letters,
    "PGM of 101 levels, 4.9 megapixels": lambda: odd_depth(2450, 2000),
    "PGM of 101 levels, 120 megapixels": lambda: odd_depth(12_000, 10_000),
    "PGM, 200 million spaces (200 MB)": most_spaces,
    "PNG, 16 million chunks (200 MB)": most_chunks,
    "JPEG, 50 million empty segments (200 MB)": most_segments,
    "GIF, 66 million pieces of a comment (200 MB)": most_blocks,
    "TIFF, 25 million strips (200 MB)": most_strips,
}


INSPECT = """
import sys, time; from pathlib import Path; from pipeline import kinds
from pipeline.core.errors import RefusedError; from pipeline.examples.files import load
image = kinds.named("image")
start = time.perf_counter()
try: image.inspect(load(Path(sys.argv[1]), image.most_bytes)); word = "taken"
except RefusedError as error: word = f"refused: {error}"
print(word, time.perf_counter() - start, sep="|")
"""


def slow(name: str, make: Callable[[], bytes]) -> tuple[str, int, str, float, float]:
    """Its name, bytes, what came of it, seconds and peak memory of `inspect` in a new process."""
    data = make()
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        told = run(sys.executable, "-c", INSPECT, file.name)
    word, seconds = told.gave.split("|")
    print(name, word, seconds, flush=True)
    return name, len(data), word, float(seconds), told.peak


# The page

LIBRARIES = {
    "libjpeg-turbo": "libjpeg_turbo", "libtiff": "libtiff", "WebP": "webp", "AVIF": "avif",
    "LittleCMS": "littlecms2", "zlib-ng": "zlib_ng",
}  # fmt: skip
WORDS = ("taken", "refused", "crashed", "hung")


def measure(scratch: Path, count: int = 30_000) -> str:
    sound = seeds()
    results, peak = watch(count, sound)
    ingested = ingest_all(count, sound, scratch)
    taken, refused = ingested.taken, ingested.refused
    slowest = max(results, key=lambda result: result.seconds)
    repeats = {number for number, reason in refused.items() if "the same picture" in reason}
    differ = [r for r in results if (r.word == "taken") != (r.number in taken)]
    differ = [result for result in differ if result.number not in repeats]
    words = Counter(result.word for result in results)
    decoder = [
        (f"hung (over {LIMIT_S} s)" if word == "hung" else word, words[word]) for word in WORDS
    ]
    decoder += [
        ("slowest", f"{slowest.seconds:.2f} s (number {slowest.number})"),
        ("peak memory of the process", f"{peak:,.0f} MB"),
    ]
    once = [
        ("files", count),
        ("rows of the manifest", len(taken)),
        ("rows of refused.csv", len(refused)),
        ("of them repeats", len(repeats)),
        ("lost", count - len(taken) - len(refused)),
        ("another outcome than the decoder's", len(differ)),
        ("time", f"{ingested.seconds:.0f} s"),
        ("peak memory", f"{ingested.peak:,.0f} MB"),
    ]
    by_ending: dict[str, Counter[str]] = {}
    for result in results:
        name, _ = damaged(result.number, sound)
        by_ending.setdefault(Path(name).suffix or "none", Counter())[result.word] += 1
    endings = [(end, *(of[word] for word in WORDS)) for end, of in sorted(by_ending.items())]
    reasons = Counter(re.split(r" as | [(]|:| the labels", one)[0] for one in refused.values())
    slow_files = [slow(name, make) for name, make in SLOWEST.items()]
    versions = ", ".join(f"{name} {features.version(key)}" for name, key in LIBRARIES.items())
    return f"""# Damaged pictures through the decoder and through ingest

{count:,} damaged pictures, made of {len(sound)} sound ones of every format, Pillow
{PIL.__version__} ({versions}).

{table("decoder | {:,}", decoder)}

{table("ingest, one run | {:,}", once)}

{table("ending of the sound file | taken {:,} | refused {:,} | crashed {:,} | hung {:,}", endings)}

{table("reason, by its first words | files {:,}", reasons.most_common(12))}

## The slowest files

One file, one process: sound pictures at the limits, and files made to be slow.

{table("file | bytes {:,} | outcome | seconds {:.1f} | peak memory {:,.0f} MB", slow_files)}
"""

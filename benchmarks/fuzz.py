"""Does any damaged picture crash the decoder, hang it, fill the memory, or get lost in ingest?

Pictures of every format (`tests/picture_cases.py`, and photographs of scikit-image) are damaged at
random, each from its own number: bits turned, bytes and numbers overwritten, pieces cut out,
doubled, moved or taken from another file. Half of the PNGs get their checksums mended, so that
the damage is not found at once. Every one goes through `pictures.inspect` and `pictures.decode` in
a process that is watched, and then all of them through one run of `ingest`. Last come the files
that take longest of all that are known. (Two of the sound files hold the time of their making, so
that the counts of two runs differ by a few.)

    python benchmarks/fuzz.py [how many: 30000]

writes benchmarks/fuzz.md. It needs 4 GB of memory and, for 100,000, a quarter of an hour.
"""

import csv
import itertools
import multiprocessing
import os
import platform
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import PIL
import skimage
import yaml
from PIL import Image, features

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from pipeline.kinds.image import decode  # noqa: E402
from tests import picture_cases  # noqa: E402

LIMIT_S = 20  # a picture that takes longer counts as a hang
MEMORY_BYTES = 4_000_000_000
# What a process prints of the memory it took; getrusage would count its parent's in.
TELL_PEAK = "print(open('/proc/self/status').read())"
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
    """The same PNG with each chunk's checksum made right, as far as its chunks can be told."""
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
    except decode.RefusedError as error:
        return "refused" if len(str(error).splitlines()) == 1 else "refused without one line"
    for shorter_side in (224, None):
        picture = decode.decode(data, shorter_side)
        assert picture.mode == "RGB"
        assert picture.size == (seen.width, seen.height) or shorter_side
    return "taken"


def peak_of(text: str) -> int:
    """The most memory, in bytes, that a process took, from its /proc/self/status."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", text)[0]) * 1024


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
    out.send(peak_of(Path("/proc/self/status").read_text()))


def watch(count: int, sound: dict[str, bytes]) -> tuple[list[Result], int]:
    """Decode all, a process at a time; a new one goes on behind a picture that stopped the last."""
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
    return results, peak


# Ingest


class Ingested(NamedTuple):
    """What `ingest` made of the same pictures."""

    files: int
    taken: set[int]
    refused: dict[int, str]
    seconds: float
    peak: int


def ingest_all(count: int, sound: dict[str, bytes], folder: Path) -> Ingested:
    """One run of the stage on all of them, in two classes."""
    document = yaml.safe_load((PROJECT / "params.yaml").read_text())
    document["ingest"] |= {"source": "folder", "path": "data/raw/fuzz", "max_refused": 1.0}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    files = 0
    for number in range(count):
        name, data = damaged(number, sound)
        path = folder / "data/raw/fuzz" / f"class {number % 2}" / f"{number} {name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        files += 1
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "HEADSTART_STORE": str(folder / "store"),
    }
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline.ingest import ingest; ingest()\n" + TELL_PEAK],
        cwd=folder, env=environment, check=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    manifest = pd.read_parquet(folder / "data/manifest.parquet")
    with (folder / "data/refused.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))

    def number_of(path: str) -> int:
        return int(Path(path).name.split()[0])

    refused = {number_of(row["path"]): row["reason"] for row in rows}
    taken = {number_of(path) for path in manifest["path"]}
    assert len(rows) == len(refused)
    assert not taken & refused.keys()
    return Ingested(files, taken, refused, seconds, peak_of(done.stdout))


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
    return picture_cases.with_chunks(data, empty * ((decode.MAX_BYTES - len(data)) // len(empty)))


def most_blocks() -> bytes:
    """A GIF with a comment in pieces of two letters."""
    head, rest = (data := picture_cases.TAKEN["still.gif"].data())[:25], data[25:]
    pieces = (decode.MAX_BYTES - len(data) - 10) // 3
    return head + b"!\xfe" + b"\x02ab" * pieces + b"\0" + rest


def most_segments() -> bytes:
    """A JPEG with fifty million empty notes."""
    data = picture_cases.jpeg()
    empty = b"\xff\xe1\0\2"
    return data[:2] + empty * ((decode.MAX_BYTES - len(data)) // 4) + data[2:]


def most_spaces() -> bytes:
    """A portable map with two hundred million spaces in its header."""
    data = b"P5 48 32 255\n" + bytes(48 * 32)
    return data[:3] + b" " * (decode.MAX_BYTES - len(data)) + data[3:]


def most_letters() -> bytes:
    """A portable map of a hundred million pixels, written out as letters."""
    return b"P2 10000 9999 255\n" + b"7 " * (10000 * 9999)


def odd_depth(width: int, height: int) -> bytes:
    return f"P5 {width} {height} 100\n".encode() + b"d" * (width * height)


def most_strips() -> bytes:
    return picture_cases.tiff_of_strips((decode.MAX_BYTES - 200) // 8)


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


def measure(make: Callable[[], bytes]) -> tuple[int, str, float, int]:
    """Bytes, what came of it, seconds and peak memory of `inspect` in a process of its own."""
    data = make()
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        code = (
            "import sys, time; from pathlib import Path; from pipeline import pictures\n"
            "start = time.perf_counter()\n"
            "try: pictures.inspect(pictures.load(Path(sys.argv[1]))); word = 'taken'\n"
            "except pictures.RefusedError as error: word = f'refused: {error}'\n"
            "print(word, time.perf_counter() - start, sep='|')\n" + TELL_PEAK
        )
        result = subprocess.run(
            [sys.executable, "-c", code, file.name],
            cwd=PROJECT, check=True, capture_output=True, text=True,
        )  # fmt: skip
    word, seconds = result.stdout.splitlines()[0].split("|")
    return len(data), word, float(seconds), peak_of(result.stdout)


# The page


def page(
    count: int, sound: dict[str, bytes], results: list[Result], peak: int, ingested: Ingested
) -> Iterator[str]:
    words = Counter(result.word for result in results)
    slowest = max(results, key=lambda result: result.seconds)
    differ = [
        result.number
        for result in results
        if (result.word == "taken") != (result.number in ingested.taken)
        and "the same picture" not in ingested.refused.get(result.number, "")
    ]
    versions = ", ".join(
        f"{name} {features.version(key)}"
        for name, key in {
            "libjpeg-turbo": "libjpeg_turbo", "libtiff": "libtiff", "WebP": "webp", "AVIF": "avif",
            "LittleCMS": "littlecms2", "zlib-ng": "zlib_ng",
        }.items()
    )  # fmt: skip
    yield "# Damaged pictures through the decoder and through ingest"
    yield ""
    yield "Written by `benchmarks/fuzz.py`, which says what is done."
    yield ""
    yield f"- {count:,} damaged pictures, made of {len(sound)} sound ones of every format"
    yield f"- Python {platform.python_version()}, Pillow {PIL.__version__} ({versions})"
    yield f"- {os.cpu_count()} cores, used by other work as well"
    yield ""
    yield "| decoder | |"
    yield "| --- | --- |"
    for word in ("taken", "refused", "crashed", "hung"):
        meaning = f" (over {LIMIT_S} s)" if word == "hung" else ""
        yield f"| {word}{meaning} | {words[word]:,} |"
    yield f"| slowest | {slowest.seconds:.2f} s (number {slowest.number}) |"
    yield f"| peak memory of the process | {peak / 1e6:,.0f} MB |"
    yield ""
    yield "| ingest, one run | |"
    yield "| --- | --- |"
    yield f"| files | {ingested.files:,} |"
    yield f"| rows of the manifest | {len(ingested.taken):,} |"
    yield f"| rows of refused.csv | {len(ingested.refused):,} |"
    repeats = sum("the same picture" in reason for reason in ingested.refused.values())
    yield f"| of them repeats | {repeats:,} |"
    lost = ingested.files - len(ingested.taken) - len(ingested.refused)
    yield f"| lost | {lost} |"
    yield f"| another outcome than the decoder's | {len(differ)} |"
    yield f"| time | {ingested.seconds:.0f} s |"
    yield f"| peak memory | {ingested.peak / 1e6:,.0f} MB |"
    yield ""
    by_format: dict[str, Counter[str]] = {}
    for result in results:
        name, _ = damaged(result.number, sound)
        by_format.setdefault(Path(name).suffix or "none", Counter())[result.word] += 1
    yield "| ending of the sound file | taken | refused | crashed | hung |"
    yield "| --- | --- | --- | --- | --- |"
    for ending, counts in sorted(by_format.items()):
        cells = (f"{counts[word]:,}" for word in ("taken", "refused", "crashed", "hung"))
        yield f"| {ending} | {' | '.join(cells)} |"
    yield ""
    reasons = Counter(
        re.split(r" as | [(]|:| the labels", reason)[0] for reason in ingested.refused.values()
    )
    yield "| reason, by its first words | files |"
    yield "| --- | --- |"
    for reason, times in reasons.most_common(12):
        yield f"| {reason} | {times:,} |"
    yield ""


def slow_page() -> Iterator[str]:
    yield "## The slowest files"
    yield ""
    yield "One file, one process: sound pictures at the limits, and files made to be slow."
    yield ""
    yield "| file | bytes | outcome | seconds | peak memory |"
    yield "| --- | --- | --- | --- | --- |"
    for name, make in SLOWEST.items():
        size, word, seconds, peak = measure(make)
        print(name, word, f"{seconds:.1f} s", flush=True)
        yield f"| {name} | {size:,} | {word} | {seconds:.1f} | {peak / 1e6:,.0f} MB |"


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30_000
    sound = seeds()
    results, peak = watch(count, sound)
    folder = Path(tempfile.mkdtemp())
    try:
        ingested = ingest_all(count, sound, folder)
    finally:
        shutil.rmtree(folder)
    lines = itertools.chain(page(count, sound, results, peak, ingested), slow_page())
    (PROJECT / "benchmarks/fuzz.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

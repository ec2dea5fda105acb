"""What floods do to other clients of `headstart serve`, and how much memory they take.

    python -m benchmarks doors --seconds 60

Two projects are made: of drawn pictures, among whose training examples are some of 25 megapixels,
and of tones. Eight clients ask for plain answers, each over a new connection as soon as it has the
last one: alone, and beside a flood from another process, which has a lower priority since it would
run on another machine. Each flood has a server of its own.
"""

import asyncio
import io
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import soundfile
import yaml
from PIL import Image

from benchmarks.harness import CORES, ENVIRONMENT, ROOT, Project, draw, table
from pipeline.kinds.audio.decode import MOST_SAMPLES, MOST_SECONDS

STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle")
PICTURES, LARGE, SIDE = 60, 12, 5000
CLIENTS = 8
LONGEST = MOST_SECONDS  # of the longest sound that is sent
NICE = 10  # of a flood, which would not take these cores
PATIENCE = 600

# The server, and the clients


class Served(NamedTuple):
    """A server that answers at `address`, and its process."""

    address: str
    process: "subprocess.Popen[bytes]"

    @property
    def peak(self) -> int:
        """The most megabytes of memory that it had so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) // 1000


@contextmanager
def served(project: Path, *options: str) -> Iterator[Served]:
    """`headstart serve` of the project's bundle, with these options, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "headstart", "serve", "bundle", "--port", str(port)]
    command += options
    process = subprocess.Popen(command, cwd=project, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(f"{address}/health")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield Served(address, process)
    finally:
        process.terminate()
        process.wait()


class Asked(NamedTuple):
    """What clients got: seconds of each answer, and how often each status, 0 for no reply."""

    latencies: list[float]
    statuses: Counter[int]

    @property
    def late(self) -> float:
        """Milliseconds within which 95 % of the answers came."""
        return float(1000 * np.percentile(self.latencies, 95)) if self.latencies else float("nan")


async def ask(address: str, bodies: list[bytes], seconds: float) -> Asked:
    """Eight clients ask for plain answers, each over a new connection."""
    asked = Asked([], Counter())
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits, timeout=PATIENCE) as client:
        end = time.perf_counter() + seconds

        async def one(number: int) -> None:
            while time.perf_counter() < end:
                number += CLIENTS
                start = time.perf_counter()
                body = bodies[number % len(bodies)]
                try:
                    status = (await client.post(f"{address}/predict", content=body)).status_code
                except httpx.TransportError:
                    status = 0
                asked.statuses[status] += 1
                if status == 200:
                    asked.latencies.append(time.perf_counter() - start)

        await asyncio.gather(*(one(number) for number in range(CLIENTS)))
    return asked


# Floods: each is many coroutines, in a process that is ended


async def half_headers(address: str, _: list[bytes]) -> None:
    """1,000 headers of which the end never comes."""
    host, port = address.removeprefix("http://").split(":")

    async def one() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /predict HTTP/1.1\r\nHost: local")
        await reader.read()
        writer.close()

    await for_ever(one, 1000)


async def dribbled_bodies(address: str, _: list[bytes]) -> None:
    """256 bodies of which a byte comes each half second."""
    host, port = address.removeprefix("http://").split(":")

    async def one() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n")
        while not reader.at_eof():
            writer.write(b"a")
            await writer.drain()
            try:
                async with asyncio.timeout(0.5):
                    await reader.read(65536)
            except TimeoutError:
                continue
        writer.close()

    await for_ever(one, 256)


async def thumbnails(address: str, numbers: list[bytes]) -> None:
    """40 clients look at the largest training examples."""
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        await for_ever(
            lambda: client.get(f"{address}/training/{int(numbers[time.time_ns() % len(numbers)])}"),
            40,
        )


async def heat_maps(address: str, bodies: list[bytes]) -> None:
    """Four clients ask for heat maps."""
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        asked = f"{address}/predict?heat_map=true"
        await for_ever(lambda: client.post(asked, content=bodies[0]), 4)


async def longest(address: str, bodies: list[bytes]) -> None:
    """Four clients send one sound, again and again."""
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        await for_ever(lambda: client.post(f"{address}/predict", content=bodies[0]), 4)


async def for_ever(one: Callable[[], Awaitable[object]], times: int) -> None:
    async def again() -> None:
        while True:
            try:
                await one()
            except (OSError, httpx.TransportError):
                await asyncio.sleep(0.01)

    await asyncio.gather(*(again() for _ in range(times)))


Flood = Callable[[str, list[bytes]], Awaitable[None]]


def flooding(flood: Flood, address: str, payloads: list[bytes], begun: Event) -> None:
    """What the process of a flood does until it is ended."""
    os.nice(NICE)

    async def begin() -> None:
        asyncio.get_running_loop().call_later(1, begun.set)
        await flood(address, payloads)

    asyncio.run(begin())


@contextmanager
def under(flood: Flood, address: str, payloads: list[bytes]) -> Iterator[None]:
    spawn = multiprocessing.get_context("spawn")
    begun = spawn.Event()
    process = spawn.Process(target=flooding, args=(flood, address, payloads, begun), daemon=True)
    process.start()
    begun.wait()
    try:
        yield
    finally:
        process.kill()
        process.join()


FLOODS: dict[str, Flood] = {
    "1,000 half-sent headers": half_headers,
    "256 dribbling bodies": dribbled_bodies,
    "40 clients at `/training`, 25 megapixels each": thumbnails,
    "4 clients asking for heat maps": heat_maps,
}


# What is served


def of_pictures(scratch: Path) -> tuple[Path, list[bytes], list[bytes]]:
    """A project, pictures to ask about, and the numbers of the largest training examples."""
    raw = scratch / "raw"
    draw(raw, range(PICTURES))
    bodies = [file.read_bytes() for file in sorted(raw.rglob("*.jpg"))]
    folders = sorted(raw.iterdir())
    for number in range(LARGE):
        shade = np.linspace(20 * number, 255, SIDE).astype(np.uint8)
        picture = Image.fromarray(np.broadcast_to(shade[:, None], (SIDE, SIDE)))
        picture.convert("RGB").save(folders[number % len(folders)] / f"large{number}.png")
    project = Project(scratch, raw, augment={"views": 0})
    project.work(*STAGES)
    known = json.loads((project.folder / "bundle" / "neighbours.json").read_text())
    large = [n for n, path in enumerate(known["paths"]) if path.endswith(".png")]
    return project.folder, bodies, [str(number).encode() for number in large]


def sound(samples: np.ndarray, rate: int, form: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form)
    return file.getvalue()


def of_sounds(scratch: Path) -> tuple[Path, list[bytes]]:
    """A project of high and low tones, and sounds of a second to ask about."""
    raw, random = scratch / "raw", np.random.default_rng(0)
    bodies = []
    for number in range(40):
        hertz = (300, 900)[number % 2] * random.uniform(0.9, 1.1)
        tone = np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000)
        bodies.append(sound(0.5 * tone + 0.01 * random.standard_normal(16_000), 16_000))
        folder = raw / ("low", "high")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.wav").write_bytes(bodies[-1])
    scratch.mkdir(exist_ok=True)
    project = Project(scratch)
    settings = yaml.safe_load((ROOT / "examples" / "audio" / "params.yaml").read_text())
    settings["augment"]["views"] = 0
    (project.folder / "params.yaml").write_text(yaml.safe_dump(settings))
    project.give(raw)
    project.set(ingest={"source": "folder", "path": "data/raw/pictures"})
    project.work(*STAGES)
    return project.folder, bodies


def silence(seconds: int, rate: int, channels: int) -> bytes:
    """As FLAC, which has next to no bytes for it."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, channels, format="FLAC") as file:
        for _ in range(seconds):
            file.write(np.zeros((rate, channels), np.float32))
    return buffer.getvalue()


# The page


def beside(
    name: str,
    project: Path,
    bodies: list[bytes],
    flood: Flood,
    payloads: list[bytes],
    seconds: float,
) -> tuple[str, int, int, float, float, float, int, int]:
    """A row: eight clients alone, and beside a flood."""
    with served(project) as server:
        alone = asyncio.run(ask(server.address, bodies, max(2.0, seconds / 4)))
        calm = server.peak
        with under(flood, server.address, payloads):
            asked = asyncio.run(ask(server.address, bodies, seconds))
        others = sum(asked.statuses.values()) - asked.statuses[200]
        ratio = asked.late / alone.late
        counts = asked.statuses[200], others
        return (name, *counts, alone.late, asked.late, ratio, calm, server.peak)


def once(address: str, body: bytes) -> tuple[float, httpx.Response]:
    start = time.perf_counter()
    reply = httpx.post(f"{address}/predict", content=body, timeout=PATIENCE)
    return time.perf_counter() - start, reply


def measure(scratch: Path, seconds: float = 60.0) -> str:
    pictures, shots, large = of_pictures(scratch / "pictures")
    sounds, tones = of_sounds(scratch / "sounds")
    rows = [
        beside(name, pictures, shots, flood, large if flood is thumbnails else shots, seconds)
        for name, flood in FLOODS.items()
    ]
    bomb = silence(MOST_SECONDS, 400_000, 1)
    most = silence(LONGEST, MOST_SAMPLES // MOST_SECONDS // 2, 2)
    with served(sounds) as server:
        before = server.peak
        took, refused = once(server.address, bomb)
        grown = server.peak - before
        answer, reply = once(server.address, most)
        assert (refused.status_code, reply.status_code) == (422, 200), (refused, reply)
    row = beside("4 clients sending the longest sound", sounds, tones, longest, [most], seconds)
    allowed = row[3] / 1000 + 2 * answer
    columns = (
        "| beside | answered | not answered | 95 % ms alone {:.0f} | 95 % ms {:.0f} | ratio {:.2f}"
        " | peak MB alone {:,.0f} | peak MB {:,.0f}"
    )
    return f"""# Floods at the door of `headstart serve`, {CORES} CPU cores

Eight clients ask for plain answers, each over a new connection, for {seconds:g} seconds beside each
flood, which comes from a process of lower priority (nice {NICE}) on the same cores. "Not answered"
counts their requests with another status than 200, or without a reply. Pictures are answered by
EfficientNet-Lite0, sounds by the speech embedding. Memory is VmHWM of the server.

{table(columns.removeprefix("| "), [*rows, row])}

The goal is at most 3 times the latency alone in the first three lines, and no request without an
answer.

A FLAC of {len(bomb) / 1e6:.2f} MB that holds 600 s at 400 kHz is refused from its header in
{1000 * took:.0f} ms; the server's peak grows by {grown} MB. It says: {refused.json()["detail"]}.

The longest sound that is taken, 600 s at 96 kHz with two channels, is answered in {answer:.1f} s if
nobody else asks. Beside it the goal is the latency alone and two such answers, {allowed:.1f} s.
"""

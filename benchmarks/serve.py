"""Throughput and latency of `headstart serve`: `python benchmarks/serve.py PROJECT FOLDER`.

PROJECT is a folder in which `bundle/` lies, FOLDER holds pictures. A server in a process of its own
is asked by 1, 8 and 64 clients at once, each of which asks again as soon as it is answered, over
connections that stay open. Beside it, in this process: the same pictures one at a time through
`Classifier.answer`, and the backbone alone in batches, which says what batching could win. Then a
flood of 500 clients against 64 places.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import onnxruntime

from pipeline.backbones import exports
from pipeline.serving.classifier import Classifier

TABLE = Path(__file__).with_suffix(".md")
ROOT = Path(__file__).resolve().parent.parent
CLIENTS = (1, 8, 64)


@contextmanager
def serving(project: Path, *arguments: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "flows.cli", "serve", "bundle", "--port", str(port)]
    process = subprocess.Popen(
        [*command, *arguments], cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(f"{address}/health")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


async def ask(
    address: str, bodies: list[bytes], clients: int, seconds: float
) -> tuple[list[float], Counter[int], float]:
    """Latencies of the answers, counts of the statuses, and how long it took."""
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(limits=limits, timeout=120) as client:
        begin = time.perf_counter()

        async def one(number: int) -> None:
            while time.perf_counter() < begin + seconds:
                number += clients
                start = time.perf_counter()
                reply = await client.post(
                    f"{address}/predict", content=bodies[number % len(bodies)]
                )
                statuses[reply.status_code] += 1
                if reply.status_code == 200:
                    latencies.append(time.perf_counter() - start)

        await asyncio.gather(*(one(number) for number in range(clients)))
        return latencies, statuses, time.perf_counter() - begin


def one_at_a_time(classifier: Classifier, bodies: list[bytes], seconds: float) -> list[float]:
    latencies = []
    begin = time.perf_counter()
    while time.perf_counter() < begin + seconds:
        start = time.perf_counter()
        classifier.answer(bodies[len(latencies) % len(bodies)])
        latencies.append(time.perf_counter() - start)
    return latencies


def batched(classifier: Classifier, seconds: float) -> dict[int, float]:
    """Views a second of the backbone on one core, by the size of its batches."""
    backbone = classifier.about["backbone"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    file = exports.exported(backbone["name"], backbone["weights"])
    session = onnxruntime.InferenceSession(file, options)
    side = classifier.preprocessing.crop
    rates = {}
    for size in (1, 8, 32):
        views = np.random.default_rng(0).integers(0, 256, (size, side, side, 3), dtype=np.uint8)
        session.run(["features"], {"pictures": views})
        start, done = time.perf_counter(), 0
        while time.perf_counter() < start + seconds:
            session.run(["features"], {"pictures": views})
            done += size
        rates[size] = done / (time.perf_counter() - start)
    return rates


def line(name: str, latencies: list[float], took: float, base: float) -> str:
    rate = len(latencies) / took
    marks = (f"{1000 * mark:.0f}" for mark in np.percentile(latencies, (50, 95, 99)))
    return f"| {name} | {rate:.1f} | {rate / base:.2f} | {' | '.join(marks)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    asked = parser.parse_args()
    files = sorted(f for f in asked.folder.rglob("*") if f.suffix.lower() in (".jpg", ".png"))[:200]
    bodies = [file.read_bytes() for file in files]
    classifier = Classifier(asked.project / "bundle")
    alone = one_at_a_time(classifier, bodies, asked.seconds)
    base = len(alone) / sum(alone)
    lines = [line("in the process, one at a time", alone, sum(alone), base)]
    with serving(asked.project) as address:
        for clients in CLIENTS:
            latencies, statuses, took = asyncio.run(ask(address, bodies, clients, asked.seconds))
            assert set(statuses) == {200}, statuses
            plural = "s" * (clients > 1)
            lines.append(line(f"served, {clients} client{plural}", latencies, took, base))
    load = os.getloadavg()[0]
    with serving(asked.project, "--waiting", "64") as address:
        _, statuses, _ = asyncio.run(ask(address, bodies, 500, asked.seconds / 2))
        after, recovered, took = asyncio.run(ask(address, bodies, 8, asked.seconds / 2))
    assert set(statuses) == {200, 429}, statuses
    assert set(recovered) == {200}, recovered
    sizes = batched(classifier, asked.seconds / 4)
    batches = ", ".join(f"{rate:.1f} in batches of {size}" for size, rate in sizes.items())
    table = "\n".join(lines)
    TABLE.write_text(
        f"""# Serving on {os.cpu_count()} CPU cores, {len(files)} pictures

Made by `python benchmarks/serve.py {asked.project} {asked.folder}`; onnxruntime
{onnxruntime.__version__}, EfficientNet-Lite0 at 224 pixels, {asked.seconds:g} seconds a line, in
one run, load {load:.1f} before the flood. The clients run on the same cores.

| | pictures a second | over one at a time | median ms | 95 % ms | 99 % ms |
| --- | --- | --- | --- | --- | --- |
{table}

A flood of 500 clients against 64 places: {statuses[200]} answered, {statuses[429]:,} refused with
429, no other status; right after it 8 clients get {len(after) / took:.1f} a second, all with 200.

Putting requests into batches would win nothing: on one core the backbone makes {batches}
a second.
"""
    )
    print(TABLE.read_text())


if __name__ == "__main__":
    main()

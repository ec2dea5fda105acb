"""Throughput and latency of `headstart serve`.

    python -m benchmarks serve PROJECT FOLDER

PROJECT is a folder in which `bundle/` lies, FOLDER holds pictures. A server in a process of its own
is asked by 1, 8 and 64 clients at once, each of which asks again as soon as it is answered, over
connections that stay open. Beside it, in this process: the same pictures one at a time through
`Classifier.answer`, and the backbone alone in batches, which says what batching could win. Then a
flood of 500 clients against 64 places.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import onnxruntime

from benchmarks.doors import served
from benchmarks.harness import CORES, cost, table
from pipeline.backbones import exports
from pipeline.serving.classifier import Classifier

CLIENTS, FLOOD = (1, 8, 64), 500


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


def repeated(work: Callable[[], object], long: float) -> list[float]:
    """Seconds of each call, one after the other for so long."""
    begin, found = time.perf_counter(), []
    while time.perf_counter() < begin + long:
        found.append(cost(work).wall)
    return found


def batched(classifier: Classifier, seconds: float) -> dict[int, float]:
    """Views a second of the backbone on one core, by the size of its batches."""
    backbone = classifier.about["backbone"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    file = exports.exported(backbone["name"], backbone["weights"])
    session = onnxruntime.InferenceSession(file, options)
    side = classifier.about["preprocessing"]["crop"]
    rates = {}
    for size in (1, 8, 32):
        views = np.random.default_rng(0).integers(0, 256, (size, side, side, 3), dtype=np.uint8)
        took = repeated(partial(session.run, ["features"], {"pictures": views}), seconds)
        rates[size] = size * len(took) / sum(took)
    return rates


def row(name: str, latencies: list[float], took: float, base: float) -> tuple[object, ...]:
    rate = len(latencies) / took
    return name, rate, rate / base, *(1000 * np.percentile(latencies, (50, 95, 99)))


def measure(project: Path, folder: Path, seconds: float = 10.0) -> str:
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in (".jpg", ".png"))
    bodies = [file.read_bytes() for file in files[:200]]
    classifier = Classifier(project / "bundle")
    again = itertools.cycle(bodies)
    alone = repeated(lambda: classifier.answer(next(again)), seconds)
    base = len(alone) / sum(alone)
    rows = [row("in the process, one at a time", alone, sum(alone), base)]
    with served(project) as server:
        address = server.address
        for clients in CLIENTS:
            latencies, statuses, took = asyncio.run(ask(address, bodies, clients, seconds))
            assert set(statuses) == {200}, statuses
            plural = "s" * (clients > 1)
            rows.append(row(f"served, {clients} client{plural}", latencies, took, base))
    with served(project, "--waiting", "64") as server:
        address = server.address
        _, statuses, _ = asyncio.run(ask(address, bodies, FLOOD, seconds / 2))
        after, recovered, took = asyncio.run(ask(address, bodies, 8, seconds / 2))
    assert set(statuses) == {200, 429}, statuses
    assert set(recovered) == {200}, recovered
    sizes = batched(classifier, seconds / 4)
    batches = ", ".join(f"{rate:.1f} in batches of {size}" for size, rate in sizes.items())
    columns = "| pictures a second {:.1f} | over one at a time {:.2f}"
    return f"""# Serving on {CORES} CPU cores, {len(bodies)} pictures

EfficientNet-Lite0 at 224 pixels, {seconds:g} seconds a line, in one run. The clients run on the
same cores.

{table(columns + " | median ms {:.0f} | 95 % ms {:.0f} | 99 % ms {:.0f}", rows)}

A flood of {FLOOD} clients against 64 places: {statuses[200]} answered, {statuses[429]:,} refused
with 429, no other status; right after it 8 clients get {len(after) / took:.1f} a second, all with
200.

Putting requests into batches would win nothing: on one core the backbone makes {batches}
a second.
"""

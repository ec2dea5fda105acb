"""Answers: on the command line, over HTTP, and how far `model.onnx` is."""

import asyncio
import itertools
import json
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import matplotlib
import numpy as np
import onnxruntime
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from benchmarks.alarms import small_digits
from benchmarks.extract import end_to_end
from benchmarks.harness import (
    CORES,
    ENVIRONMENT,
    Cost,
    Project,
    cost,
    digits,
    draw,
    in_turns,
    table,
)
from pipeline import kinds
from pipeline.backbones import engines, exports
from pipeline.core import params
from pipeline.core.backbone import Backbone
from pipeline.core.paths import BUNDLE, MANIFEST, PLAN
from pipeline.kinds import Pixels
from pipeline.kinds.image import decode, preprocess
from pipeline.runners.wanted import every_view
from pipeline.serving import predict
from pipeline.serving.classifier import Classifier
from pipeline.tables.manifest import read_manifest

# predict

STAGES = ("ingest", "augment", "extract", "train", "evaluate", "bundle")
GOAL = 0.9


def extracted() -> float:
    """Seconds that `extract` takes for one view of each picture."""
    settings = params.load(kinds.schema).extract
    engine = engines.open_engine(settings, kinds.named("image"))
    table = every_view(read_manifest(MANIFEST), pd.read_parquet(PLAN), engine)
    return end_to_end(table, engine, settings.batch_size)


def predicted(classifier: Classifier, heat_maps: Path | None, neighbours: int) -> float:
    """Seconds that `predict` takes for the same pictures."""
    paths = [Path(path) for path in read_manifest(MANIFEST)["path"]]
    start = time.perf_counter()
    rows = list(predict.rows(classifier, paths, heat_maps, neighbours))
    took = time.perf_counter() - start
    assert not any(row["error"] for row in rows)
    return took


def measure_predict(scratch: Path, pictures: Path, rounds: int = 4) -> str:
    """Pictures a second of `headstart predict` beside the extractor's own.

    In one run and in turns: `extract.compute` on the folder's pictures, a view each, into an empty
    store, and `predict.rows` on the same files with a bundle trained on them, without reasons and
    with heat maps and neighbours. Both on every core. The best of the rounds counts.
    """
    project = Project(scratch, pictures, augment={"views": 0})
    project.work(*STAGES)
    with project.inside():
        classifier = Classifier(Path("bundle"), explains=True)
        count = len(read_manifest(MANIFEST))
        works = {
            "extract, a view of each": extracted,
            "predict": lambda: predicted(classifier, None, 0),
            "with heat maps and 5 neighbours": lambda: predicted(classifier, scratch / "maps", 5),
        }
        took = in_turns(rounds, works)
    rates = {name: count / min(cost.gave for cost in costs) for name, costs in took.items()}
    first, ours, _ = rates.values()
    rows = [(name, rate, rate / first) for name, rate in rates.items()]
    return f"""# Prediction on {CORES} CPU cores, {count} pictures

EfficientNet-Lite0 at 224 pixels, a view a picture. Pictures per second, the best of {rounds}
rounds taken in turns.

{table("| pictures a second {:.1f} | over extract {:.2f}", rows)}

The goal is {GOAL} of extract's rate: {"reached" if ours / first >= GOAL else "not reached"}.
"""


# serve


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
    backbone = classifier.bundle.backbone
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    file = exports.exported(Backbone.parse(backbone.name, backbone.weights))
    session = onnxruntime.InferenceSession(file, options)
    side = classifier.bundle.inputs[0].crop
    rates = {}
    for size in (1, 8, 32):
        views = np.random.default_rng(0).integers(0, 256, (size, side, side, 3), dtype=np.uint8)
        took = repeated(partial(session.run, ["features"], {"pictures": views}), seconds)
        rates[size] = size * len(took) / sum(took)
    return rates


def row(name: str, latencies: list[float], took: float, base: float) -> tuple[object, ...]:
    rate = len(latencies) / took
    return name, rate, rate / base, *(1000 * np.percentile(latencies, (50, 95, 99)))


def measure_serve(project: Path, folder: Path, seconds: float = 10.0) -> str:
    """Throughput and latency of `headstart serve`.

        python -m benchmarks answers serve PROJECT FOLDER

    PROJECT is a folder in which `bundle/` lies, FOLDER holds pictures. A server in a process of
    its own is asked by 1, 8 and 64 clients at once, each of which asks again as soon as it is
    answered, over connections that stay open. Beside it, in this process: the same pictures one at
    a time through `Classifier.answer`, and the backbone alone in batches, which says what batching
    could win. Then a flood of 500 clients against 64 places.
    """
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


# graph

TEST = {"train": 0.3, "val": 0.1, "test": 0.6}
PHOTOGRAPHS = 400
OUTPUTS = ["probabilities", "features"]


SIDE = 64  # pixels of a drawn letter
LETTERS = "abcdefghijklmnopqrstuvwxyz"
FONTS = ("DejaVu", "STIXGeneral", "cmb10", "cmmi10", "cmr10", "cmss10", "cmti10", "cmtt10")
NO_LETTERS = ("Display",)  # fonts that have only signs


def glyphs(folder: Path) -> Path:
    """Pictures of small letters, one a font; the folder."""
    fonts = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf"))
    named = [
        f for f in fonts if f.name.startswith(FONTS) and not any(n in f.name for n in NO_LETTERS)
    ]
    for letter in LETTERS:
        (folder / letter).mkdir(parents=True)
        for file in named:
            picture = Image.new("L", (SIDE, SIDE), 255)
            font = ImageFont.truetype(str(file), 48)
            ImageDraw.Draw(picture).text((SIDE / 2, SIDE / 2), letter, 0, font, anchor="mm")
            picture.save(folder / letter / f"{file.stem}.png")
    return folder


def sets_of_pictures(scratch: Path, hymenoptera: Path) -> Iterator[tuple[str, Project]]:
    """The default run, ants and bees in their own split, and sets of which most is the test split.

    Digits have 64 and 8 pixels a side, letters 64, photographs 500 x 375.
    """
    exported = scratch / "backbones"
    yield "surfaces (the default run)", Project(scratch / "surfaces", None, exported)
    plain: dict[str, Any] = {"augment": {"views": 0}}
    yield "ants and bees", Project(scratch / "insects", hymenoptera, exported, **plain)
    plain["ingest"] = {"shares": TEST}
    draw(scratch / "photographs", range(PHOTOGRAPHS))
    small_digits(scratch / "small digits", scratch)
    folders = {
        "digits": digits(scratch / "digits", each=200),
        "digits of 8 pixels": scratch / "small digits",
        "letters": glyphs(scratch / "letters"),
        "photographs": scratch / "photographs",
    }
    for name, folder in folders.items():
        yield name, Project(scratch / f"of {name}", folder, exported, **plain)


def opened(bundle: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(bundle / "model.onnx", options)


class Seen(NamedTuple):
    """What `model.onnx` makes of the raw pixels of test pictures, beside what `predict` does."""

    changed: int  # pictures of another class
    probability: float  # the largest difference
    apart: list[float]  # 1 - the cosine of features, a number a picture
    milliseconds: float  # of the processor, a picture


def seen(project: Project) -> Seen:
    """What is seen of a project's bundle."""
    project.work(*STAGES)
    with project.inside():
        model = opened(BUNDLE)
        form = Pixels(**json.loads((BUNDLE / "bundle.json").read_text())["preprocessing"])
        manifest = read_manifest(MANIFEST)
        wanted: list[list[Any]] = []
        costs: list[Cost] = []
        for path in manifest.loc[manifest["split"] == "test", "path"]:
            data = Path(path).read_bytes()
            wanted.append(model.run(OUTPUTS, {"picture": preprocess.base(data, form)}))
            raw = {"picture": decode.pixels(decode.decode(data))}
            costs.append(cost(partial(model.run, OUTPUTS, raw)))
    found = [one.gave for one in costs]
    some, others = ([np.stack(part) for part in zip(*one, strict=True)] for one in (wanted, found))
    changed = int((some[0].argmax(axis=1) != others[0].argmax(axis=1)).sum())
    lengths = np.linalg.norm(some[1], axis=1) * np.linalg.norm(others[1], axis=1)
    apart = 1 - (some[1] * others[1]).sum(axis=1, dtype=np.float64) / lengths
    most = float(np.abs(some[0] - others[0]).max())
    spent = 1000 * sum(one.cpu for one in costs) / len(costs)
    return Seen(changed, most, apart.tolist(), spent)


def measure_graph(scratch: Path, hymenoptera: Path) -> str:
    """How far `model.onnx` on raw pixels is from `predict`, which scales pictures with Pillow.

        python -m benchmarks answers graph ../shared/data/hymenoptera

    All test pictures of several sets, each with a head of its own. The time is that of the
    processor for whole answers, on one thread.
    """
    rows: list[tuple[Any, ...]] = []
    every: list[Seen] = []
    for name, project in sets_of_pictures(scratch, hymenoptera):
        every.append(one := seen(project))
        far = np.median(one.apart), max(one.apart)
        rows.append((name, len(one.apart), one.changed, one.probability, *far, one.milliseconds))
    apart = [far for one in every for far in one.apart]
    changed, most = sum(one.changed for one in every), max(one.probability for one in every)
    rows.append(("all", len(apart), changed, most, np.median(apart), max(apart), None))
    columns = "test pictures | pictures | another class | largest difference of a"
    columns += " probability {:.1e} | 1 - cosine of features, median {:.1e} | most {:.1e}"
    return f"""# `model.onnx` on raw pixels against Pillow

EfficientNet-Lite0.

{table(columns + " | ms an answer {:.1f}", rows)}

The criterion is at most 3 of 3,000 pictures of another class, and none of the default run's.
"""


PARTS = {
    "predict": measure_predict,
    "serve": measure_serve,
    "graph": measure_graph,
}

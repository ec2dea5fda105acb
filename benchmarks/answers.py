"""Answers: on the command line, over HTTP, what their parts cost, and how far `model.onnx` is."""

import asyncio
import itertools
import json
import re
import shutil
import socket
import statistics
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
import numpy as np
import onnxruntime
import pandas as pd
from safetensors.numpy import load_file, save_file

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
    ratios,
    spread,
    table,
)
from benchmarks.sets import glyphs
from pipeline import kinds
from pipeline.backbones import engines, exports
from pipeline.core import params
from pipeline.core.backbone import Backbone
from pipeline.core.paths import BUNDLE, MANIFEST, PLAN
from pipeline.kinds import Pixels
from pipeline.kinds.image import decode, preprocess
from pipeline.kinds.vector.parse import npy
from pipeline.runners.wanted import every_view
from pipeline.serving import novelty, predict
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


# parts

EXAMPLES = 40


def bundles(scratch: Path, name: str, made: Project) -> tuple[Classifier, Classifier]:
    """The project's bundle with a full bank, and without any."""
    made.work(*STAGES)
    own = made.folder / "bundle"
    about = json.loads((own / "bundle.json").read_text())
    features = load_file(own / "neighbours.safetensors")["features"]
    missing = novelty.MOST - len(features)
    if missing > 0:
        random = np.random.default_rng(0).standard_normal((missing, features.shape[1]))
        random /= np.linalg.norm(random, axis=1, keepdims=True)
        features = np.concatenate([features, random.astype(np.float16)])
        save_file({"features": features}, own / "neighbours.safetensors")
        about["usual"]["examples"] = novelty.MOST
    # A set has to be found even where the promise would be too much for so few examples.
    raps = {"coverage": 0.9, "quantile": 0.5, "lambda": 0.1, "k_reg": 1}
    about["sets"] = about.get("sets", raps)
    (own / "bundle.json").write_text(json.dumps(about))
    before = scratch / f"{name} before"
    shutil.copytree(own, before)
    kept = {key: value for key, value in about.items() if key not in ("usual", "sets")}
    (before / "bundle.json").write_text(json.dumps(kept))
    return Classifier(own), Classifier(before)


def row_of_costs(
    name: str, both: tuple[Classifier, Classifier], data: list[bytes], rounds: int
) -> list[str]:
    """A row of the table."""
    took: list[list[float]] = [[], []]
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.process_time()
            for one in data:
                both[which].answer(one)
            took[which].append(1e6 * (time.process_time() - start) / len(data))
    after, before = took
    more = [one - other for one, other in zip(after, before, strict=True)]
    shown = [spread(before, "{:,.0f}"), spread(after, "{:,.0f}"), f"{statistics.median(more):,.0f}"]
    return [name, *shown, spread(ratios(after, before), "{:.3f}")]


def measure_parts(scratch: Path, hymenoptera: Path, rounds: int = 20) -> str:
    """What novelty and prediction sets cost an answer.

        python -m benchmarks answers parts ../shared/data/hymenoptera [--rounds ROUNDS]

    A bundle of pictures and one of vectors, each as it is and with the keys `usual` and `sets`
    taken out of `bundle.json`. Both answer about the same examples, one after another on one
    thread, in turns; microseconds are those of the processor. The bank has as many rows as a bank
    may have: rows of random directions are put behind the training examples.
    """
    quick = {"augment": {"views": 0}, "evaluate": {"bootstrap": 10}}
    pictures = Project(scratch / "pictures", hymenoptera, **quick)
    vectors = Project(scratch / "vectors")
    example = Path(__file__).parent.parent / "examples" / "vector"
    shutil.copy(example / "params.yaml", vectors.folder)
    vectors.run("python", example / "data.py")
    found = sorted(hymenoptera.glob("val/*/*.jpg"))[:EXAMPLES]
    of_pictures = [file.read_bytes() for file in found]
    random = np.random.default_rng(0)
    of_vectors = [npy(random.random(64).astype(np.float32) * 16) for _ in range(50 * EXAMPLES)]
    rows = [
        row_of_costs("pictures", bundles(scratch, "pictures", pictures), of_pictures, rounds),
        row_of_costs("vectors", bundles(scratch, "vectors", vectors), of_vectors, rounds),
    ]
    columns = "bundle of | before, µs an answer | with both | more | ratio"
    return PAGE.format(rows=table(columns, rows), rounds=rounds, most=novelty.MOST)


PAGE = """# What 'none of these' and sets cost

EfficientNet-Lite0 at 224 pixels, and vectors of 64 numbers that are features already; a bank of
{most:,} examples. Microseconds of the processor an answer, from the file's bytes on; {rounds}
rounds in turns, the median with the least and the most.

{rows}

The goal is a ratio below 1.1 for `predict`. An answer about a vector takes so little itself that
the distance to {most:,} examples shows.
"""


# graph

TEST = {"train": 0.3, "val": 0.1, "test": 0.6}
PHOTOGRAPHS = 400
OUTPUTS = ["probabilities", "features"]


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
    "parts": measure_parts,
    "graph": measure_graph,
}

"""Extraction on the CPU, on a GPU and on Ray, against their parts and other ways."""

import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import chdir
from functools import partial
from importlib.util import find_spec
from itertools import product, repeat
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import psutil
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch.utils.data import DataLoader, Dataset

from benchmarks.harness import (
    CORES,
    ROOT,
    Project,
    cost,
    draw,
    in_turns,
    need,
    ratios,
    seconds,
    spread,
    table,
)
from pipeline import kinds
from pipeline.backbones import catalogue, engines, lite
from pipeline.backbones.engines.engine import Engine
from pipeline.backbones.engines.on_torch import on_torch
from pipeline.core import params
from pipeline.core.backbone import Backbone
from pipeline.core.errors import DeviceError
from pipeline.examples.files import digest, read
from pipeline.kinds.image import preprocess, views
from pipeline.kinds.image.views import ORIGINAL, View
from pipeline.runners.threads import compute
from pipeline.runners.wanted import every_view
from pipeline.store.vectors import FeatureStore

# cpu


def views_of(files: Sequence[Path], count: int, engine: Engine) -> pd.DataFrame:
    """Each picture, once, and so many augmented views of it."""
    digests = [digest(file.read_bytes()) for file in files]
    manifest = pd.DataFrame({"digest": digests, "path": map(str, files)}).drop_duplicates("digest")
    settings = params.load(kinds.schema, ROOT / "params.yaml").augment.model_copy(
        update={"views": count}
    )
    plan = kinds.named("image").plan(manifest["digest"].tolist(), settings)
    return every_view(manifest, plan, engine)


def on_all_cores(work: Callable[..., object], tasks: Sequence[object]) -> float:
    def run() -> None:
        with ThreadPoolExecutor(CORES) as pool:
            list(pool.map(work, tasks))

    return seconds(run)


def parts_alone(wanted: pd.DataFrame, engine: Engine, batch_size: int) -> dict[str, float]:
    """Seconds for reading and decoding, for the views, and for the backbone, each on its own."""
    files = list(dict.fromkeys(zip(wanted["path"], wanted["digest"], strict=True)))
    side = engine.preprocessing.crop
    scaled: dict[str, np.ndarray] = {}

    def decode(file: tuple[str, str]) -> None:
        path, expected = file
        scaled[expected] = preprocess.base(read(Path(path), expected), engine.preprocessing)

    planned = [(row.digest, View(*row[2:6])) for row in wanted.itertuples(index=False)]
    seen = np.empty((len(planned), side, side, 3), np.uint8)

    def transform(number: int) -> None:
        name, view = planned[number]
        seen[number] = preprocess.crop(views.apply(scaled[name], view), side)

    spent = {"decode": on_all_cores(decode, files)}
    spent["transform"] = on_all_cores(transform, range(len(planned)))
    batches = [seen[i : i + batch_size] for i in range(0, len(seen), batch_size)]
    spent["backbone"] = on_all_cores(engine.run, batches)
    return spent


def end_to_end(wanted: pd.DataFrame, engine: Engine, batch_size: int) -> float:
    """Seconds of reading, checking, decoding, views, backbone and store."""
    with tempfile.TemporaryDirectory() as folder, FeatureStore(Path(folder), None) as cache:
        return seconds(lambda: compute(wanted, engine, cache, batch_size))


class Files(Dataset[torch.Tensor]):
    """What a user would write: Pillow, the model's own transform, one tensor a picture."""

    def __init__(self, files: Sequence[str], transform: Callable[[Image.Image], torch.Tensor]):
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        with Image.open(self.files[number]) as picture:
            return self.transform(picture.convert("RGB"))


def peer(files: Sequence[str]) -> float:
    network, _ = lite.in_pytorch(Backbone.parse("efficientnet_lite0"))
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    loader = DataLoader(Files(files, transform), batch_size=32, num_workers=2)

    def run() -> None:
        with torch.inference_mode():
            for batch in loader:
                network(batch)

    return seconds(run)


def measure_cpu(scratch: Path, pictures: Path, rounds: int = 3) -> str:
    """Extraction on the CPU against its parts alone, and against what a user would write.

    Three rates of the same views in one run, each on all cores: Headstart's extract from a cold
    store; the limit, in which decoding, transforming and the backbone each run alone and their
    times are added up; and timm's model in PyTorch's eager mode behind a `DataLoader` of two
    workers. In float32, and in bfloat16 where the processor has it. The best of the rounds counts:
    the machine is noisy.
    """
    project = Project(scratch, pictures)
    settings = params.load(kinds.schema, ROOT / "params.yaml").extract
    rows = []
    with project.inside():  # pictures are read from within a project only
        files = sorted(project.raw.relative_to(project.folder).rglob("*.jpg"))
        for precision, count in itertools.product(("float32", "bfloat16"), (0, 4)):
            try:
                engine = engines.open_engine(
                    settings.model_copy(update={"precision": precision}), kinds.named("image")
                )
            except DeviceError as error:
                print(f"{precision} is left out: {error}")
                continue
            wanted = views_of(files, count, engine)
            n, work = len(wanted), (wanted, engine, settings.batch_size)
            works: dict[str, Callable[[], Any]]
            works = {"alone": partial(parts_alone, *work), "ours": partial(end_to_end, *work)}
            if count == 0:
                works["theirs"] = partial(peer, wanted["path"].tolist())
            turns = in_turns(rounds, works)
            took = {name: [cost.gave for cost in costs] for name, costs in turns.items()}
            best = {part: min(one[part] for one in took["alone"]) for part in took["alone"][0]}
            limit, mine = n / sum(best.values()), n / min(took["ours"])
            theirs = n / min(took["theirs"]) if count == 0 else None
            rates = (*(n / best[part] for part in best), limit, mine, mine / limit)
            rows.append((engine.name, count + 1, *rates, theirs, theirs and mine / theirs))
    columns = "engine | views a picture | decode alone {:.0f} | transform alone {:.0f}"
    columns += " | backbone alone {:.1f} | the three added up {:.1f} | Headstart {:.1f}"
    columns += " | Headstart over the three {:.2f} | timm, DataLoader, eager {:.1f}"
    return f"""# Extraction on {CORES} CPU cores, {len(files)} pictures

EfficientNet-Lite0 at 224 pixels, timm and PyTorch beside it, in float32. Views per second, the best
of {rounds} rounds.

{table(columns + " | Headstart over timm {:.1f}", rows)}
"""


# gpu

SAMPLE = 64  # pictures whose features are compared
BACKBONES = ("torchvision:resnet50", "efficientnet_lite0")
# Without a GPU, the CPU by the path of GPUs (`cpu` would be the CPU's own), and less of it: float16
# takes fifty times as long there as the others.
ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu:0"
PRECISIONS = ("bfloat16", "float32", *(["float16"] if ON_GPU else []))
GPU_BATCH, ROUNDS = (256, 3) if ON_GPU else (16, 1)  # of the rounds the best counts
IMAGE = kinds.named("image")


def opened(backbone: str, precision: str, device: str, weights: str = "random") -> Engine:
    """PyTorch's engine for this backbone."""
    asked = params.load(kinds.schema, ROOT / "params.yaml").extract.model_copy(
        update={"precision": precision, "batch_size": GPU_BATCH}
    )
    name = torch.cuda.get_device_name() if ON_GPU else "no card"
    with patch.object(torch.cuda, "get_device_name", lambda: name):
        return on_torch(catalogue.load(Backbone.parse(backbone, weights)), asked, IMAGE, device)


def extract_rate(files: list[Path], views_each: int, engine: Engine) -> float:
    """Views a second, end to end: reading, checking, decoding, views, backbone, store."""
    wanted = views_of(files, views_each - 1, engine)
    return len(wanted) / min(end_to_end(wanted, engine, GPU_BATCH) for _ in range(ROUNDS))


def alone(engine: Engine) -> float:
    """Views a second of a backbone alone, its batches from the CPU and its features back."""
    side = engine.preprocessing.crop
    views = np.zeros((GPU_BATCH, side, side, 3), np.uint8)
    times = 100 if ON_GPU else 1

    def work() -> None:
        for _ in range(times):
            engine.run(views)

    work()
    return times * GPU_BATCH / seconds(work, ROUNDS)


def views_rate(files: list[Path], engine: Engine) -> float:
    """Views a second of reading, decoding and warping alone, five a picture, on every core."""
    wanted: list[Any] = [ORIGINAL, *(View(angle, 1.05) for angle in (-10, -5, 5, 10))]

    def run(file: Path) -> None:
        torch.as_tensor(engine.make_views([(file.read_bytes(), wanted)])).cpu()

    on_all_cores(run, files[:CORES])
    return 5 * len(files) / min(on_all_cores(run, files) for _ in range(ROUNDS))


def peer_rate(files: list[Path], precision: torch.dtype) -> float:
    model = torchvision.models.resnet50(weights=None).eval().to(DEVICE, precision)
    transform = torchvision.models.ResNet50_Weights.DEFAULT.transforms()
    seen = Files(list(map(str, files)), transform)
    workers = 16 if ON_GPU else CORES
    loader = DataLoader(seen, batch_size=GPU_BATCH, num_workers=workers, pin_memory=ON_GPU)

    def run() -> None:
        with torch.inference_mode():
            for batch in loader:
                model(batch.to(DEVICE, precision, non_blocking=True)).cpu()

    return len(files) / seconds(run)


def distance(
    name: str, got: NDArray[np.float32], wanted: NDArray[np.float32]
) -> tuple[str, float, float, float, float]:
    """A row: least and median cosine, largest distance over the length, largest difference."""
    norm = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = (got * wanted).sum(axis=1) / norm
    apart = np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    return name, cosine.min(), float(np.median(cosine)), apart.max(), np.abs(got - wanted).max()


DISTANCES = (
    "features of EfficientNet-Lite0 | least cosine {:.6f} | median cosine {:.6f}"
    " | largest relative distance {:.4f} | largest difference {:.4f}"
)


def grey_levels(between: str, some: NDArray[np.uint8], others: NDArray[np.uint8]) -> str:
    """A sentence on how far pixels are apart."""
    levels = np.abs(some.astype(int) - others)
    return (
        f"Grey levels between {between}: mean {levels.mean():.2f}, largest {levels.max()}, over 8"
        f" in {(levels > 8).mean():.3%} of the values."
    )


def agreement(files: list[Path]) -> list[str]:
    """Features made on the GPU beside those of the CPU: of the same views, and from the files."""
    plain = opened("efficientnet_lite0", "float32", "cpu", "pretrained")
    both: list[tuple[Any, ...]] = [ORIGINAL, View(10, 1.05)]
    files_and_views = [(file.read_bytes(), both) for file in files[:SAMPLE]]
    seen = plain.make_views(files_and_views)
    parts = np.array_split(seen, -(-len(seen) // GPU_BATCH))
    wanted = np.concatenate([plain.run(part) for part in parts])
    rows = []
    for precision in PRECISIONS:
        engine = opened("efficientnet_lite0", precision, DEVICE, "pretrained")
        made = engine.make_views(files_and_views)
        for what, some in (("the CPU's views", seen), ("from the files", made)):
            got = [engine.run(some[at : at + GPU_BATCH]) for at in range(0, len(some), GPU_BATCH)]
            rows.append(distance(f"{precision}, {what}", np.concatenate(got), wanted))
    between = "views made on the GPU and on the CPU"
    return [
        table(DISTANCES, rows),
        grey_levels(between, np.asarray(torch.as_tensor(made).cpu()), seen),
    ]


def speed(files: list[Path]) -> list[str]:
    rows = []
    for name, precision in product(BACKBONES, PRECISIONS):
        engine = opened(name, precision, DEVICE)
        backbone, made = alone(engine), views_rate(files[: len(files) // 2], engine)
        if ON_GPU:
            torch.cuda.reset_peak_memory_stats()
        one = extract_rate(files, 1, engine)
        five = extract_rate(files[: len(files) // 2], 5, engine)
        memory = torch.cuda.max_memory_reserved() / 1e9 if ON_GPU else None
        del engine
        torch.cuda.empty_cache()
        rows.append(
            (name, precision, backbone, made, one, five, five / min(backbone, made), memory)
        )
        print(rows[-1], flush=True)
    columns = "backbone | precision | backbone alone {:,.0f} | five views alone {:,.0f}"
    columns += " | 1 view {:,.0f} | 5 views {:,.0f} | of the slower {:.2f} | GPU memory {:.1f} GB"
    plain, reduced = (peer_rate(files, precision) for precision in (torch.float32, torch.bfloat16))
    return [
        table(columns, rows),
        "What a user would write, torchvision's ResNet-50 in eager mode behind a `DataLoader`:"
        f" {plain:,.0f} pictures a second in float32, {reduced:,.0f} in bfloat16.",
    ]


def measure_gpu(scratch: Path, pictures: int = 8192) -> str:
    """Extraction on a CUDA GPU against its parts alone, and against what a user would write.

    JPEGs of 500×375 are cut from scikit-image's photographs. In one run: each backbone alone, its
    views alone, and `extract` from a cold store at one and at five views a picture; then
    torchvision's model behind a `DataLoader` of sixteen workers; then how far features on the GPU
    are from the CPU's.

    Without a GPU the same runs on the CPU with a few pictures: of its figures, only the distances
    mean anything.
    """
    count = pictures if ON_GPU else SAMPLE
    with chdir(scratch):  # pictures are read from within a project only
        numbers = [range(i, count, CORES) for i in range(CORES)]
        with ProcessPoolExecutor(CORES) as pool:
            list(pool.map(draw, repeat(Path()), numbers))
        files = sorted(Path().rglob("*.jpg"))
        card = torch.cuda.get_device_name() if ON_GPU else "**No GPU was there: all on the CPU**"
        blocks = [
            f"{card}; {count:,} JPEGs of 500×375, batches of {GPU_BATCH},"
            f" random weights; rates are views a second, the best of {ROUNDS}.",
            *speed(files if ON_GPU else files[:8]),
            *agreement(files),
        ]
        peak = cost(lambda: None).peak
        blocks.append(f"The most memory of the process at any time: {peak / 1e3:.1f} GB.")
    return "\n\n".join(["# Extraction on a GPU", *blocks]) + "\n"


# ray

ADDRESS = "10.77.0.1:6379"
BUSY = ("user", "nice", "system", "irq", "softirq")


def processor_s(work: Callable[[], None]) -> float:
    """Processor time of the whole machine meanwhile: nobody waits for some of Ray's processes."""
    before = psutil.cpu_times()
    work()
    after = psutil.cpu_times()
    return sum(float(getattr(after, name) - getattr(before, name)) for name in BUSY)


def extract_once(made: Project, runner: str, ray: Any = None) -> None:
    """From an empty store."""
    for file in made.store.glob("features-*"):
        file.unlink()
    shutil.rmtree(made.folder / "data" / "features", ignore_errors=True)
    made.set(cluster={"runner": runner, "address": ADDRESS})
    command = [sys.executable, "-m", "pipeline.extract"]
    if ray is None:  # not by `made.run`, which looks at the processes' memory all the time
        subprocess.run(command, cwd=made.folder, env=made.environment, check=True)
    else:
        done = ray.run(*command, cwd=made.folder, environment=made.environment)
        print(done.stdout, done.stderr, flush=True)
        assert done.returncode == 0, done.stderr


def overhead(scratch: Path, pictures: int, rounds: int) -> str:
    """Ray over threads."""
    from tests.helpers.ray_cluster import cluster

    draw(scratch / "drawn", range(pictures))
    made = Project(scratch, scratch / "drawn", augment={"views": 0})
    made.stages("ingest", "augment")
    store = str(made.store)

    def by_ray() -> None:
        with cluster(HEADSTART_STORE=store) as ray:
            ray.start_node()
            extract_once(made, "ray", ray)

    def empty_cluster() -> None:
        with cluster(HEADSTART_STORE=store) as ray:
            ray.start_node()

    extract_once(made, "local")  # which exports the network
    works: dict[str, Callable[[], None]] = {
        "threads": lambda: extract_once(made, "local"),
        "Ray, two nodes of a CPU": by_ray,
        "Ray started and stopped": empty_cluster,
    }
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(processor_s(work))
            print(name, found[name], flush=True)
    rows = [
        (name, spread(costs, "{:.1f}"), spread(ratios(costs, found["threads"])))
        for name, costs in found.items()
    ]
    return table("| processor seconds {} | over threads {}", rows)


def measure_ray(scratch: Path, pictures: int = 5000, rounds: int = 3) -> str:
    """What `extract` on Ray costs, beside threads of one machine.

    The same pictures are extracted from an empty store, in turns by threads and by a Ray cluster
    that has one CPU on each of two nodes. Both are on one machine, in network namespaces (it needs
    root). The processor time is that of the machine, on which nothing else should run, from before
    the cluster is started until after it is stopped.

        python -m benchmarks extract ray [--pictures 5000] [--rounds 3]
    """
    need(find_spec("ray"), "Ray: make setup EXTRAS=ray")
    from tests.helpers.ray_cluster import allowed

    need(allowed(), "root, for network namespaces, and Debian's package iproute2")
    return f"""# `extract` on Ray

## {pictures:,} pictures on two cores, from an empty store

{overhead(scratch, pictures, rounds)}

The processor time is that of the machine, on which nothing else ran, with the start and the stop of
the cluster; {rounds} rounds, in turns.
"""


PARTS = {
    "cpu": measure_cpu,
    "gpu": measure_gpu,
    "ray": measure_ray,
}

"""Extraction on a CUDA GPU against its parts alone, and against what a user would write.

JPEGs of 500×375 are cut from scikit-image's photographs. In one run: nvJPEG alone, each backbone
alone, and `extract` from a cold store at one and at five views a picture; then torchvision's model
behind a `DataLoader` of sixteen workers; then how far features on the GPU are from the CPU's.

Without a GPU the same runs on the CPU with a few pictures, which shows that it runs and no more. It
also writes what can be had without: how far features move by a lower precision, and by colours
decoded as nvJPEG does (that needs `pip install simplejpeg`, and is left out without it).
"""

import io
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import chdir
from itertools import product, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.extract_cpu import Files, end_to_end, views_of
from benchmarks.harness import CORES, ROOT, cost, draw, optional, seconds, table
from pipeline import kinds
from pipeline.backbones import catalogue, engines
from pipeline.backbones.engines.cuda_graph import Graph, record
from pipeline.backbones.engines.engine import Engine
from pipeline.core import params
from pipeline.kinds.image import preprocess
from pipeline.kinds.image.views import ORIGINAL, View

simplejpeg = optional("simplejpeg")

BATCH = 256
ROUNDS = 3  # of which the best counts
BACKBONES = ("torchvision:resnet50", "efficientnet_lite0")
PRECISIONS = ("float16", "bfloat16", "float32")
SAMPLE = 64  # pictures whose features are compared
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMAGE = kinds.named("image")


def opened(backbone: str, precision: str, device: str, weights: str = "random") -> Engine:
    """PyTorch's engine for this backbone."""
    changes: dict[str, Any] = {"backbone": backbone, "precision": precision, "device": device}
    changes |= {"weights": weights, "batch_size": BATCH, "engine": "torch"}
    asked = params.load(kinds.schema, ROOT / "params.yaml").extract.model_copy(update=changes)
    return engines.open_engine(asked, IMAGE)


def extract_rate(files: list[Path], views_each: int, engine: Engine) -> float:
    """Views a second, end to end: reading, checking, decoding, views, backbone, store."""
    wanted = views_of(files, views_each - 1, engine)
    return len(wanted) / min(end_to_end(wanted, engine, BATCH) for _ in range(ROUNDS))


def decoder_rate(files: list[Path], threads: int) -> float:
    """Pictures a second through nvJPEG alone, from memory, on so many threads."""
    from pipeline.kinds.image import gpu

    data = [file.read_bytes() for file in files]
    lists = [data[i : i + BATCH] for i in range(0, len(data), BATCH)]

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            for decoded in pool.map(lambda part: gpu.decode(part, torch.device("cuda")), lists):
                assert all(picture is not None for picture in decoded)
        torch.cuda.synchronize()

    run()
    return len(data) / seconds(run, ROUNDS)


def alone(run: Callable[..., object], side: int) -> float:
    """Views a second of a backbone alone: a recorded one on views that are on the GPU."""
    times = 100 if DEVICE == "cuda" else 1
    views = np.zeros((BATCH, side, side, 3), np.uint8)

    def work() -> None:
        for _ in range(times):
            if isinstance(run, Graph):
                run._graph.replay()
            else:
                run(views)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    work()
    return times * BATCH / seconds(work, ROUNDS)


def compiled(name: str, precision: str) -> str | None:
    """Views a second of the backbone compiled by `torch.compile`, and the seconds that cost."""
    if DEVICE != "cuda":
        return None
    backbone = catalogue.load(name, "random")
    side = backbone.preprocessing.crop
    module = backbone.module.to("cuda", getattr(torch, precision))
    faster: Any = torch.compile(module.to(memory_format=torch.channels_last), dynamic=False)
    recorded = cost(lambda: record(faster, side, BATCH))
    return f"{alone(recorded.gave, side):,.0f} ({recorded.wall:.0f} s)"


def peer_rate(files: list[Path], precision: torch.dtype) -> float:
    model = torchvision.models.resnet50(weights=None).eval().to(DEVICE, precision)
    transform = torchvision.models.ResNet50_Weights.DEFAULT.transforms()
    seen = Files(list(map(str, files)), transform)
    workers = 16 if DEVICE == "cuda" else CORES
    loader = DataLoader(seen, batch_size=BATCH, num_workers=workers, pin_memory=DEVICE == "cuda")

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
    parts = np.array_split(seen, -(-len(seen) // BATCH))
    wanted = np.concatenate([plain.run(part) for part in parts])
    rows = []
    for precision in PRECISIONS:
        engine = opened("efficientnet_lite0", precision, DEVICE, "pretrained")
        made = engine.make_views(files_and_views)
        for what, views in (("the CPU's views", seen), ("from the files", made)):
            got = [engine.run(views[at : at + BATCH]) for at in range(0, len(views), BATCH)]
            rows.append(distance(f"{precision}, {what}", np.concatenate(got), wanted))
    between = "views made on the GPU and on the CPU"
    return [
        table(DISTANCES, rows),
        grey_levels(between, np.asarray(torch.as_tensor(made).cpu()), seen),
    ]


def estimate_without_gpu(files: list[Path]) -> list[str]:
    """The same by the CPU: PyTorch in each precision, and libjpeg repeating colours as nvJPEG."""
    if simplejpeg is None:
        return ["Colours as nvJPEG decodes them were left out: simplejpeg is not installed."]
    backbone = catalogue.load("efficientnet_lite0")
    size = backbone.preprocessing

    def view_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return preprocess.crop(preprocess.base(file.getvalue(), size), size.crop)

    data = [file.read_bytes() for file in files[:SAMPLE]]
    plain = np.stack([view_of(simplejpeg.decode_jpeg(d)) for d in data])
    repeated = np.stack([view_of(simplejpeg.decode_jpeg(d, fastupsample=True)) for d in data])

    def features(seen: NDArray[np.uint8], precision: str) -> NDArray[np.float32]:
        module = catalogue.load("efficientnet_lite0").module.to(getattr(torch, precision))
        with torch.inference_mode():
            parts = [module(part) for part in torch.from_numpy(seen).split(16)]
        return torch.cat(parts).numpy()

    wanted, both = (
        features(plain, "float32"),
        {"the same views": plain, "colours repeated": repeated},
    )
    rows = [
        distance(f"{precision}, {what}", features(both[what], precision), wanted)
        for precision, what in list(product(("float32", "float16", "bfloat16"), both))[1:]
    ]
    between = "views by repeated and by interpolated colours"
    return [table(DISTANCES, rows), grey_levels(between, plain, repeated)]


def speed(files: list[Path]) -> list[str]:
    on_gpu = DEVICE == "cuda"
    decoder = max(decoder_rate(files, threads) for threads in (1, 4)) if on_gpu else None
    most = decoder or float("inf")
    rows = []
    for name, precision in product(BACKBONES, PRECISIONS):
        engine = opened(name, precision, DEVICE)
        backbone = alone(engine.run, engine.preprocessing.crop)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        one = extract_rate(files, 1, engine)
        five = extract_rate(files[: len(files) // 2], 5, engine)
        memory = torch.cuda.max_memory_reserved() / 1e9 if on_gpu else None
        del engine
        torch.cuda.empty_cache()
        rates = (one, one / min(backbone, most), five, five / min(backbone, 5 * most))
        rows.append((name, precision, backbone, compiled(name, precision), *rates, memory))
        print(rows[-1], flush=True)
    columns = "backbone | precision | backbone alone {:,.0f} | compiled (cost) | 1 view {:,.0f}"
    columns += " | of the slower {:.2f} | 5 views {:,.0f} | of the slower {:.2f}"
    plain, reduced = (peer_rate(files, precision) for precision in (torch.float32, torch.bfloat16))
    return [
        *([f"nvJPEG alone: {decoder:,.0f} pictures a second."] if decoder else []),
        table(columns + " | GPU memory {:.1f} GB", rows),
        "What a user would write, torchvision's ResNet-50 in eager mode behind a `DataLoader` of"
        f" 16 workers: {plain:,.0f} pictures a second in float32, {reduced:,.0f} in bfloat16.",
    ]


def measure(scratch: Path, pictures: int = 8192) -> str:
    on_gpu = DEVICE == "cuda"
    count = pictures if on_gpu else SAMPLE
    with chdir(scratch):  # pictures are read from within a project only
        numbers = [range(i, count, CORES) for i in range(CORES)]
        with ProcessPoolExecutor(CORES) as pool:
            list(pool.map(draw, repeat(Path()), numbers))
        files = sorted(Path().rglob("*.jpg"))
        card = torch.cuda.get_device_name() if on_gpu else "**No GPU was there: all on the CPU**"
        blocks = [
            f"{card}; {count:,} JPEGs of 500×375, batches of {BATCH},"
            f" random weights; rates are views a second, the best of {ROUNDS}.",
            *speed(files),
            *agreement(files),
        ]
        if not on_gpu:
            blocks += [
                f"How far the features of {count} pictures are from those in float32 of views"
                " decoded by libjpeg, computed on the CPU:",
                *estimate_without_gpu(files),
            ]
        peak = cost(lambda: None).peak
        blocks.append(f"The most memory of the process at any time: {peak / 1e3:.1f} GB.")
    return "\n\n".join(["# Extraction on a GPU", *blocks]) + "\n"

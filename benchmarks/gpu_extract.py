"""Extraction on a CUDA GPU against its parts alone, and against what a user would write.

    python benchmarks/gpu_extract.py [--pictures 8192]

JPEGs of 500×375 are cut from scikit-image's photographs. In one run: nvJPEG alone, each backbone
alone, and `extract` from a cold store at one and at five views a picture; then torchvision's model
behind a `DataLoader` of sixteen workers; then how far features on the GPU are from the CPU's.
Writes `benchmarks/gpu_extract.md`.

Without a GPU it writes what can be had without: how far features move by a lower precision, and by
colours decoded as nvJPEG does (that needs simplejpeg, installed for the benchmark only).
"""

import argparse
import io
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ten_in_ten_thousand import draw  # noqa: E402

from pipeline import extract  # noqa: E402
from pipeline.backbones import catalogue, engines  # noqa: E402
from pipeline.backbones.engines import Engine  # noqa: E402
from pipeline.core import params  # noqa: E402
from pipeline.core.params import ExtractParams  # noqa: E402
from pipeline.kinds.image import decode, preprocess  # noqa: E402
from pipeline.kinds.image.views import ORIGINAL, View  # noqa: E402
from pipeline.store.local import FeatureStore  # noqa: E402

CORES = os.cpu_count() or 1
BATCH = 256
ROUNDS = 3  # of which the best counts
BACKBONES = ("torchvision:resnet50", "efficientnet_lite0")
PRECISIONS = ("float16", "bfloat16", "float32")
SAMPLE = 64  # pictures whose features are compared


def settings(backbone: str, precision: str, device: str, weights: str = "random") -> ExtractParams:
    changes = {"backbone": backbone, "precision": precision, "device": device}
    changes |= {"weights": weights, "batch_size": BATCH, "engine": "torch"}
    return params.load(ROOT / "params.yaml").extract.model_copy(update=changes)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def table_of(files: list[Path], views_each: int, engine: Engine) -> pd.DataFrame:
    """`views_each` views of each picture, the first of them the picture itself."""
    digests = [decode.digest(file.read_bytes()) for file in files]
    manifest = pd.DataFrame({"digest": digests, "path": [str(file) for file in files]})
    random = np.random.default_rng(0)
    rows = [
        (digest, view, random.uniform(-15, 15), random.uniform(0.9, 1.1), view % 2 == 0, False)
        for digest in digests
        for view in range(1, views_each)
    ]
    plan = pd.DataFrame(rows, columns=["digest", "view", *View._fields])
    return extract.every_view(manifest, plan, engine)


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """The most GPU memory in use at once within the block, in gigabytes."""
    found: dict[str, float] = {}
    torch.cuda.reset_peak_memory_stats()
    yield found
    found["GB"] = torch.cuda.max_memory_reserved() / 1e9


def extract_rate(files: list[Path], views_each: int, engine: Engine) -> float:
    """Views a second, end to end: reading, checking, decoding, views, backbone, store."""
    table = table_of(files, views_each, engine)
    best = float("inf")
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name, FeatureStore(Path(name), None) as cache:
            best = min(best, seconds(partial(extract.compute, table, engine, cache, BATCH)))
    return len(table) / best


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
    return len(data) / min(seconds(run) for _ in range(ROUNDS))


def backbone_rate(engine: Engine) -> float:
    """Views a second through the recorded backbone alone, on views that are on the GPU."""
    graph = engine.run._graph  # type: ignore[attr-defined]

    def run() -> None:
        for _ in range(100):
            graph.replay()
        torch.cuda.synchronize()

    run()
    return 100 * BATCH / min(seconds(run) for _ in range(ROUNDS))


def compiled_rate(name: str, precision: str) -> tuple[float, float]:
    """Views a second of the backbone compiled by `torch.compile`, and the seconds that cost."""
    from pipeline.kinds.image import gpu

    backbone = catalogue.load(name, "random")
    module = backbone.module.to("cuda", getattr(torch, precision))
    module = torch.compile(module.to(memory_format=torch.channels_last), dynamic=False)
    side = backbone.preprocessing.crop
    graphs = []
    cost = seconds(lambda: graphs.append(gpu.record(module, side, BATCH)))

    def run() -> None:
        for _ in range(100):
            graphs[0]._graph.replay()
        torch.cuda.synchronize()

    run()
    return 100 * BATCH / min(seconds(run) for _ in range(ROUNDS)), cost


class Files(Dataset[torch.Tensor]):
    """What a user would write: Pillow, torchvision's transforms of the model's own weights."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.transform = torchvision.models.ResNet50_Weights.DEFAULT.transforms()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        with Image.open(self.files[number]) as picture:
            return self.transform(picture.convert("RGB"))


def peer_rate(files: list[Path], precision: torch.dtype) -> float:
    model = torchvision.models.resnet50(weights=None).eval().to("cuda", precision)
    loader = DataLoader(Files(files), batch_size=BATCH, num_workers=16, pin_memory=True)

    def run() -> None:
        with torch.inference_mode():
            for batch in loader:
                model(batch.to("cuda", precision, non_blocking=True)).cpu()

    return len(files) / seconds(run)


def distance(name: str, got: NDArray[np.float32], wanted: NDArray[np.float32]) -> str:
    norm = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = (got * wanted).sum(axis=1) / norm
    apart = np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    return (
        f"| {name} | {cosine.min():.6f} | {np.median(cosine):.6f} | {apart.max():.4f}"
        f" | {np.abs(got - wanted).max():.4f} |"
    )


DISTANCE_HEAD = [
    "| features of EfficientNet-Lite0 | least cosine | median cosine | largest relative distance"
    " | largest difference |",
    "| --- | --- | --- | --- | --- |",
]


def agreement_on_gpu(files: list[Path]) -> list[str]:
    """Features made on the GPU beside those of the CPU: of the same views, and from the files."""
    plain = engines.open_engine(settings("efficientnet_lite0", "float32", "cpu", "pretrained"))
    asked = [(file.read_bytes(), [ORIGINAL, View(10, 1.05)]) for file in files[:SAMPLE]]
    seen = plain.make_views(asked)
    parts = np.array_split(seen, -(-len(seen) // BATCH))
    wanted = np.concatenate([plain.run(part) for part in parts])
    lines = []
    for precision in PRECISIONS:
        engine = engines.open_engine(
            settings("efficientnet_lite0", precision, "cuda", "pretrained")
        )
        lines.append(distance(f"{precision}, the CPU's views", engine.run(seen), wanted))
        made = engine.make_views(asked)
        lines.append(distance(f"{precision}, from the files", engine.run(made), wanted))
    levels = np.abs(made.cpu().numpy().astype(int) - seen)
    return [
        *DISTANCE_HEAD,
        *lines,
        "",
        f"Grey levels between views made on the GPU and on the CPU: mean {levels.mean():.2f},"
        f" largest {levels.max()}, over 8 in {(levels > 8).mean():.3%} of the values.",
    ]


def estimate_without_gpu(files: list[Path]) -> list[str]:
    """The same by the CPU: PyTorch in each precision, and libjpeg repeating colours as nvJPEG."""
    import simplejpeg

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

    wanted = features(plain, "float32")
    lines = [distance("float32, colours repeated", features(repeated, "float32"), wanted)]
    for precision in ("float16", "bfloat16"):
        lines.append(distance(f"{precision}, the same views", features(plain, precision), wanted))
        name = f"{precision}, colours repeated"
        lines.append(distance(name, features(repeated, precision), wanted))
    levels = np.abs(plain.astype(int) - repeated)
    return [
        *DISTANCE_HEAD,
        *lines,
        "",
        f"Grey levels between views by repeated and by interpolated colours: mean"
        f" {levels.mean():.2f}, largest {levels.max()}, over 8 in {(levels > 8).mean():.3%} of the"
        " values.",
    ]


def speed(files: list[Path]) -> list[str]:
    decoder = max(decoder_rate(files, threads) for threads in (1, 4))
    lines = [
        f"nvJPEG alone: {decoder:,.0f} pictures a second.",
        "",
        "| backbone | precision | backbone alone | compiled (cost) | 1 view | of the slower"
        " | 5 views | of the slower | GPU memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in BACKBONES:
        for precision in PRECISIONS:
            engine = engines.open_engine(settings(name, precision, "cuda"))
            alone = backbone_rate(engine)
            with peak_memory() as memory:
                one = extract_rate(files, 1, engine)
                five = extract_rate(files[: len(files) // 2], 5, engine)
            del engine
            torch.cuda.empty_cache()
            compiled, cost = compiled_rate(name, precision)
            lines.append(
                f"| {name} | {precision} | {alone:,.0f} | {compiled:,.0f} ({cost:.0f} s)"
                f" | {one:,.0f} | {one / min(alone, decoder):.2f}"
                f" | {five:,.0f} | {five / min(alone, 5 * decoder):.2f} | {memory['GB']:.1f} GB |"
            )
            print(lines[-1], flush=True)
    return lines


def peers(files: list[Path]) -> list[str]:
    plain, reduced = (peer_rate(files, precision) for precision in (torch.float32, torch.bfloat16))
    return [
        "What a user would write, torchvision's ResNet-50 in eager mode behind a `DataLoader` of"
        f" 16 workers: {plain:,.0f} pictures a second in float32, {reduced:,.0f} in bfloat16.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=8192)
    has_cuda = torch.cuda.is_available()
    count = parser.parse_args().pictures if has_cuda else SAMPLE
    with tempfile.TemporaryDirectory() as name:
        numbers = [range(i, count, CORES) for i in range(CORES)]
        with ProcessPoolExecutor(CORES) as pool:
            list(pool.map(draw, repeat(Path(name)), numbers))
        files = sorted(Path(name).rglob("*.jpg"))
        machine = (
            f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}, {CORES} cores"
        )
        if has_cuda:
            lines = [
                f"{torch.cuda.get_device_name()}, {machine}; {count:,} JPEGs of 500×375, batches of"
                f" {BATCH}, random weights; rates are views a second, the best of {ROUNDS}.",
                "",
                *chain(speed(files), [""], peers(files), [""], agreement_on_gpu(files)),
                "",
                "The most memory of the process at any time:"
                f" {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB.",
            ]
        else:
            lines = [
                f"**No GPU was there, so no speed was measured.** {platform.machine()}, {machine}.",
                "",
                "How far the features of 64 pictures are from those in float32 of views decoded by"
                " libjpeg, computed on the CPU:",
                "",
                *estimate_without_gpu(files),
            ]
    title = ["# Extraction on a GPU", "", "Made by `python benchmarks/gpu_extract.py`.", ""]
    Path(__file__).with_suffix(".md").write_text("\n".join([*title, *lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

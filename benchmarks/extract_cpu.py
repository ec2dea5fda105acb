"""Extraction on the CPU against its parts alone, and against what a user would write.

Three rates of the same views in one run, each on all cores: Headstart's extract from a cold store;
the limit, in which decoding, transforming and the backbone each run alone and their times are added
up; and timm's model in PyTorch's eager mode behind a `DataLoader` of two workers. In float32, and
in bfloat16 where the processor has it. The best of the rounds counts: the machine is noisy.
"""

import itertools
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch.utils.data import DataLoader, Dataset

from benchmarks.harness import CORES, ROOT, Project, in_turns, seconds, table
from pipeline import kinds
from pipeline.backbones import catalogue, engines
from pipeline.backbones.engines.engine import Engine
from pipeline.core import params
from pipeline.core.errors import DeviceError
from pipeline.core.files import digest, read
from pipeline.kinds.image import preprocess, views
from pipeline.kinds.image.views import View
from pipeline.runners.threads import compute
from pipeline.runners.wanted import every_view
from pipeline.store.vectors import FeatureStore


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
    network, _ = catalogue.lite_classifier("efficientnet_lite0", pretrained=True)
    network.reset_classifier(0)  # type: ignore[operator]
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    loader = DataLoader(Files(files, transform), batch_size=32, num_workers=2)

    def run() -> None:
        with torch.inference_mode():
            for batch in loader:
                network(batch)

    return seconds(run)


def measure(scratch: Path, pictures: Path, rounds: int = 3) -> str:
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

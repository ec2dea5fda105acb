"""Pictures a second of `headstart predict` beside the extractor's own.

`python benchmarks/predict.py FOLDER`, which holds a folder of pictures a class.

In one run and in turns: `extract.compute` on the folder's pictures, a view each, into an empty
store, and `predict.rows` on the same files with a bundle trained on them, without reasons and with
heat maps and neighbours. Both on every core. The best of the rounds counts.
"""

import argparse
import importlib
import os
import tempfile
import time
from pathlib import Path

import onnxruntime
import pandas as pd
import yaml

from pipeline import extract
from pipeline.backbones import engines
from pipeline.core import params
from pipeline.core.paths import MANIFEST, PLAN
from pipeline.serving import predict
from pipeline.serving.classifier import Classifier
from pipeline.store.local import FeatureStore
from pipeline.tables.features import read_manifest

PROJECT = Path(__file__).resolve().parent.parent
STAGES = ("ingest", "augment", "extract", "train", "evaluate", "bundle")
TABLE = Path(__file__).with_suffix(".md")
GOAL = 0.9


def prepare(source: Path, folder: Path) -> None:
    """Run all stages on `source` in `folder`."""
    document = yaml.safe_load((PROJECT / "params.yaml").read_text())
    document["ingest"] |= {"source": "folder", "path": "data/raw/pictures"}
    document["augment"]["views"] = 0
    (folder / "data" / "raw").mkdir(parents=True)
    (folder / "data" / "raw" / "pictures").symlink_to(source)
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    os.chdir(folder)
    for stage in STAGES:
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


def extracted(folder: Path) -> float:
    """Seconds that `extract` takes for one view of each picture."""
    settings = params.load().extract
    engine = engines.open_engine(settings)
    table = extract.every_view(read_manifest(MANIFEST), pd.read_parquet(PLAN), engine)
    with FeatureStore(folder / f"store-{time.monotonic_ns()}", None) as store:
        start = time.perf_counter()
        extract.compute(table, engine, store, settings.batch_size)
        return time.perf_counter() - start


def predicted(classifier: Classifier, heat_maps: Path | None, neighbours: int) -> float:
    """Seconds that `predict` takes for the same pictures."""
    paths = [Path(path) for path in read_manifest(MANIFEST)["path"]]
    start = time.perf_counter()
    rows = list(predict.rows(classifier, paths, heat_maps, neighbours))
    took = time.perf_counter() - start
    assert not any(row["error"] for row in rows)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    source, command = asked.folder.resolve(), f"python benchmarks/predict.py {asked.folder}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(source, folder)
        classifier = Classifier(Path("bundle"), reasons=True)
        pictures = len(read_manifest(MANIFEST))
        seconds: dict[str, list[float]] = {"extract": [], "predict": [], "reasons": []}
        for _ in range(asked.rounds):
            seconds["extract"].append(extracted(folder))
            seconds["predict"].append(predicted(classifier, None, 0))
            seconds["reasons"].append(predicted(classifier, folder / "maps", 5))
        os.chdir(PROJECT)
    rates = {name: pictures / min(values) for name, values in seconds.items()}
    shares = {name: rate / rates["extract"] for name, rate in rates.items()}
    TABLE.write_text(
        f"""# Prediction on {os.cpu_count()} CPU cores, {pictures} pictures

Made by `{command}`; onnxruntime {onnxruntime.__version__},
EfficientNet-Lite0 at 224 pixels, a view a picture. Pictures per second, the best of {asked.rounds}
rounds taken in turns; load {os.getloadavg()[0]:.1f} at their end.

| | pictures a second | over extract |
| --- | --- | --- |
| extract, a view of each | {rates["extract"]:.1f} | 1 |
| predict | {rates["predict"]:.1f} | {shares["predict"]:.2f} |
| with heat maps and 5 neighbours | {rates["reasons"]:.1f} | {shares["reasons"]:.2f} |

The goal is {GOAL} of extract's rate: {"reached" if shares["predict"] >= GOAL else "not reached"}.
"""
    )
    print(TABLE.read_text())


if __name__ == "__main__":
    main()

"""Pictures a second of `headstart predict` beside the extractor's own.

In one run and in turns: `extract.compute` on the folder's pictures, a view each, into an empty
store, and `predict.rows` on the same files with a bundle trained on them, without reasons and with
heat maps and neighbours. Both on every core. The best of the rounds counts.
"""

import time
from pathlib import Path

import pandas as pd

from benchmarks.extract_cpu import end_to_end
from benchmarks.harness import CORES, Project, in_turns, table
from pipeline import kinds
from pipeline.backbones import engines
from pipeline.core import params
from pipeline.core.paths import MANIFEST, PLAN
from pipeline.runners.wanted import every_view
from pipeline.serving import predict
from pipeline.serving.classifier import Classifier
from pipeline.tables.manifest import read_manifest

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


def measure(scratch: Path, pictures: Path, rounds: int = 4) -> str:
    project = Project(scratch, pictures, augment={"views": 0})
    project.stages(*STAGES)
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

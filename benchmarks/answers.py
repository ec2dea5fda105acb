"""What it costs that an answer tells how usual the example is and which classes it may be.

    python -m benchmarks answers ../shared/data/hymenoptera [--rounds ROUNDS]

A bundle of pictures and one of vectors, each as it is and with the keys `usual` and `sets` taken
out of `bundle.json`. Both answer about the same examples, one after another on one thread, in
turns; microseconds are those of the processor. The bank has as many rows as a bank may have: rows
of random directions are put behind the training examples.
"""

import json
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.harness import Project, ratios, spread, table
from pipeline.kinds.vector.parse import npy
from pipeline.serving import usual
from pipeline.serving.classifier import Classifier

STAGES = ("ingest", "augment", "extract", "train", "evaluate", "bundle")
EXAMPLES = 40


def bundles(scratch: Path, name: str, made: Project) -> tuple[Classifier, Classifier]:
    """The project's bundle with a full bank, and without any."""
    made.work(*STAGES)
    own = made.folder / "bundle"
    about = json.loads((own / "bundle.json").read_text())
    features = load_file(own / "neighbours.safetensors")["features"]
    missing = usual.MOST - len(features)
    if missing > 0:
        random = np.random.default_rng(0).standard_normal((missing, features.shape[1]))
        random /= np.linalg.norm(random, axis=1, keepdims=True)
        features = np.concatenate([features, random.astype(np.float16)])
        save_file({"features": features}, own / "neighbours.safetensors")
        about["usual"]["examples"] = usual.MOST
    # A set has to be found even where the promise would be too much for so few examples.
    raps = {"coverage": 0.9, "quantile": 0.5, "lambda": 0.1, "k_reg": 1}
    about["sets"] = about.get("sets", raps)
    (own / "bundle.json").write_text(json.dumps(about))
    before = scratch / f"{name} before"
    shutil.copytree(own, before)
    kept = {key: value for key, value in about.items() if key not in ("usual", "sets")}
    (before / "bundle.json").write_text(json.dumps(kept))
    return Classifier(own), Classifier(before)


def row(
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


def measure(scratch: Path, hymenoptera: Path, rounds: int = 20) -> str:
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
        row("pictures", bundles(scratch, "pictures", pictures), of_pictures, rounds),
        row("vectors", bundles(scratch, "vectors", vectors), of_vectors, rounds),
    ]
    columns = "bundle of | before, µs an answer | with both | more | ratio"
    return PAGE.format(rows=table(columns, rows), rounds=rounds, most=usual.MOST)


PAGE = """# What 'none of these' and sets cost

EfficientNet-Lite0 at 224 pixels, and vectors of 64 numbers that are features already; a bank of
{most:,} examples. Microseconds of the processor an answer, from the file's bytes on; {rounds}
rounds in turns, the median with the least and the most.

{rows}

The goal is a ratio below 1.1 for `predict`. An answer about a vector takes so little itself that
the distance to {most:,} examples shows.
"""

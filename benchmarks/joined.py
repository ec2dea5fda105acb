"""What a prediction costs with joined backbones, beside the networks one by one.

    python -m benchmarks joined ../shared/data/hymenoptera [--rounds ROUNDS]

A bundle is made of each network and of the three joined. Each answers about the same pictures, one
after another on one thread, in turns. Seconds are those of the processor.
"""

import time
from pathlib import Path

from benchmarks.harness import Project, ratios, spread, table
from pipeline.serving.classifier import Classifier

STAGES = ("ingest", "augment", "extract", "train", "evaluate", "bundle")
NETWORKS = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
PICTURES = 40


def measure(hymenoptera: Path, scratch: Path, rounds: int = 5) -> str:
    data = [file.read_bytes() for file in sorted(hymenoptera.glob("val/*/*.jpg"))[:PICTURES]]
    names = [*NETWORKS, "+".join(NETWORKS)]
    opened = {name: classifier(name, hymenoptera, scratch) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, one in opened.items():
            start = time.process_time()
            for picture in data:
                one.answer(picture)
            seconds[name].append(1000 * (time.process_time() - start) / len(data))
    sums = [sum(seconds[name][turn] for name in NETWORKS) for turn in range(rounds)]
    rows = [(name, spread(seconds[name], "{:.1f}")) for name in names]
    rows.append(("the three added up", spread(sums, "{:.1f}")))
    over = ratios(seconds[names[-1]], sums)
    return (
        f"# Joined backbones: what a prediction costs\n\n{PICTURES} pictures, {rounds} rounds in"
        " turns; medians, with the least and the most.\n\n"
        + table("backbone | milliseconds a picture", rows)
        + f"\n\nThe three joined over the three added up: {spread(over)}.\n"
    )


def classifier(name: str, pictures: Path, scratch: Path) -> Classifier:
    """A bundle of this backbone, opened."""
    folder = scratch / name
    project = Project(folder, pictures, scratch / "backbones", augment={"views": 0})
    project.set(extract={"backbone": name}, evaluate={"bootstrap": 10})
    project.work(*STAGES)
    with project.inside():
        return Classifier(Path("bundle"))

"""Ants and bees in the set's own split: today's defaults, those of before, and `headstart choose`.

    python -m benchmarks own_split ../shared/data/hymenoptera
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Project, table

BEFORE = {"optimizer": "lbfgs", "layers": "last", "row_weights": "none"}
EARLY = ("ingest", "augment", "extract")
WAYS = ("before", "default", "choose", "choose, lowest loss")


def measure(scratch: Path, pictures: Path, draws: int = 5) -> str:
    """A draw is a seed of `ingest`, `augment` and `train`."""
    project, found, taken = Project(scratch, pictures), [], []
    file = project.folder / "params.yaml"
    start = file.read_text().replace("optimizer:\n  - lda\n  - lbfgs", "optimizer: [lda, lbfgs]")

    def right(*stages: str, **changes: dict[str, Any]) -> float:
        project.set(**changes)
        project.stages(*stages)
        return float(project.report("metrics")["test"]["accuracy"])

    for seed in range(draws):
        file.write_text(start)
        seeds = {name: {"seed": seed} for name in ("ingest", "augment", "train")}
        of = [right(*EARLY, "train", "evaluate", **seeds)]
        of.insert(0, right("train", "evaluate", train=BEFORE))
        names = []
        for asked in ((), ("--budget", "100000")):
            file.write_text(start)
            command = (sys.executable, "-m", "headstart", "choose", *asked)
            said = project.run(*command).gave.partition(" now, instead of ")[0]
            names.append(said.rpartition("params.yaml has ")[2])
            of.append(right(*EARLY, "train", "evaluate", **seeds))
            print(seed, of, names, flush=True)
        found.append(of)
        taken.append((seed, *of, *names))
    means = np.mean(found, axis=0)
    spreads = np.std(found, axis=0, ddof=1)
    rows = [*taken, ("**mean**", *means, "", ""), ("standard deviation", *spreads, "", "")]
    of_test = project.report("metrics")["test"]
    columns = " | ".join(f"{way} {{:.4f}}" for way in WAYS)
    return f"""# Ants and bees, the set's own split

Accuracies on the {of_test["pictures"]} test pictures, which are always the same. A draw is a seed:
it decides which quarter of the training pictures is for validation, and how views are augmented; then
heads are trained on both. `before`: `lbfgs` with weight decay 0.003 on the last layer, all rows
weighing alike. `default`: the parameters of `headstart init`. `choose`: what `headstart choose`
writes, and with a budget so large that the lowest loss wins.

{table(f"seed | {columns} | taken | taken, lowest loss", rows)}
"""

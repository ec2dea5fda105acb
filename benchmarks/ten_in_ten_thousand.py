"""Ten pictures added to many: what `dvc repro` takes, and `headstart why`."""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import Repository, draw, multiply, table

# repro

MOST = 8  # changes that are tried, of all


class Timed(NamedTuple):
    """A `dvc repro`: seconds in all and of each stage's own command, and what else came of it."""

    title: str
    whole: float
    own: dict[str, float]
    computed: str
    new: float  # megabytes in DVC's cache

    @property
    def rest(self) -> float:
        """Seconds of DVC itself."""
        return self.whole - sum(self.own.values())


def cached(repository: Repository) -> float:
    """Megabytes in DVC's cache."""
    files = (repository.folder / ".dvc" / "cache").rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def repro(repository: Repository, title: str) -> Timed:
    before, start = cached(repository), time.perf_counter()
    process = repository.start("dvc", "repro")
    stage, began, output = "", start, ""
    own: dict[str, float] = {}
    assert process.stdout
    for line in process.stdout:
        now = time.perf_counter()
        output += line
        if line.startswith("> python -m pipeline."):
            stage, began = line.strip().rpartition(".")[2], now
        elif stage and line.startswith(f"{stage}: "):
            own[stage] = now - began
    assert process.wait() == 0, output
    whole = time.perf_counter() - start
    found = re.search(r"(\d+) reused, (\d+) computed", output)
    counts = f"{int(found[2]):,} computed, {int(found[1]):,} reused" if found else ""
    result = Timed(title, whole, own, counts or "extract did not run", cached(repository) - before)
    print(result, flush=True)
    return result


def measure_repro(scratch: Path, pictures: int = 10_000, views: int = 4) -> str:
    """Ten pictures added to ten thousand: what the next `dvc repro` computes, and where time goes.

    Each line of a run's output is timed, so that a stage's own time (from its command to its last
    line) stands apart from DVC's.
    """
    draw(scratch / "drawn", range(pictures))
    repository = Repository(scratch, scratch / "drawn", augment={"views": views, "rotate": 15})

    def add_ten() -> None:
        draw(repository.raw, range(pictures, pictures + 10))
        repository.run("dvc", "add", "-q", "data/raw/pictures")

    def other_branch() -> None:
        repository.commit()
        repository.run("git", "checkout", "-qb", "other")
        repository.set(augment={"rotate": 5})

    def first_branch() -> None:
        repository.commit()
        repository.run("git", "checkout", "-q", "-")

    repository.run("dvc", "add", "-q", "data/raw/pictures")
    coffee = repository.raw / "coffee"
    changes: dict[str, Callable[[], object]] = {
        "everything, cold store": lambda: None,
        "nothing changed": lambda: None,
        "ten pictures added (after `dvc add`)": add_ten,
        "`train.weight_decay` changed": lambda: repository.set(train={"weight_decay": 0.005}),
        "`augment.rotate` changed": lambda: repository.set(augment={"rotate": 30}),
        "a class's folder renamed": lambda: coffee.rename(repository.raw / "espresso"),
        "another branch, other `augment.rotate`": other_branch,
        "back to the first branch": first_branch,
    }
    runs = []
    for title, change in list(changes.items())[:MOST]:
        change()
        runs.append(repro(repository, title))
    first, ten = runs[0], runs[2]
    stages = " | ".join(f"{stage} {{:.1f}}" for stage in first.own)
    columns = f"change | in all {{:.1f}} | {stages} | DVC itself {{:.1f}}"
    columns += " | new in its cache, MB {:.1f} | views"
    rows = [
        (one.title, one.whole, *map(one.own.get, first.own), one.rest, one.new, one.computed)
        for one in runs
    ]
    return f"""# Ten pictures added to {pictures:,}, {views} views a training picture

Seconds of one `dvc repro` each.

{table(columns, rows)}

Ten added over everything: {ten.whole / first.whole:.3f}. It takes {ten.whole:.1f} s, of which
extract takes {ten.own["extract"]:.1f} s and DVC itself {ten.rest:.1f} s.
"""


# why

DRAWN, SIZE = 1_000, (64, 48)

FILL = """
import numpy as np, pandas as pd
from pathlib import Path
from pipeline import kinds
from pipeline.backbones.engines import open_engine
from pipeline.core import params
from pipeline.core.paths import MANIFEST, PLAN
from pipeline.runners.wanted import every_view
from pipeline.store.places import default_folder
from pipeline.store.vectors import FeatureStore
from pipeline.tables.manifest import read_manifest
engine = open_engine(params.load(kinds.schema).extract, kinds.named("image"))
table = every_view(read_manifest(MANIFEST), pd.read_parquet(PLAN), engine)
keys, random = table["key"].tolist(), np.random.default_rng(0)
with FeatureStore(default_folder(), None) as cache:
    for i in range(0, len(keys), 1000):
        part = keys[i : i + 1000]
        made_up = random.standard_normal((len(part), engine.dimension), dtype=np.float32)
        cache.put(dict(zip(part, made_up, strict=True)))
"""


def measure_why(scratch: Path, pictures: int = 100_000) -> str:
    """How long `headstart why` takes with 100,000 pictures, beside `dvc status` there.

    The pictures are small JPEGs that differ by a comment. Their features are made up and put into
    the store under their true keys, since computing them would take longer than all the rest.
    """
    draw(scratch / "drawn", range(DRAWN), SIZE)
    multiply(scratch / "drawn", pictures // DRAWN)
    repository = Repository(scratch, scratch / "drawn", augment={"views": 1})
    repository.run("dvc", "add", "-q", "data/raw/pictures")
    repository.run("dvc", "repro", "augment")
    repository.run(sys.executable, "-c", FILL)
    repository.run("dvc", "repro", "extract")
    changes = {
        "nothing": lambda: None,
        "`augment.rotate`": lambda: repository.set(augment={"rotate": 20}),
        "and ten pictures added": lambda: draw(repository.raw, range(DRAWN, DRAWN + 10), SIZE),
    }
    rows = []
    for title, change in changes.items():
        change()
        # DVC remembers files that it has hashed; who asks first pays for the new ones.
        answer = repository.run(sys.executable, "-m", "headstart", "why")
        status = repository.run("dvc", "status")
        rows.append((title, answer.wall, status.wall, answer.wall / status.wall))
        print(rows[-1], answer.gave, flush=True)
    return f"""# `headstart why` with {pictures:,} pictures, one augmented view each

Seconds. The goal is a few.

{table("what changed | `headstart why` {:.1f} | `dvc status` {:.1f} | ratio {:.2f}", rows)}
"""


PARTS = {
    "repro": measure_repro,
    "why": measure_why,
}

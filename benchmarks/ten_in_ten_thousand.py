"""Ten pictures added to ten thousand: what the next `dvc repro` computes, and where time goes.

Each line of a run's output is timed, so that a stage's own time (from its command to its last
line) stands apart from DVC's.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import Repository, draw, table

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


def measure(scratch: Path, pictures: int = 10_000, views: int = 4) -> str:
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

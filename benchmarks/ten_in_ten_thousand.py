"""Ten pictures added to ten thousand: what the next `dvc repro` computes, and where time goes.

    python benchmarks/ten_in_ten_thousand.py [--pictures 10000] [--views 4]

JPEGs of 500×375 are cut from scikit-image's photographs. Each line of a run's output is timed, so
that a stage's own time (from its command to its last line) stands apart from DVC's. Writes
`benchmarks/ten_in_ten_thousand.md`.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage
import yaml
from PIL import Image

ROOT = Path(__file__).parent.parent
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina")
SIZE = (500, 375)


def draw(folder: Path, numbers: range) -> None:
    """One JPEG a number: a crop of a photograph, scaled, perhaps mirrored, with a little noise."""
    photographs = [Image.fromarray(getattr(skimage.data, name)()) for name in PHOTOGRAPHS]
    for number in numbers:
        random = np.random.default_rng(number)
        kind = number % len(photographs)
        photograph = photographs[kind]
        width = int(random.integers(200, min(photograph.width, photograph.height * 4 // 3)))
        left = int(random.integers(0, photograph.width - width + 1))
        top = int(random.integers(0, photograph.height - width * 3 // 4 + 1))
        crop = photograph.crop((left, top, left + width, top + width * 3 // 4)).resize(SIZE)
        noisy = np.asarray(crop) + random.normal(0, 6, (SIZE[1], SIZE[0], 3))
        path = folder / PHOTOGRAPHS[kind] / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=85)


class Repository:
    """A clone of this repository with its own store, cache and pictures."""

    def __init__(self, folder: Path, views: int) -> None:
        self.folder = folder / "clone"
        self.environment = os.environ | {"HEADSTART_STORE": str(folder / "cache" / "features")}
        subprocess.run(["git", "clone", "-q", str(ROOT), str(self.folder)], check=True)
        document = yaml.safe_load((ROOT / "params.yaml").read_text())
        document["ingest"] |= {"source": "folder", "path": "data/raw/photographs"}
        document["augment"]["views"] = views
        (self.folder / "params.yaml").write_text(yaml.safe_dump(document))
        self.raw = self.folder / "data" / "raw" / "photographs"

    def run(self, *command: str) -> tuple[float, dict[str, float], str]:
        """Seconds in all, seconds of each stage's own command, and the output."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout
        start = time.perf_counter()
        stage, began = "", start
        own: dict[str, float] = defaultdict(float)
        output = ""
        for line in process.stdout:
            now = time.perf_counter()
            output += line
            if line.startswith("> python -m pipeline."):
                stage, began = line.strip().rpartition(".")[2], now
            elif stage and line.startswith(f"{stage}: "):
                own[stage] = now - began
        if process.wait():
            sys.exit(output)
        return time.perf_counter() - start, own, output

    def cached(self) -> float:
        """Megabytes in DVC's cache."""
        files = (self.folder / ".dvc" / "cache").rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file()) / 1e6

    def repro(self) -> tuple[float, dict[str, float], str]:
        return self.run("dvc", "repro")


def computed(output: str) -> str:
    found = re.search(r"(\d+) reused, (\d+) computed", output)
    if not found:
        return "extract did not run"
    return f"{int(found[2]):,} computed, {int(found[1]):,} reused"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--views", type=int, default=4)
    asked = parser.parse_args()
    rows: list[tuple[str, float, dict[str, float], str, float]] = []

    with tempfile.TemporaryDirectory() as name:
        repository = Repository(Path(name), asked.views)
        draw(repository.raw, range(asked.pictures))

        def step(title: str, change: Callable[[], object] = lambda: None) -> None:
            change()
            before = repository.cached()
            took = repository.repro()
            rows.append((title, *took, repository.cached() - before))
            print(title, f"{rows[-1][1]:.1f} s,", computed(rows[-1][3]), flush=True)

        def parameter(before: str, after: str) -> None:
            file = repository.folder / "params.yaml"
            text = file.read_text()
            assert before in text
            file.write_text(text.replace(before, after, 1))

        def add_ten() -> None:
            draw(repository.raw, range(asked.pictures, asked.pictures + 10))
            repository.run("dvc", "add", "-q", "data/raw/photographs")

        def commit() -> None:
            repository.run("git", "add", "-A")
            repository.run("git", "-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "b")

        def other_branch() -> None:
            commit()
            repository.run("git", "checkout", "-qb", "other")
            parameter("rotate: 30", "rotate: 5")

        def first_branch() -> None:
            commit()
            repository.run("git", "checkout", "-q", "-")

        repository.run("dvc", "add", "-q", "data/raw/photographs")
        step("everything, cold store")
        step("nothing changed")
        step("ten pictures added (after `dvc add`)", add_ten)
        load = os.getloadavg()[1]
        step(
            "`train.weight_decay` changed",
            lambda: parameter("weight_decay: 0.003", "weight_decay: 0.005"),
        )
        step("`augment.rotate` changed", lambda: parameter("rotate: 15", "rotate: 30"))
        step(
            "a class's folder renamed",
            lambda: (repository.raw / "coffee").rename(repository.raw / "espresso"),
        )
        step("another branch, other `augment.rotate`", other_branch)
        step("back to the first branch", first_branch)

    first, ten = rows[0], rows[2]
    stages = list(first[2])
    lines = [
        f"# Ten pictures added to {asked.pictures:,}, {asked.views} views a training picture",
        "",
        f"Made by `python benchmarks/ten_in_ten_thousand.py --views {asked.views}`; seconds of one"
        f" `dvc repro` each, on {os.cpu_count()} CPU cores; the load was {load:.1f} when the ten"
        " were done.",
        "",
        "| change | in all | "
        + " | ".join(stages)
        + " | DVC itself | new in its cache, MB | views |",
        "| --- |" + " --- |" * (len(stages) + 4),
    ]
    for title, whole, own, output, new in rows:
        cells = [f"{own[stage]:.1f}" if stage in own else "–" for stage in stages]
        rest = whole - sum(own.values())
        lines.append(
            f"| {title} | {whole:.1f} | {' | '.join(cells)} | {rest:.1f} | {new:.1f}"
            f" | {computed(output)} |"
        )
    lines += [
        "",
        f"Ten added over everything: {ten[1] / first[1]:.3f}."
        f" Of its {ten[1]:.1f} s, extract takes {ten[2]['extract']:.1f} s"
        f" and DVC itself {ten[1] - sum(ten[2].values()):.1f} s.",
        "",
    ]
    (ROOT / "benchmarks" / "ten_in_ten_thousand.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""Does a run that is killed in the midst of a stage leave anything behind that a repro keeps?

For every stage of dvc.yaml, many times: change a parameter that has the stage run, start
`dvc repro`, wait until DVC says that the stage runs, wait a random part of the time it takes, and
kill DVC and all that it started with SIGKILL. Then `dvc repro` again, and compare every output's
bytes with those of an undisturbed run with the same parameters (except `rank_speed.csv`, which is
timings). DVC's run cache is emptied before each round, so that no stage is spared. Every other
round of the stages up to extract the feature store and the shards of features go as well, and of
rank the store.

DVC writes dvc.lock in place. Where the kill came while it did, DVC refuses to go on until the file
is brought back from git or deleted; such a round is counted, the file deleted, and `dvc repro` run.

    python benchmarks/kill_matrix.py [kills in each stage: 21] [STAGE ...]

writes benchmarks/kill_matrix.md, where the rows of stages not named stay as they were. A minute a
kill on two cores. The optional stages are asked for where they are named.
"""

import itertools
import os
import queue
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import yaml
from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent

# For each stage, a parameter that has it run and the two values that it is changed between.
KNOBS: dict[str, tuple[str, str, float, float]] = {
    "ingest": ("ingest", "seed", 0, 1),
    "augment": ("augment", "seed", 0, 1),
    "extract": ("extract", "batch_size", 32, 16),
    "train": ("train", "seed", 0, 1),
    "evaluate": ("evaluate", "seed", 0, 1),
    "checks": ("checks", "seed", 0, 1),
    "bundle": ("evaluate", "seed", 0, 1),  # by way of the metrics
    "report": ("checks", "seed", 0, 1),  # it is of parameters too
    "few": ("few", "draws", 1, 2),
    "rank": ("rank", "confidence", 0.95, 0.9),
    "thaw": ("thaw", "seed", 0, 1),
    "best": ("thaw", "seed", 0, 1),  # by way of the thawed network
    "scratch": ("scratch", "learning_rate", 0.003, 0.002),
}
UP_TO_EXTRACT = ("ingest", "augment", "extract")
OPTIONAL = {"few": "few", "rank": "rank", "thaw": "thaw", "best": "thaw", "scratch": "scratch"}
PICTURES = 60
OUTPUTS = ("data/manifest.parquet", "data/refused.csv", "data/plan.parquet", "data/features",
           "data/pictures", "data/thawed", "models", "reports", "bundle", "best")  # fmt: skip
TIMINGS = "rank_speed.csv"
PAGE = PROJECT / "benchmarks/kill_matrix.md"
ROW = re.compile(r"^\| (\w+) \| (\d+) \| (.*?) \| (\d+) \| (\d+) \| (\d+) \| (.*?) \|$", re.M)


class Kill(NamedTuple):
    """One round: when the kill came, what was left, and whether the outputs are the same."""

    stage: str
    after_s: float  # since DVC said that the stage runs
    lines: list[str]  # of stages that the second repro ran
    different: list[str]  # files
    trouble: str  # of the second repro, or processes that outlived the kill
    lock_cut: bool  # whether DVC could not read dvc.lock before it was deleted


class Repository:
    """A copy of the project with its own git, DVC, feature store and a few small pictures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.store = folder / "cache" / "features"
        names = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=PROJECT, check=True, capture_output=True, text=True,
        ).stdout.splitlines()  # fmt: skip
        for name in names:
            if name.startswith("pipeline/") or name in ("params.yaml", "dvc.yaml"):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(PROJECT / name, self.folder / name)
        self.environment = {
            **os.environ,
            "HEADSTART_STORE": str(self.store),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self.environment.pop("PYTHONPATH", None)
        self.run("git", "init", "-q")
        self.run("dvc", "init", "-q")
        self.run("dvc", "config", "core.analytics", "false")
        self.draw_pictures()
        self.run("dvc", "add", "-q", "data/raw/small")
        self.set("ingest", source="folder", path="data/raw/small", max_refused=0.1)
        self.set("augment", views=2)
        self.set("evaluate", bootstrap=50)
        self.set("train", epochs=8)
        self.set("rank", backbones=["efficientnet_lite0", "random:efficientnet_lite0"])
        self.set("thaw", epochs=3)  # and so scratch

    def draw_pictures(self) -> None:
        """Discs and squares, and two files that ingest refuses."""
        rows, columns = np.mgrid[:64, :80]
        for number in range(PICTURES):
            chance = np.random.default_rng(number)
            picture = chance.integers(0, 120, (64, 80, 3), dtype=np.uint8)
            across, down = np.abs(columns - 40), np.abs(rows - 32)
            inside = [np.hypot(across, down), np.maximum(across, down)][number % 2] < 20
            picture[inside] = chance.integers(120, 256, 3)
            path = self.folder / "data/raw/small" / ("disc", "square")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
        shutil.copy(path, path.with_name("copy.png"))
        path.with_name("broken.png").write_bytes(b"no picture")

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def again(self) -> "subprocess.CompletedProcess[str]":
        """Another `dvc repro`, whatever comes of it."""
        return subprocess.run(
            ["dvc", "repro"],
            cwd=self.folder, env=self.environment, capture_output=True, text=True,
        )  # fmt: skip

    def set(self, section: str, **knobs: object) -> None:
        file = self.folder / "params.yaml"
        document = yaml.safe_load(file.read_text())
        document[section] |= knobs
        file.write_text(yaml.safe_dump(document, sort_keys=False))

    def outputs(self) -> dict[str, bytes]:
        """The bytes of every file that the stages wrote."""
        files: list[Path] = []
        for name in OUTPUTS:
            path = self.folder / name
            files += [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
        kept = [file for file in sorted(files) if file.name != TIMINGS]
        return {str(file.relative_to(self.folder)): file.read_bytes() for file in kept}

    def forget(self, store: bool = False, shards: bool = False) -> None:
        """Empty DVC's run cache, and perhaps what would spare `extract` and `rank` their work."""
        shutil.rmtree(self.folder / ".dvc/cache/runs", ignore_errors=True)
        if store:  # but not the exported backbones
            for file in self.store.glob("features-v*"):
                file.unlink()
        if shards:
            shutil.rmtree(self.folder / "data/features", ignore_errors=True)


class Started(NamedTuple):
    """A stage that DVC said it runs, and when."""

    stage: str
    at: float


class Repro:
    """A `dvc repro` under way, in a process group of its own."""

    def __init__(self, repository: Repository) -> None:
        self.process = subprocess.Popen(
            ["dvc", "repro"],
            cwd=repository.folder,
            env={**repository.environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._begun: queue.Queue[Started | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if named := re.match(r"Running stage '(\w+)(?:@\w+)?'", line):
                self._begun.put(Started(named[1], time.monotonic()))
        self._begun.put(None)

    def stages(self) -> Iterator[Started]:
        """The stages as DVC names them, until it ends."""
        while begun := self._begun.get():
            yield begun

    def kill(self) -> str:
        """End DVC and all its children at once; what is still alive after that."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        _, alive = psutil.wait_procs(children, timeout=5)
        return ", ".join(str(child) for child in alive)


def time_stages(repository: Repository) -> dict[str, float]:
    """Seconds from one stage's beginning to the next one's, in an undisturbed run."""
    repro = Repro(repository)
    begun = list(repro.stages())
    assert repro.process.wait() == 0
    ends = [*(stage.at for stage in begun[1:]), time.monotonic()]
    return {stage.stage: end - stage.at for stage, end in zip(begun, ends, strict=True)}


def kill_once(
    repository: Repository,
    stage: str,
    seconds: float,
    reference: dict[str, bytes],
    everything: bool,
) -> Kill | None:
    """One round; None where DVC was done before the kill came."""
    early = stage in UP_TO_EXTRACT
    repository.forget(store=everything and (early or stage == "rank"), shards=everything and early)
    repro = Repro(repository)
    begun = next((named for named in repro.stages() if named.stage == stage), None)
    assert begun, f"{stage} did not run"
    after = random.uniform(0, seconds)  # noqa: S311
    time.sleep(max(0, begun.at + after - time.monotonic()))
    if repro.process.poll() is not None:
        return None
    trouble = repro.kill()
    again = repository.again()
    lock_cut = again.returncode != 0 and "dvc.lock" in again.stderr
    if lock_cut:
        (repository.folder / "dvc.lock").unlink()
        again = repository.again()
    if again.returncode:
        trouble += again.stdout[-2000:] + again.stderr[-2000:]
    status = repository.run("dvc", "status")
    if "up to date" not in status:
        trouble += status
    found = repository.outputs()
    different = [name for name in found | reference if found.get(name) != reference.get(name)]
    ran = re.findall(r"Running stage '(\w+)", again.stdout)
    return Kill(stage, after, ran, different, trouble, lock_cut)


def matrix(repository: Repository, stage: str, kills: int) -> Iterator[Kill]:
    section, knob, *values = KNOBS[stage]
    if stage in OPTIONAL:
        repository.set(OPTIONAL[stage], run=["asked"])
    references: dict[int, dict[str, bytes]] = {}
    repository.set(section, **{knob: values[0]})
    repository.run("dvc", "repro")  # so that the next value is another
    for value in reversed(values):
        repository.set(section, **{knob: value})
        repository.forget(store=True, shards=True)
        seconds = time_stages(repository)[stage]
        references[value] = repository.outputs()
    print(f"{stage}: {seconds:.1f} s, {len(references[values[0]])} files", flush=True)
    done = 0
    for round_ in itertools.count(1):
        if done == kills:
            break
        value = values[round_ % 2]
        repository.set(section, **{knob: value})
        result = kill_once(repository, stage, seconds, references[value], round_ % 4 < 2)
        if result is None:
            seconds *= 0.9  # the machine is faster now
            continue
        done += 1
        print(done, result, flush=True)
        yield result


class Row(NamedTuple):
    """What the table says of a stage."""

    stage: str
    kills: int
    span: str
    again: int
    right: int
    cut: int
    made: str


def row(stage: str, kills: list[Kill]) -> Row:
    times = [kill.after_s for kill in kills]
    span = f"{min(times):.1f} – {statistics.median(times):.1f} – {max(times):.1f}"
    again = sum(stage in kill.lines for kill in kills)
    right = sum(not kill.different and not kill.trouble for kill in kills)
    cut = sum(kill.lock_cut for kill in kills)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=PROJECT, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    made = f"{datetime.now(UTC):%F %H:%M}, {commit}"
    return Row(stage, len(kills), span, again, right, cut, made)


def rows_there() -> dict[str, Row]:
    """The rows of the page as it is."""
    found = ROW.findall(PAGE.read_text()) if PAGE.exists() else []
    return {
        stage: Row(stage, int(kills), span, int(again), int(right), int(cut), made)
        for stage, kills, span, again, right, cut, made in found
    }


def page(rows: list[Row], pictures: int) -> Iterator[str]:
    yield "# Runs killed in the midst of each stage"
    yield ""
    yield "Written by `benchmarks/kill_matrix.py`, which says what is done."
    yield ""
    kills, same = sum(one.kills for one in rows), sum(one.right for one in rows)
    yield (
        f"{kills} runs of `dvc repro` on {pictures} pictures were killed (SIGKILL, the whole"
        f" process group); after another `dvc repro`, {same} of {kills} had every output's"
        " bytes as an undisturbed run leaves them, and `dvc status` found nothing to do."
    )
    yield ""
    yield (
        "| killed in | kills | seconds into the stage, from – median – to"
        " | killed stage ran again | same bytes | of them `dvc.lock` cut | made (UTC), at commit |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for one in rows:
        yield f"| {' | '.join(map(str, one))} |"
    yield ""
    yield (
        "Where the killed stage did not run again, the kill came after its end, while DVC took in"
        " its outputs or began the next stage."
    )
    yield ""
    yield (
        "`dvc.lock` cut: the kill came while DVC wrote that file, which it does in place."
        " `dvc repro` then ends with \"'./dvc.lock' validation failed\" until the file is brought"
        " back from git or deleted, as was done here; the run after that is the one compared."
    )


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    declared = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    stages = sys.argv[2:] or [name for name in declared if name not in OPTIONAL]
    if unknown := set(stages) - KNOBS.keys():
        sys.exit(f"name in KNOBS a parameter that has {', '.join(sorted(unknown))} run")
    random.seed(0)
    rows = rows_there()
    with tempfile.TemporaryDirectory() as folder:
        repository = Repository(Path(folder))
        for stage in stages:
            rows[stage] = row(stage, list(matrix(repository, stage, kills)))
            in_order = [rows[name] for name in declared if name in rows]
            PAGE.write_text("\n".join(page(in_order, PICTURES)) + "\n")


if __name__ == "__main__":
    main()

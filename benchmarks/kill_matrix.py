"""Does a run that is killed in the midst of a stage leave anything behind that a repro keeps?

For every stage, many times: change a parameter that the stage uses, start `dvc repro`, wait until
DVC says that the stage runs, wait a random part of the time it takes, and kill DVC and all that it
started with SIGKILL. Then `dvc repro` again, and compare every output's bytes with those of an
undisturbed run with the same parameters. DVC's run cache is emptied before each round, so that no
stage is spared; every other round the feature store and the shards of features go as well.

    python benchmarks/kill_matrix.py [kills in each stage: 21]

writes benchmarks/kill_matrix.md. About an hour on two cores.
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
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import yaml
from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent

# For each stage, a parameter of it and the two values that it is changed between.
KNOBS: dict[str, tuple[str, int, int]] = {
    "ingest": ("seed", 0, 1),
    "augment": ("seed", 0, 1),
    "extract": ("batch_size", 32, 16),
    "train": ("seed", 0, 1),
    "evaluate": ("seed", 0, 1),
}
PICTURES = 60
OUTPUTS = ("data/manifest.parquet", "data/refused.csv", "data/plan.parquet", "data/features",
           "data/pictures", "models", "reports")  # fmt: skip


class Kill(NamedTuple):
    """One round: when the kill came, what was left, and whether the outputs are the same."""

    stage: str
    after_s: float  # since DVC said that the stage runs
    lines: list[str]  # of stages that the second repro ran
    different: list[str]  # files
    trouble: str  # of the second repro, or processes that outlived the kill


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
        return {str(file.relative_to(self.folder)): file.read_bytes() for file in sorted(files)}

    def forget(self, everything: bool) -> None:
        """Empty DVC's run cache, and perhaps all that would spare `extract` its work."""
        shutil.rmtree(self.folder / ".dvc/cache/runs", ignore_errors=True)
        if everything:
            shutil.rmtree(self.store, ignore_errors=True)
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
            if named := re.match(r"Running stage '(\w+)'", line):
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
    repository.forget(everything)
    repro = Repro(repository)
    begun = next((named for named in repro.stages() if named.stage == stage), None)
    assert begun, f"{stage} did not run"
    after = random.uniform(0, seconds)  # noqa: S311
    time.sleep(max(0, begun.at + after - time.monotonic()))
    if repro.process.poll() is not None:
        return None
    trouble = repro.kill()
    again = subprocess.run(
        ["dvc", "repro"],
        cwd=repository.folder, env=repository.environment, capture_output=True, text=True,
    )  # fmt: skip
    if again.returncode:
        trouble += again.stdout[-2000:] + again.stderr[-2000:]
    status = repository.run("dvc", "status")
    if "up to date" not in status:
        trouble += status
    found = repository.outputs()
    different = [name for name in found | reference if found.get(name) != reference.get(name)]
    ran = re.findall(r"Running stage '(\w+)'", again.stdout)
    return Kill(stage, after, ran, different, trouble)


def matrix(repository: Repository, kills: int) -> Iterator[Kill]:
    for stage, (knob, *values) in KNOBS.items():
        references: dict[int, dict[str, bytes]] = {}
        for value in reversed(values):
            repository.set(stage, **{knob: value})
            repository.forget(everything=True)
            seconds = time_stages(repository)[stage]
            references[value] = repository.outputs()
        print(f"{stage}: {seconds:.1f} s, {len(references[values[0]])} files", flush=True)
        done = 0
        for round_ in itertools.count(1):
            if done == kills:
                break
            value = values[round_ % 2]
            repository.set(stage, **{knob: value})
            result = kill_once(repository, stage, seconds, references[value], round_ % 4 < 2)
            if result is None:
                seconds *= 0.9  # the machine is faster now
                continue
            done += 1
            print(done, result, flush=True)
            yield result


def page(kills: list[Kill], pictures: int) -> Iterator[str]:
    yield "# Runs killed in the midst of each stage"
    yield ""
    yield "Written by `benchmarks/kill_matrix.py`, which says what is done."
    yield ""
    same = sum(not kill.different and not kill.trouble for kill in kills)
    yield (
        f"{len(kills)} runs of `dvc repro` on {pictures} pictures were killed (SIGKILL, the whole"
        f" process group); after another `dvc repro`, {same} of {len(kills)} had every output's"
        " bytes as an undisturbed run leaves them, and `dvc status` found nothing to do."
    )
    yield ""
    yield (
        "| killed in | kills | seconds into the stage, from – median – to"
        " | killed stage ran again | same bytes |"
    )
    yield "| --- | --- | --- | --- | --- |"
    for stage in KNOBS:
        mine = [kill for kill in kills if kill.stage == stage]
        times = [kill.after_s for kill in mine]
        again = sum(stage in kill.lines for kill in mine)
        right = sum(not kill.different and not kill.trouble for kill in mine)
        span = f"{min(times):.1f} – {statistics.median(times):.1f} – {max(times):.1f}"
        yield f"| {stage} | {len(mine)} | {span} | {again} | {right} |"
    yield ""
    yield (
        "Where the killed stage did not run again, the kill came after its end, while DVC took in"
        " its outputs or began the next stage."
    )


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        repository = Repository(Path(folder))
        results = list(matrix(repository, kills))
    text = "\n".join(page(results, PICTURES)) + "\n"
    (PROJECT / "benchmarks/kill_matrix.md").write_text(text)


if __name__ == "__main__":
    main()

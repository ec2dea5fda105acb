"""Does a run that is killed during a stage leave anything behind that a repro keeps?

For every stage of dvc.yaml, many times: change a parameter that has the stage run, start
`dvc repro`, wait until DVC says that the stage runs, wait a random part of the time it takes, and
kill DVC and all that it started with SIGKILL. Then `dvc repro` again, and compare every output's
bytes with those of an undisturbed run with the same parameters (except `rank_speed.csv`, which is
timings). DVC's run cache is emptied before each round, so that no stage is spared. Every other
round of the stages up to extract the feature store and the shards of features go as well, and of
rank the store.

DVC writes dvc.lock in place. If the kill came while it did, DVC refuses to go on until the file
is brought back from git or deleted; such a round is counted, the file deleted, and `dvc repro` run.

    python -m benchmarks tests.faults.kill_matrix [--kills 21] [--stages STAGE,STAGE] [--task TASK]

The rows are kept in kill_matrix.json beside the page; those of stages not named stay as they were,
and so do those of another task. A minute a kill on two cores. The optional stages are run
if they are named.
"""

import contextlib
import csv
import itertools
import json
import os
import queue
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import yaml
from PIL import Image, UnidentifiedImageError

from benchmarks.harness import ROOT, Repository, commit, digits, table

# For each stage, a parameter that has it run and the two values that it is changed between.
PARAMETERS: dict[str, tuple[str, str, float, float]] = {
    "ingest": ("ingest", "seed", 0, 1),
    "augment": ("augment", "seed", 0, 1),
    "extract": ("extract", "batch_size", 32, 16),
    "train": ("train", "seed", 0, 1),
    "evaluate": ("evaluate", "seed", 0, 1),
    "checks": ("checks", "seed", 0, 1),
    "bundle": ("evaluate", "seed", 0, 1),  # by way of the metrics
    "report": ("checks", "seed", 0, 1),  # it is of parameters too
    "learning_curve": ("learning_curve", "draws", 1, 2),
    "rank": ("rank", "confidence", 0.95, 0.9),
    "finetune": ("finetune", "seed", 0, 1),
    "best": ("finetune", "seed", 0, 1),  # by way of the finetuned network
    "from_scratch": ("from_scratch", "learning_rate", 0.003, 0.002),
}
UP_TO_EXTRACT = ("ingest", "augment", "extract")
OPTIONAL = {"best": "finetune"} | {
    name: name for name in ("learning_curve", "rank", "finetune", "from_scratch")
}
# What makes each stage short.
SMALL: dict[str, dict[str, object]] = {
    "augment": {"views": 2},
    "evaluate": {"bootstrap": 50},
    "train": {"epochs": 8},
    "rank": {"backbones": ["efficientnet_lite0", "random:efficientnet_lite0"]},
    "finetune": {"epochs": 3},  # and so from_scratch
}
OUTPUTS = ("data/manifest.parquet", "data/refused.csv", "data/plan.parquet", "data/features",
           "data/pictures", "data/finetuned", "models", "reports", "bundle", "best")  # fmt: skip
TIMINGS = "rank_speed.csv"
# What each task learns of digits: a label of each, which of two shapes it has, how bright it is.
COVERAGE: dict[str, object] = {"coverage": 0.8}
ASKED: dict[str, dict[str, dict[str, object]]] = {
    "classification": {"train": COVERAGE},
    "multilabel": {"train": COVERAGE, "ingest": {"targets": ["line", "ring"]}},
    "regression": {
        "ingest": {"targets": ["brightness"]},
        "train": COVERAGE | {"optimizer": "ridge"},
    },
}
SHAPES = {"0": ("0", "1"), "1": ("1", "0"), "2": ("0", "0"), "3": ("0", "")}  # line, ring
PICTURES = 60


class Kill(NamedTuple):
    """One round: when the kill came, what was left, and whether the outputs are the same."""

    stage: str
    after_s: float  # since DVC said that the stage runs
    lines: list[str]  # of stages that the second repro ran
    different: list[str]  # files
    trouble: str  # of the second repro, or processes that outlived the kill
    lock_cut: bool  # whether DVC could not read dvc.lock before it was deleted


def again(repository: Repository) -> tuple[bool, str, str]:
    """Another `dvc repro`: whether it failed, what it wrote, and the errors."""
    process = repository.start("dvc", "repro", stderr=subprocess.PIPE)
    said, errors = process.communicate()
    return process.returncode != 0, said, errors


def outputs(repository: Repository) -> dict[str, bytes]:
    """The bytes of every file that the stages wrote."""
    found = {}
    for path in (repository.folder / name for name in OUTPUTS):
        for file in [path, *path.rglob("*")]:
            if file.is_file() and file.name != TIMINGS:
                found[str(file.relative_to(repository.folder))] = file.read_bytes()
    return found


def forget(repository: Repository, store: bool = False, shards: bool = False) -> None:
    """Empty DVC's run cache, and perhaps what would spare `extract` and `rank` their work."""
    shutil.rmtree(repository.folder / ".dvc/cache/runs", ignore_errors=True)
    if store:  # but not the exported backbones
        for file in repository.store.glob("features-v*"):
            file.unlink()
    if shards:
        shutil.rmtree(repository.folder / "data/features", ignore_errors=True)


class Started(NamedTuple):
    """A stage that DVC said it runs, and when."""

    stage: str
    at: float


class Repro:
    """A `dvc repro` under way, in a process group of its own."""

    def __init__(self, repository: Repository) -> None:
        self.process = repository.start("dvc", "repro", start_new_session=True)
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
    forget(repository, everything and (early or stage == "rank"), everything and early)
    repro = Repro(repository)
    begun = next((named for named in repro.stages() if named.stage == stage), None)
    assert begun, f"{stage} did not run"
    after = random.uniform(0, seconds)  # noqa: S311
    time.sleep(max(0, begun.at + after - time.monotonic()))
    if repro.process.poll() is not None:
        return None
    trouble = repro.kill()
    failed, said, errors = again(repository)
    lock_cut = failed and "dvc.lock" in errors
    if lock_cut:
        (repository.folder / "dvc.lock").unlink()
        failed, said, errors = again(repository)
    if failed:
        trouble += said[-2000:] + errors[-2000:]
    status = repository.run("dvc", "status").gave
    if "up to date" not in status:
        trouble += status
    found = outputs(repository)
    different = [name for name in found | reference if found.get(name) != reference.get(name)]
    ran = re.findall(r"Running stage '(\w+)", said)
    return Kill(stage, after, ran, different, trouble, lock_cut)


def matrix(repository: Repository, stage: str, kills: int) -> Iterator[Kill]:
    section, name, *values = PARAMETERS[stage]
    if stage in OPTIONAL:
        repository.set(**{OPTIONAL[stage]: {"run": ["asked"]}})
    references: dict[float, dict[str, bytes]] = {}
    repository.set(**{section: {name: values[0]}})
    repository.run("dvc", "repro")  # so that the next value is another
    for value in reversed(values):
        repository.set(**{section: {name: value}})
        forget(repository, store=True, shards=True)
        seconds = time_stages(repository)[stage]
        references[value] = outputs(repository)
    print(f"{stage}: {seconds:.1f} s, {len(references[values[0]])} files", flush=True)
    done = 0
    for round_ in itertools.count(1):
        if done == kills:
            break
        value = values[round_ % 2]
        repository.set(**{section: {name: value}})
        result = kill_once(repository, stage, seconds, references[value], round_ % 4 < 2)
        if result is None:
            seconds *= 0.9  # the machine is faster now
            continue
        done += 1
        print(done, result, flush=True)
        yield result


def write_table(pictures: Path) -> None:
    """Beside the pictures of digits, a table of what tasks learn of them."""
    with (pictures / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "line", "ring", "brightness"])
        for path in sorted(pictures.rglob("*.png")):
            with contextlib.suppress(UnidentifiedImageError):
                brightness = float(np.asarray(Image.open(path)).mean())
            name = path.relative_to(pictures)
            rows.writerow([name, *SHAPES[path.parent.name], f"{brightness:.3f}"])


def settings(task: str) -> dict[str, dict[str, object]]:
    """What makes each stage short, and what the task asks for."""
    found = {name: dict(values) for name, values in SMALL.items()}
    for name, values in ASKED[task].items():
        found[name] = found.get(name, {}) | values
    if task != "classification":
        found["ingest"] |= {"task": task, "source": "csv"}
    return found


def row(name: str, kills: list[Kill]) -> list[object]:
    """What the table says of a stage, which it calls by that name."""
    times = [kill.after_s for kill in kills]
    span = f"{min(times):.1f} – {statistics.median(times):.1f} – {max(times):.1f}"
    again = sum(kill.stage in kill.lines for kill in kills)
    right = sum(not kill.different and not kill.trouble for kill in kills)
    cut = sum(kill.lock_cut for kill in kills)
    made = f"{datetime.now(UTC):%F %H:%M}, {commit()}"
    return [name, len(kills), span, again, right, cut, made]


def measure(
    scratch: Path, page: Path, kills: int = 21, stages: str = "", task: str = "classification"
) -> str:
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    asked = stages.split(",") if stages else [name for name in declared if name not in OPTIONAL]
    if unknown := set(asked) - PARAMETERS.keys():
        sys.exit(f"name in PARAMETERS a parameter that has {', '.join(sorted(unknown))} run")
    random.seed(0)
    classes = 2 if task == "classification" else len(SHAPES)
    drawn = digits(scratch / "drawn", classes, PICTURES // classes)
    one = min(drawn.rglob("*.png"))
    shutil.copy(one, one.with_name("copy.png"))
    one.with_name("broken.png").write_bytes(b"no picture")
    if task != "classification":
        write_table(drawn)
    repository = Repository(scratch, drawn, **settings(task))
    repository.run("dvc", "add", "-q", "data/raw/pictures")
    kept = page.with_suffix(".json")
    known = json.loads(kept.read_text()) if kept.exists() else {}
    for stage in asked:
        name = stage if task == "classification" else f"{stage}, {task}"
        known[name] = row(name, list(matrix(repository, stage, kills)))
        kept.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    of_tasks = ["", *(f", {name}" for name in ASKED)]
    names = [f"{stage}{ending}" for ending in of_tasks for stage in declared]
    rows = [known[name] for name in names if name in known]
    count, same = (sum(one[at] for one in rows) for at in (1, 4))
    columns = "killed in | kills | seconds into the stage, from – median – to"
    columns += " | killed stage ran again | same bytes | of them `dvc.lock` cut"
    return f"""# Runs killed during each stage

{count} runs of `dvc repro` on {PICTURES} pictures were killed (SIGKILL, the whole process
group); after another `dvc repro`, {same} of {count} had every output's bytes as
an undisturbed run leaves them, and `dvc status` found nothing to do.

{table(columns + " | made (UTC), at commit", rows)}

Where the killed stage did not run again, the kill came after its end, while DVC took in its outputs
or began the next stage.

`dvc.lock` cut: the kill came while DVC wrote that file, which it does in place. `dvc repro` then
ends with "'./dvc.lock' validation failed" until the file is brought back from git or deleted, as
was done here; the run after that is the one compared.
"""

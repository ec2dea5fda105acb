"""A million examples on one machine: seconds and memory of each stage, in a group of 6 GB.

The examples are made vectors of 1,280 numbers, so no backbone is computed. `--sizes 1000000` takes
20 GB of disk and an hour.
"""

import contextlib
import csv
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.harness import ROOT, Project, table
from pipeline.core.memory import LIMIT_1, LIMIT_2, PROC
from pipeline.quality import duplicates
from pipeline.quality.sketches import Sketches

NUMBERS, CLASSES = 1280, 100
# Distance of the classes' means over the noise; some examples are taken for others.
APART, APART_OF_MANY = 0.15, 0.3
AT_ONCE = 10_000  # vectors that are made at a time
LIMIT = 6 * 10**9  # bytes of the group
LOOK_EVERY = 0.02  # seconds, at a process's memory
STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report")
AGAIN = ("train", "evaluate")  # with another optimizer
IN_THOUSAND = 1000
SPECTRA = {
    "equal variances": np.ones(NUMBERS),
    "variances that fall as 1/n": 1 / np.sqrt(np.arange(1, NUMBERS + 1)),
}
COSINES = ((0.5, 0.55), (0.55, 0.7), (0.7, 0.9))  # of planted pairs

Floats = npt.NDArray[np.float32]


class Used(NamedTuple):
    """What a stage took: seconds of the processor, and most megabytes."""

    cpu: float
    anonymous: float  # memory that no file backs, so the system cannot take it back
    printed: str


def make_vectors(folder: Path, examples: int, classes: int, apart: float = APART) -> None:
    """Write the matrix and the table of labels; the first rows are the same for any number."""
    folder.mkdir(parents=True, exist_ok=True)
    matrix = np.lib.format.open_memmap(
        folder / "vectors.npy", "w+", np.float32, (examples, NUMBERS)
    )
    means = apart * np.random.default_rng(0).standard_normal((classes, NUMBERS), np.float32)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["key", "label"])
        for start in range(0, examples, AT_ONCE):
            random = np.random.default_rng(1 + start)
            labels = np.arange(start, min(start + AT_ONCE, examples)) % classes
            noise = random.standard_normal((AT_ONCE, NUMBERS), np.float32)[: len(labels)]
            matrix[start : start + len(labels)] = noise + means[labels]
            rows.writerows((start + n, f"class {label:02}") for n, label in enumerate(labels))


@contextlib.contextmanager
def group() -> Iterator[Path | None]:
    """A control group below ours that may use `LIMIT` bytes; None if this machine lets us not."""
    made = None
    for line in (PROC / "cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        place, name = (
            ("/sys/fs/cgroup/memory", LIMIT_1)
            if controllers == "memory"
            else ("/sys/fs/cgroup", LIMIT_2)
        )
        if made is None and controllers in ("memory", ""):
            folder = Path(place + own) / f"headstart-{os.getpid()}"
            with contextlib.suppress(OSError):
                folder.mkdir()
                try:
                    (folder / name).write_text(str(LIMIT))
                    made = folder
                except OSError:
                    folder.rmdir()
    try:
        yield made
    finally:
        if made is not None:
            made.rmdir()


ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


def used(project: Project, stage: str, inside: Path | None) -> Used:
    """Run a stage, in a group if there is one; it has to succeed."""
    command = [sys.executable, "-m", f"pipeline.{stage}"]
    if inside is not None:
        command = ["sh", "-c", ENTER, str(inside), *command]
    printed = project.folder / "printed.txt"
    most = 0.0
    with printed.open("w") as stream:
        process = project.start(*command, stdout=stream)
        ended = 0
        try:
            while not ended:
                with contextlib.suppress(OSError):
                    content = Path(f"/proc/{process.pid}/status").read_text()
                    if found := re.search(r"RssAnon:\s+(\d+) kB", content):
                        most = max(most, int(found[1]) / 1000)
                time.sleep(LOOK_EVERY)
                ended, status, took = os.wait4(process.pid, os.WNOHANG)
        finally:
            if not ended:  # its group can be removed only without it
                process.kill()
                process.wait()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{stage} ended with {process.returncode}:\n{printed.read_text()}")
    return Used(took.ru_utime + took.ru_stime, most, printed.read_text())


def new_project(place: Path, optimizer: str) -> Project:
    """A project of vectors in a table, which are made later."""
    project = Project(place)
    shutil.copy(ROOT / "examples" / "vector" / "params.yaml", project.folder)
    project.set(
        ingest={
            "source": "csv",
            "path": "data/raw/made",
            "classes_without_training": "leave_out",
        },
        train={"optimizer": optimizer, "weight_decay": 0.01},
    )
    return project


def named(inside: Path | None) -> str:
    """Where stages ran."""
    return (
        f"in a control group of {LIMIT / 1e9:.0f} GB"
        if inside
        else "in no group, since none can be made"
    )


def measure_stages(
    scratch: Path, sizes: str = "10000,100000", optimizer: str = "ridge", folder: str = ""
) -> str:
    """Each stage of a new project of each size, and again after a thousand vectors were added."""
    counts = [int(size) for size in sizes.split(",")]
    first: dict[int, dict[str, Used]] = {}
    again: dict[int, dict[str, Used]] = {}
    disk: dict[int, float] = {}
    with group() as inside:
        for count in counts:
            place = Path(folder or scratch) / str(count)
            project = new_project(place, optimizer)
            made = project.folder / "data" / "raw" / "made"
            for costs, examples in ((first, count), (again, count + IN_THOUSAND)):
                make_vectors(made, examples, CLASSES)
                costs[count] = {stage: used(project, stage, inside) for stage in STAGES}
            disk[count] = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    rows = [
        (
            stage,
            *(
                value
                for count in counts
                for value in (
                    first[count][stage].cpu,
                    1000 * first[count][stage].cpu / count,
                    first[count][stage].anonymous,
                    again[count][stage].cpu,
                )
            ),
        )
        for stage in STAGES
    ]
    columns = " | ".join(
        f"{count:,}: CPU seconds {{:,.1f}} | CPU ms an example {{:.2f}} | MB {{:,.0f}}"
        " | CPU seconds after 1,000 were added {:,.1f}"
        for count in counts
    )
    computed = [re.search(r"(\d+) computed", again[count]["extract"].printed) for count in counts]
    new = ", ".join(found[1] if found else "?" for found in computed)
    on_disk = ", ".join(f"{disk[count] / 1e9:.1f} GB" for count in counts)
    return f"""# Stages of many vectors

Vectors of {NUMBERS:,} random numbers, {CLASSES} classes, `train.optimizer: {optimizer}`; each
stage is a process {named(inside)}. MB is anonymous memory at its most, looked at every
{1000 * LOOK_EVERY:.0f} ms.

{table(f"stage | {columns}", rows)}

After a thousand vectors were added, `extract` computed {new}. With the source, the store and all
outputs, but without DVC's cache, the projects take {on_disk}.
"""


def measure_classes(
    scratch: Path, sizes: str = "2000x10000,5000x50000,20000x100000", folder: str = ""
) -> str:
    """Each stage of a new project of many classes, with ridge and then with nearest mean."""
    columns = "stage"
    rows: dict[str, list[float]] = {}
    accuracies = []
    with group() as inside:
        for size in sizes.split(","):
            classes, examples = map(int, size.split("x"))
            project = new_project(Path(folder or scratch) / size, "ridge")
            made = project.folder / "data" / "raw" / "made"
            make_vectors(made, examples, classes, APART_OF_MANY)
            columns += f" | {classes:,} classes, {examples:,} examples: CPU seconds {{:,.1f}}"
            columns += " | MB {:,.0f}"
            for optimizer, stages in (("ridge", STAGES), ("nearest_mean", AGAIN)):
                project.set(train={"optimizer": optimizer})
                for stage in stages:
                    cost = used(project, stage, inside)
                    costs = rows.setdefault(f"{stage}, {optimizer}", [])
                    costs += [cost.cpu, cost.anonymous]
                    print(f"{size}, {stage}, {optimizer}: {cost}", flush=True)
            of_ridge = [rows[f"{stage}, ridge"][-2:] for stage in STAGES]
            every = rows.setdefault("all stages, ridge", [])
            every += [sum(cpu for cpu, _ in of_ridge), max(most for _, most in of_ridge)]
            found = re.search(r"accuracy (\S+) on", cost.printed)
            accuracies.append(found[1] if found else "?")
            shutil.rmtree(project.folder.parent)
    return f"""# Stages of many classes

Vectors of {NUMBERS:,} random numbers; each stage is a process {named(inside)}. MB is anonymous
memory at its most, looked at every {1000 * LOOK_EVERY:.0f} ms.
Classes without a training example are left out.

{table(columns, [(name, *figures) for name, figures in rows.items()])}

The accuracy of nearest mean on the test examples is {", ".join(accuracies)}.
"""


def plant(
    features: Floats,
    others: npt.NDArray[np.int64],
    spectrum: Floats,
    low: float,
    high: float,
    random: np.random.Generator,
) -> None:
    """Make the first rows near-duplicates of the `others`, with cosines between two ends."""
    cosines = random.uniform(low, high, len(others)).astype(np.float32)[:, None]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    other = features[others]
    noise = random.standard_normal(other.shape, np.float32) * spectrum
    noise -= (noise * other).sum(axis=1, keepdims=True) * other
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    features[: len(others)] = cosines * other + np.sqrt(1 - cosines**2) * noise


def measure_pairs(scratch: Path, examples: int = 100_000, queries: int = 2_000) -> str:
    """Near-duplicates that sketches find, of those that exact search finds.

    A fifth of the examples are queries. `queries` of them have a planted near-duplicate.
    """
    rows = []
    for name, spectrum in SPECTRA.items():
        random = np.random.default_rng(0)
        features = random.standard_normal((examples, NUMBERS), np.float32)
        features *= spectrum.astype(np.float32)
        asked, bank = np.arange(queries), np.arange(examples // 5, examples)
        for low, high in COSINES:
            plant(features, bank[:queries], spectrum.astype(np.float32), low, high, random)
            start = time.process_time()
            exact = duplicates.candidates(features[asked], features[bank], 0.5)
            middle = time.process_time()
            of = Sketches.of(features, np.zeros(NUMBERS, np.float32), duplicates.NEAREST)
            sketched = time.process_time()
            found = of.candidates(asked, bank, 0.5)
            end = time.process_time()
            planted = {(one, int(bank[other])) for one, other, _ in exact if one == other}
            pairs = {(one, int(bank[other])) for one, other, _ in exact}
            seen = {(one, other) for one, other, _ in found}
            rows.append(
                (
                    name, f"{low} to {high}", len(planted), len(planted & seen) / len(planted),
                    len(pairs), len(pairs & seen) / len(pairs), 1000 * (middle - start) / queries,
                    1000 * (end - sketched) / queries, 1000 * (sketched - middle) / examples,
                )
            )  # fmt: skip
    columns = (
        "features | cosine of the planted pairs | planted pairs {:,} | found {:.4f}"
        " | pairs above 0.5 {:,} | found {:.4f} | exact, CPU ms a query {:.2f}"
        " | sketches, CPU ms a query {:.2f} | CPU ms to make a sketch {:.3f}"
    )
    return f"""# Near-duplicates by sketches

{examples:,} made vectors of {NUMBERS:,} numbers, of which {len(bank):,} are searched for the
nearest of {queries:,}. Exact search computes all cosines; sketches are those of `checks` with more
than {duplicates.EXACT:,} examples. The threshold is that of `checks.duplicate_cosine`, 0.5.

{table(columns, rows)}
"""


PARTS = {
    "stages": measure_stages,
    "classes": measure_classes,
    "pairs": measure_pairs,
}

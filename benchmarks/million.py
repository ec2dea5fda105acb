"""A million examples on one machine: seconds and memory of each stage, in a group of 6 GB.

The examples are made vectors of 1,280 numbers, so no backbone is computed. `--sizes 1000000` takes
45 GB of disk and two hours.
"""

import contextlib
import csv
import hashlib
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.harness import ROOT, Project, Repository, run, table
from pipeline import kinds
from pipeline.backbones.engines import open_encoder
from pipeline.core import params
from pipeline.core.memory import LIMIT_1, LIMIT_2, PROC
from pipeline.core.paths import MANIFEST
from pipeline.extract import read_plan
from pipeline.quality import duplicates
from pipeline.quality.sketches import Sketches, multiplier
from pipeline.runners.threads import features_of, key_column
from pipeline.runners.wanted import every_view
from pipeline.store.vectors import open_store
from pipeline.tables.manifest import read_manifest

NUMBERS, CLASSES = 1280, 100
CLASSES_OF_PICTURES, SEEN = 10, 10  # and how many pictures of a class the network sees
# Distance of the classes' means over the noise; some examples are taken for others.
APART, APART_OF_MANY = 0.15, 0.3
AT_ONCE = 10_000  # vectors that are made at a time
LIMIT = 6 * 10**9  # bytes of the group
LOOK_EVERY = 0.02  # seconds, at a process's memory
DRAW_EVERY = 1.0  # seconds, in the picture
STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report")
AGAIN = ("train", "evaluate")  # with another optimizer
IN_THOUSAND = 1000
PROFILED = ("train", "checks")
ROUNDS = 3  # of a `dvc repro` that has nothing to do
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
    seconds: float
    over_time: list[tuple[float, float]]  # seconds since the start, and anonymous megabytes


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
    most, start = 0.0, time.perf_counter()
    over_time = [(0.0, 0.0)]
    with printed.open("w") as stream:
        process = project.start(*command, stdout=stream)
        ended = 0
        try:
            while not ended:
                with contextlib.suppress(OSError):
                    content = Path(f"/proc/{process.pid}/status").read_text()
                    if found := re.search(r"RssAnon:\s+(\d+) kB", content):
                        now, after = int(found[1]) / 1000, time.perf_counter() - start
                        most = max(most, now)
                        if after - over_time[-1][0] > DRAW_EVERY:
                            over_time.append((after, now))
                time.sleep(LOOK_EVERY)
                ended, status, took = os.wait4(process.pid, os.WNOHANG)
        finally:
            if not ended:  # its group can be removed only without it
                process.kill()
                process.wait()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{stage} ended with {process.returncode}:\n{printed.read_text()}")
    after = time.perf_counter() - start
    cpu = took.ru_utime + took.ru_stime
    print(f"{stage}: {after:.0f} s, {cpu:.1f} CPU s, {most:,.0f} MB", flush=True)
    return Used(cpu, most, printed.read_text(), after, [*over_time, (after, 0.0)])


def new_project(place: Path, optimizer: str) -> Project:
    """A project of vectors in a table, which are made later."""
    project = Repository(place)
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
    scratch: Path,
    page: Path,
    sizes: str = "10000,100000",
    optimizer: str = "ridge",
    folder: str = "",
) -> str:
    """Each stage of a new project of each size, and again after a thousand vectors were added.

    `train` and `evaluate` also run with L-BFGS, and `dvc repro` when nothing has changed. The
    picture beside the page shows the memory of the largest size.
    """
    counts = sorted(int(size) for size in sizes.split(","))
    first: dict[int, dict[str, Used]] = {}
    again: dict[int, dict[str, Used]] = {}
    disk: dict[int, float] = {}
    unchanged: dict[int, float] = {}
    profiles: list[tuple[str, int, float, str]] = []
    with group() as inside:
        for count in reversed(counts):  # what needs most disk comes first
            place = Path(folder or scratch) / str(count)
            project = new_project(place, optimizer)
            made = project.folder / "data" / "raw" / "made"
            make_vectors(made, count, CLASSES)
            first[count] = {stage: used(project, stage, inside) for stage in STAGES}
            project.set(train={"optimizer": "lbfgs"})
            for stage in AGAIN:
                first[count][f"{stage}, L-BFGS"] = used(project, stage, inside)
            project.set(train={"optimizer": optimizer})
            make_vectors(made, count + IN_THOUSAND, CLASSES)
            again[count] = {stage: used(project, stage, inside) for stage in STAGES}
            profiles += [(one, count, *project.profile_of(one)) for one in PROFILED]
            disk[count] = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
            unchanged[count] = nothing_changed(project)
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
                    again[count][stage].cpu if stage in again[count] else None,
                )
            ),
        )
        for stage in first[counts[0]]
    ]
    columns = " | ".join(
        f"{count:,}: CPU seconds {{:,.1f}} | CPU ms an example {{:.2f}} | MB {{:,.0f}}"
        " | CPU seconds after 1,000 were added {:,.1f}"
        for count in counts
    )
    printed = [again[count]["extract"].printed for count in counts]
    computed = [re.search(r"(\d+) computed", one) for one in printed]
    new = ", ".join(found[1] if found else "?" for found in computed)
    on_disk = ", ".join(f"{disk[count] / 1e9:.1f} GB" for count in counts)
    idle = ", ".join(f"{unchanged[count]:.1f} s" for count in counts)
    picture = page.with_suffix(".svg")
    picture.write_text(drawn(first[counts[-1]]))
    return f"""# Stages of many vectors

Vectors of {NUMBERS:,} random numbers, {CLASSES} classes, `train.optimizer: {optimizer}`; each
stage is a process {named(inside)}. MB is anonymous memory at its most, looked at every
{1000 * LOOK_EVERY:.0f} ms.

{table(f"stage | {columns}", rows)}

After a thousand vectors were added, `extract` computed {new}. With the source, the store and all
outputs, but without DVC's cache, the projects take {on_disk}. `dvc repro` takes {idle} when nothing
has changed (the least of {ROUNDS}).

After this, {" and ".join(f"`{one}`" for one in PROFILED)} ran once more, in no group. `checks`
looks for label issues in another thread, and this time counts with `near_duplicates`:

{table("stage | examples {:,} | CPU seconds {:,.1f} | of these", sorted(profiles))}

![Anonymous memory of each stage over time]({picture.name})

The picture shows {counts[-1]:,} vectors, one stage after the other. The dashed line is the group's
limit.
"""


def nothing_changed(project: Project) -> float:
    """Seconds of `dvc repro` when all stages ran, the least of some rounds."""
    project.run("dvc", "commit", "--force", "--quiet")
    return min(project.run("dvc", "repro").wall for _ in range(ROUNDS))


def drawn(stages: dict[str, Used]) -> str:
    """Anonymous memory over time, one stage after the other, as SVG."""
    width, height, left, low, top = 900, 300, 50, 40, 20
    took = sum(used.seconds for used in stages.values())
    across, up = (width - left) / took, (height - low - top) / LIMIT * 1e6  # a second, a megabyte
    floor, start = height - low, float(left)
    parts = ['<rect width="100%" height="100%" fill="white"/>']

    def word(x: float, y: float, anchor: str, text: str) -> None:
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>')

    for gigabytes in range(0, LIMIT // 10**9 + 1, 2):
        y = floor - 1000 * gigabytes * up
        dashes = ' stroke-dasharray="6 4"' if gigabytes == LIMIT // 10**9 else ""
        parts.append(f'<path d="M{left} {y:.1f}H{width}" stroke="#bbb"{dashes}/>')
        word(left - 6, y + 4, "end", f"{gigabytes} GB")
    for number, (stage, used) in enumerate(stages.items()):
        points = [(start + s * across, floor - mb * up) for s, mb in used.over_time]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polygon points="{line}" fill="{("#2a6fbb", "#d0742a")[number % 2]}"/>')
        end = start + used.seconds * across
        if end - start > 6 * len(stage):  # there is room for its name
            word((start + end) / 2, floor + 16, "middle", stage)
        start = end
    word(width, height - 6, "end", f"{took / 60:.0f} minutes")
    frame = f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11"'
    lines = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>\n{lines}\n</svg>\n'


def digests(project: Project) -> dict[str, str]:
    """The digest of each file that the stages wrote."""
    found = {}
    for folder in ("data", "models", "reports", "bundle"):
        for file in sorted((project.folder / folder).rglob("*")):
            name = str(file.relative_to(project.folder))
            if file.is_file() and file.name[0] != "." and not name.startswith("data/raw/"):
                with file.open("rb") as stream:
                    found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def killed(project: Project, stage: str, after: float) -> bool:
    """Begin a stage, and kill it when it has used so many CPU seconds; whether it had not ended."""
    process = project.start(sys.executable, "-m", f"pipeline.{stage}")
    while process.poll() is None:
        with contextlib.suppress(OSError):
            numbers = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            if sum(map(int, numbers[11:13])) > after * os.sysconf("SC_CLK_TCK"):  # user's, system's
                process.kill()
        time.sleep(LOOK_EVERY)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def measure_bytes(scratch: Path, examples: int = 100_000, folder: str = "") -> str:
    """Whether all files have the same bytes on one core, with more memory and after kills.

    The first run is on all cores in the group, and decides the bytes. Before each other one, the
    store is cleared and all outputs are deleted. In the last one each stage is killed with signal 9
    after half the CPU seconds that it took in the first, and begun again.
    """
    project = new_project(Path(folder or scratch) / "bytes", "ridge")
    make_vectors(project.folder / "data" / "raw" / "made", examples, CLASSES)
    cores, again = os.sched_getaffinity(0), "?"
    rows: list[tuple[str, str, int]] = []
    ended: list[str] = []

    def begin() -> None:
        for file in project.store.glob("features-*"):  # exports may be those of others
            file.unlink()
        for name in wanted:
            (project.folder / name).unlink()

    def compare(case: str) -> None:
        found = digests(project)
        same = sum(found.get(name) == digest for name, digest in wanted.items())
        rows.append((case, f"{same} of {len(wanted)}", len(found.keys() - wanted.keys())))

    with group() as inside:
        first = {stage: used(project, stage, inside) for stage in STAGES}
        wanted = digests(project)
        begin()
        os.sched_setaffinity(0, [min(cores)])
        for stage in STAGES:
            used(project, stage, inside)
        os.sched_setaffinity(0, cores)
        compare("one core")
        begin()
        for stage in STAGES:
            used(project, stage, None)
        compare("in no group, so that all of the machine's memory may be used")
        begin()
        for stage in STAGES:
            if not killed(project, stage, first[stage].cpu / 2):
                ended.append(stage)
            took = used(project, stage, inside)
            if kept := re.search(r"\d+ reused, \d+ computed", took.printed):
                again = kept[0]
        compare("each stage killed in its middle and begun again")
    return f"""# The same bytes of many vectors

{examples:,} vectors of {NUMBERS:,} random numbers, {CLASSES} classes, `train.optimizer: ridge`. The
first run, {named(inside)} and on {len(cores)} cores, wrote {len(wanted)} files. The others began
with an empty store and without these files.

{table("case | files with the same bytes | other files", rows)}

`extract` found what it had made before it was killed: {again}. Stages that ended before they were
killed: {", ".join(ended) or "none"}.
"""


def make_pictures(folder: Path, numbers: range) -> None:
    """Small pictures of ten classes, that differ in their brightness."""
    for name in range(CLASSES_OF_PICTURES):
        (folder / str(name)).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        random, name = np.random.default_rng(number), number % CLASSES_OF_PICTURES
        pixels = random.integers(0, 100 + 15 * name, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / str(name) / f"{number:07}.png", compress_level=0)


def make_features(project: Project) -> int:
    """Put a made vector of each view and layer into the store; the number of views.

    It is that of a view of the same class, which the network computes, with noise.
    """
    random = np.random.default_rng(0)
    with project.inside():
        settings, kind = params.load(kinds.schema).extract, kinds.named("image")
        (engine,) = open_encoder(settings, kind).engines
        manifest = read_manifest(MANIFEST)
        views = every_view(manifest, read_plan(kind), engine)
        label = views["digest"].map(manifest.set_index("digest")["label"])
        of_class = {name: np.flatnonzero(label == name) for name in label.unique()}
        with open_store() as store:
            for rows in of_class.values():
                few = views[views["digest"].isin(views["digest"].iloc[rows[:SEEN]])]
                seen = features_of(few, engine, settings.batch_size)
                for layer in engine.each_made_by:
                    vectors = np.array([seen[key] for key in few[key_column(layer)]])
                    keys = views[key_column(layer)].iloc[rows].to_numpy()
                    for start in range(0, len(keys), AT_ONCE):
                        some = keys[start : start + AT_ONCE]
                        made = vectors[random.integers(len(vectors), size=len(some))]
                        made *= random.uniform(0.8, 1.2, made.shape).astype(np.float32)
                        store.put(dict(zip(some, made, strict=True)))
    return len(views)


def measure_pictures(scratch: Path, examples: int = 100_000, folder: str = "") -> str:
    """All stages on many pictures with four views, and again after a thousand were added.

    Features of the first run are made beforehand; those of the thousand are computed. What it costs
    to compute features for the first time is measured in a project that has only the thousand.
    """
    few, project = (Repository(Path(folder or scratch) / name) for name in ("thousand", "pictures"))
    for one in (few, project):
        one.set(ingest={"source": "folder", "path": "data/raw/pictures"})
    make_pictures(few.raw, range(examples, examples + IN_THOUSAND))
    alone = [used(few, stage, None) for stage in STAGES[:3]][-1]
    make_pictures(project.raw, range(examples))
    first = {stage: used(project, stage, None) for stage in STAGES[:2]}
    views = make_features(project)
    first |= {stage: used(project, stage, None) for stage in STAGES[2:]}
    make_pictures(project.raw, range(examples, examples + IN_THOUSAND))
    again = {stage: used(project, stage, None) for stage in STAGES}
    computed = partial(re.findall, r"(\d+) computed")
    count = int(computed(again["extract"].printed)[-1])  # not the floor's
    of_view = alone.cpu / int(computed(alone.printed)[-1])
    network = views * of_view
    rows = [(stage, first[stage].cpu, again[stage].cpu, first[stage].anonymous) for stage in STAGES]
    some, all_of = (sum(used.cpu for used in run.values()) for run in (again, first))
    rows.append(("all", all_of, some, max(used.anonymous for used in first.values())))
    return f"""# Stages of many pictures

{examples:,} pictures of 32 x 32 pixels, {views:,} views with the default parameters. The features
of the first run were made beforehand, so that its `extract` computes none. Then {IN_THOUSAND:,}
pictures were added, and {count:,} views computed.

{table("stage | CPU seconds {:,.1f} | after 1,000 were added {:,.1f} | MB {:,.0f}", rows)}

In a project with these thousand pictures alone, `extract` takes {1000 * of_view:.1f} CPU ms a view
that it computes. At this cost, all views would take {network:,.0f} CPU seconds more. With these,
the second run takes {some / (all_of + network):.3f} of the first.
"""


def measure_bundles(folder: Path) -> str:
    """Loading the bundles of projects that `stages --folder FOLDER` has left there."""
    rows = []
    for described in sorted(folder.rglob("bundle/bundle.json")):
        bundle = described.parent
        size = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
        load = "import headstart; headstart.load('bundle')"
        cost = run(sys.executable, "-c", load, folder=bundle.parent)
        project = bundle.parent.relative_to(folder)
        rows.append((str(project), size / 1e6, cost.peak, cost.cpu))
    return f"""# Bundles of many vectors

A bundle as `stages` leaves it, loaded as `headstart serve` does.

{table("project | bundle, MB {:.1f} | peak memory, MB {:.0f} | CPU seconds {:.1f}", rows)}
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
    multiplier()  # imports ONNX Runtime, which takes as long as a thousand queries
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
    "bytes": measure_bytes,
    "pictures": measure_pictures,
    "bundles": measure_bundles,
    "classes": measure_classes,
    "pairs": measure_pairs,
}

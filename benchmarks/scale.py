"""Scale: memory with few and many pictures, and what ten million examples would cost."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.harness import ROOT, Project, draw, multiply, run, table
from pipeline.core.paths import CONFIRMED
from pipeline.tables import confirmed
from pipeline.tables.features import write_shards
from pipeline.tables.manifest import write_manifest

# memory

STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report")


def peaks(folder: Path, pictures: Path) -> list[float]:
    """Megabytes that each stage held at most, with a cold store."""
    exported = folder.parent / "backbones"  # the same for all
    project = Project(folder, pictures, exported, augment={"views": 1})
    return [cost.peak for cost in project.stages(*STAGES).values()]


def measure_memory(scratch: Path, few: int = 1_000, many: int = 20_000) -> str:
    """Peak memory of every stage, with 1,000 and with 20,000 pictures.

    Each picture is a 500×375 JPEG; those beyond the first thousand repeat the pixels of one of them
    under other bytes, so that each is decoded and computed.
    """
    pictures = scratch / "pictures"
    draw(pictures, range(few))
    peaks(scratch / "warm", pictures)  # exports the backbone, which takes more than using it
    with_few = peaks(scratch / "few", pictures)
    multiply(pictures, many // few)
    with_many = peaks(scratch / "many", pictures)
    rows = [(stage, a, b, b / a) for stage, a, b in zip(STAGES, with_few, with_many, strict=True)]
    columns = f"stage | {few:,} pictures {{:.0f}} | {many:,} pictures {{:.0f}} | ratio {{:.2f}}"
    return f"""# Peak memory with {few:,} and with {many:,} pictures, one augmented view each

Megabytes of the stage's process.

{table(columns, rows)}
"""


# costs

CLASSES, NUMBERS = 10, 1280
APART = 0.1  # of the classes' means, over the noise: some examples are taken for others
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
MILLION = 10**6
FILES, LARGE = 10_000, 1000 * MILLION  # that DVC is timed with, and the bytes of one large file
SCALES = (10 * MILLION, 1000 * MILLION)
# A view's bytes, of features in float32; what a key takes is in `store/index.py` and `shards.py`.
VECTOR = 4 * NUMBERS
IN_MEMORY, BEGINNING = 56, 32
KEY = 92  # a row of `data/features` with keys (docs/store.md)
LISTED_AT_ONCE, JOINED = 1_000, 64 * MILLION  # keys a request; bytes of a shard that was joined
VIEWS = 4  # augmented views of a training example
PER_EXAMPLE = 1 + VIEWS * SHARES["train"]
# Not measured: views that a GPU takes in a second. To be set to one's own figure.
GPU_RATE = 5_000


class Stage(NamedTuple):
    """What a stage takes beside its start: bytes of memory and seconds, for each example."""

    bytes: float
    seconds: float
    most: float  # megabytes, at the larger of the two sizes


def made_up(project: Project, examples: int, seed: int = 0) -> None:
    """A manifest and features, as `ingest` and `extract` would leave them; one view each."""
    random = np.random.default_rng(seed)
    digests = sorted(random.bytes(32).hex() for _ in range(examples))
    labels = random.integers(0, CLASSES, examples)
    splits = random.choice(list(SHARES), examples, p=list(SHARES.values()))
    manifest = pd.DataFrame({"digest": digests, "label": [f"class {n}" for n in labels]})
    manifest["path"] = [f"data/raw/pictures/{n}.jpg" for n in range(examples)]
    manifest = manifest.assign(split=splits, group="", width=500, height=375, format="JPEG")
    data = project.folder / "data"
    origins = {"val": "drawn", "test": "drawn"}
    write_manifest(manifest.sort_values("path"), "image", data / "manifest.parquet", origins)
    confirmed.write(project.folder / CONFIRMED, [])
    means = APART * random.standard_normal((CLASSES, NUMBERS))

    def shards() -> Iterator[
        tuple[list[str], Any, Any]
    ]:  # one after the other: all features at once take a part of the memory
        firsts = np.array([digest[:2] for digest in digests])
        for first in np.unique(firsts):
            chosen = np.flatnonzero(firsts == first)
            noise = random.standard_normal((len(chosen), NUMBERS), dtype=np.float32)
            features = (noise + means[labels[chosen]]).astype(np.float32)
            yield [digests[n] for n in chosen], np.zeros(len(chosen)), features

    write_shards(data / "features", shards())


def stages(scratch: Path, few: int, many: int) -> dict[str, Stage]:
    """The costs of `train` by L-BFGS and by ridge, `evaluate`, `checks` and `bundle`."""
    costs = []
    for examples in (few, many):
        folder = scratch / str(examples)
        project = Project(folder)
        project.set(train={"optimizer": "ridge", "coverage": None})
        made_up(project, examples)
        ridge = project.stages("train")["train"]
        project.set(train={"optimizer": "lbfgs"})
        costs.append(
            {"train (ridge)": ridge} | project.stages("train", "evaluate", "checks", "bundle")
        )
    less, more = costs
    return {
        name: Stage(
            (more[name].peak - less[name].peak) * 2**20 / (many - few),
            (more[name].cpu - less[name].cpu) / (many - few),
            more[name].peak,
        )
        for name in less
    }


def dvc(scratch: Path) -> tuple[float, float]:
    """Processor seconds of `dvc add` for a file of a folder, and for a gigabyte in one file."""
    folder = scratch / "dvc"
    many = folder / "many"
    many.mkdir(parents=True)
    for number in range(FILES):
        (many / f"{number}.txt").write_text(str(number))
    random = np.random.default_rng(0)
    with (folder / "large").open("wb") as file:
        for _ in range(10):
            file.write(random.bytes(LARGE // 10))
    (folder / "small").write_text("small")
    run("git", "init", "--quiet", folder=folder)
    run("dvc", "init", "--quiet", folder=folder)
    start = run("dvc", "add", "--quiet", "small", folder=folder).cpu
    of_files = run("dvc", "add", "--quiet", "many", folder=folder).cpu
    of_bytes = run("dvc", "add", "--quiet", "large", folder=folder).cpu
    return (of_files - start) / FILES, (of_bytes - start) * 1e9 / LARGE


def page(name: str, row: str, column: int) -> float:
    """A figure of a page written before: the first row that begins so, and the column's number."""
    text = (ROOT / "benchmarks" / f"{name}.md").read_text()
    cells = re.search(rf"^\| {re.escape(row)}.*$", text, re.MULTILINE)
    assert cells, (name, row)
    return float(cells[0].split("|")[column + 1].strip().replace(",", ""))


def much(amount: float, unit: str) -> str:
    """A figure with two digits that count, as 1.3 TB or 560 MB."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if amount >= factor:
            return f"{amount / factor:.3g} {prefix}{unit}"
    return f"{amount:.3g} {unit}"


def hours(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return (
        f"{seconds / 60:.2g} min"
        if seconds < 5400
        else f"{seconds / 3600:,.{0 if seconds > 360_000 else 1}f} h"
    )


def measure_costs(scratch: Path, few: int = 20_000, many: int = 80_000) -> str:
    """What an example costs, and from it what ten million and a billion examples would.

    Stages that hold all rows in memory run on made-up features at two sizes: what the larger takes
    more is what its examples cost. The rates of pages written before are read out of these pages.
    """
    held = stages(scratch, few, many)
    a_file, a_gigabyte = dvc(scratch)
    manifest = (scratch / str(many) / "project/data/manifest.parquet").stat().st_size / many
    listed = 23.4  # bytes an object: a listing of 10,000 takes 234 kB (bucket.md)
    read = page("stores", "first", 3) / 10_000  # seconds of processor an object
    known = page("stores", "nothing new", 3) / 10_000
    decoded = 2 / page("extract", "onnxruntime", 2)  # seconds of a core a picture
    computed = 2 / page("extract", "onnxruntime", 4)  # and a view
    # Stages that hold a table of the examples, with one view of a training example.
    tables = {
        stage: 2**20 * (page("scale", stage, 2) - page("scale", stage, 1)) / 19_000
        for stage in ("ingest", "augment", "extract")
    }
    text = (ROOT / "benchmarks" / "stores.md").read_text().split("## 1,000,000 keys")[1]
    row = re.search(r"^\| held: all.*$", text, re.MULTILINE)
    assert row
    a_key = float(row[0].split("|")[3]) / MILLION

    own = [
        (name, f"{stage.bytes / 1000:.1f} kB", f"{1000 * stage.seconds:.2f} ms", stage.most)
        for name, stage in held.items()
    ]
    rows = []
    for scale in SCALES:
        views = scale * PER_EXAMPLE
        # As many examples without views have as many rows in train and val.
        trained = scale * (SHARES["train"] * (1 + VIEWS) + SHARES["val"]) / (1 - SHARES["test"])
        queries = scale * (SHARES["val"] + SHARES["test"])
        # Cosines of all pairs of different splits, in tera-operations.
        pairs = scale**2 * (
            SHARES["val"] * SHARES["train"] + SHARES["test"] * (SHARES["train"] + SHARES["val"])
        )
        rows.append(
            {
                "requests to list the bucket": f"{scale / LISTED_AT_ONCE:,.0f}",
                "the listing": much(scale * listed, "B"),
                "requests to read all examples once": f"{scale:,.0f}",
                "`ingest`, first, processor": hours(scale * read),
                "`ingest`, nothing new, processor": hours(scale * known),
                "the manifest": much(scale * manifest, "B"),
                "views": f"{views:,.0f}",
                "decoding, hours of a core": hours(scale * decoded),
                "the default backbone on cores, hours of a core": hours(views * computed),
                f"the backbone on a GPU, if it takes {GPU_RATE:,} views a second": hours(
                    views / GPU_RATE
                ),
                "vectors in the store": much(views * VECTOR, "B"),
                "shards of 64 MB": f"{views * VECTOR / JOINED:,.0f}",
                "read when the store is opened": much(views * BEGINNING, "B"),
                "the store's index, memory of each process": much(views * IN_MEMORY, "B"),
                "which keys are missing": hours(views * a_key),
                "`data/features`, with `features: vectors`": much(views * VECTOR, "B"),
                "DVC's hash of it": hours(views * VECTOR / 1e9 * a_gigabyte),
                "`data/features`, with `features: keys`": much(views * KEY, "B"),
                "DVC's own look at as many files (it has the listing instead)": hours(
                    scale * a_file
                ),
                **{f"`{stage}`, memory": much(scale * b, "B") for stage, b in tables.items()},
                "`train` (L-BFGS), memory": much(trained * held["train"].bytes, "B"),
                "`train` (ridge), memory": much(trained * held["train (ridge)"].bytes, "B"),
                "`train` (L-BFGS), processor": hours(trained * held["train"].seconds),
                "`train` (ridge), processor": hours(trained * held["train (ridge)"].seconds),
                "`evaluate`, memory": much(scale * held["evaluate"].bytes, "B"),
                "`checks`, cosines of pairs": f"{2e-15 * pairs * NUMBERS:,.0f} PFLOP",
                "`checks`, examples looked up": f"{queries:,.0f}",
                "`checks`, memory": much(scale * held["checks"].bytes, "B"),
                "`bundle`, memory": much(scale * held["bundle"].bytes, "B"),
            }
        )
    amounts = [(name, rows[0][name], rows[1][name]) for name in rows[0]]
    return f"""# What ten million and a billion examples would cost

Stages that hold all rows ran on {few:,} and {many:,} made-up examples with {NUMBERS:,} numbers and
one view each, {CLASSES} classes; below is what each further example takes. Quadratic parts make the
figure of `checks` grow with the number.

{table("stage | memory an example | processor an example | MB at the larger {:,.0f}", own)}

`dvc add` takes {1000 * a_file:.2f} ms of processor time a file, and {a_gigabyte:.1f} s a gigabyte.

## Extrapolated, with {VIEWS} augmented views of each training example

Rates of reading, decoding, computing and looking up are those of `stores.md` and `extract.md`;
memory of `ingest`, `augment` and `extract` is that of the table above. Nothing was run at these
sizes.

{table("what | ten million | a billion", amounts)}
"""


PARTS = {
    "memory": measure_memory,
    "costs": measure_costs,
}

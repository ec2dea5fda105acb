"""Scale: what ten million examples would cost, by what one costs."""

import re
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT, run, table

NUMBERS = 1280
TRAIN = 0.6  # of the examples
MILLION = 10**6
FILES, LARGE = 10_000, 1000 * MILLION  # that DVC is timed with, and the bytes of one large file
SCALES = (10 * MILLION, 1000 * MILLION)
# A view's bytes, of features in float32; what a key takes is in `store/index.py` and `shards.py`.
VECTOR = 4 * NUMBERS
IN_MEMORY, BEGINNING = 56, 32
KEY = 92  # a row of `data/features` with keys (docs/store.md)
LISTED_AT_ONCE, JOINED = 1_000, 64 * MILLION  # keys a request; bytes of a shard that was joined
VIEWS = 4  # augmented views of a training example
PER_EXAMPLE = 1 + VIEWS * TRAIN
MANIFEST_ROW = 68.5  # bytes, of a manifest of 60,000 pictures
# Not measured: views that a GPU takes in a second. To be set to one's own figure.
GPU_RATE = 5_000


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


def measure(scratch: Path) -> str:
    """What ten million and a billion examples would cost, by what one costs.

    The rates of reading, decoding, computing and looking up are those of other pages.
    """
    a_file, a_gigabyte = dvc(scratch)
    listed = 23.4  # bytes an object: a listing of 10,000 takes 234 kB (bucket.md)
    read = page("stores", "first", 3) / 10_000  # seconds of processor an object
    known = page("stores", "nothing new", 3) / 10_000
    decoded = 2 / page("extract", "onnxruntime", 2)  # seconds of a core a picture
    computed = 2 / page("extract", "onnxruntime", 4)  # and a view
    text = (ROOT / "benchmarks" / "stores.md").read_text().split("## 1,000,000 keys")[1]
    row = re.search(r"^\| held: all.*$", text, re.MULTILINE)
    assert row
    a_key = float(row[0].split("|")[3]) / MILLION

    rows = []
    for scale in SCALES:
        views = scale * PER_EXAMPLE
        rows.append(
            {
                "requests to list the bucket": f"{scale / LISTED_AT_ONCE:,.0f}",
                "the listing": much(scale * listed, "B"),
                "requests to read all examples once": f"{scale:,.0f}",
                "`ingest`, first, processor": hours(scale * read),
                "`ingest`, nothing new, processor": hours(scale * known),
                "the manifest": much(scale * MANIFEST_ROW, "B"),
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
            }
        )
    amounts = [(name, rows[0][name], rows[1][name]) for name in rows[0]]
    return f"""# What ten million and a billion examples would cost

`dvc add` takes {1000 * a_file:.2f} ms of processor time a file, and {a_gigabyte:.1f} s a gigabyte.

## Extrapolated, with {VIEWS} augmented views of each training example

Rates of reading, decoding, computing and looking up are those of `stores.md` and `extract.md`.
Nothing was run at these sizes; `million.md` has the stages of up to a million examples.

{table("what | ten million | a billion", amounts)}
"""

"""Does any odd table of labels or numbers end in a traceback, or lose a row without a word?

Tables of texts with a label, labels or numbers are drawn at random, each from its own number: cells
as people and programs write them (`1`, `1.0`, `yes`, `1,5`, `nan`, `1e400`, `a|b`, `|`, other
scripts, control characters), columns with odd names, missing or doubled ones, cells too few or too
many, rows that stand there twice. Each goes through `ingest` with a task and targets that are drawn
as well. A run has to end with a manifest of which the later stages can learn, or with one line; and
each row of the table has to be in the manifest or in `data/refused.csv`.

    python -m benchmarks tests.faults.fuzz_tables [--count 2000]

It takes a minute for 2,000.
"""

import contextlib
import csv
import io
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from benchmarks.harness import table
from pipeline.core.errors import HeadstartError
from pipeline.core.paths import MANIFEST, PARAMS, REFUSED
from pipeline.ingest import ingest
from pipeline.tables import targets
from pipeline.tables.manifest import read_manifest, task_in
from pipeline.tasks import NAMES as TASKS
from tests.conftest import ROOT, Project

TABLE = Path("data/raw/t.csv")
LABELS = ["a", "b", "c", "A", "é", "e\u0301", "猫", "\u202eab", "a b", " a ", "1", "0", "x" * 300]
JOINED = [
    "a|b",
    "b|a",
    "a|a",
    "|",
    "||",
    "a|",
    "|a",
    " | ",
    "a|b|c",
    "a\x07|b",
    "a\n|b",
    "é|e\u0301",
]
NUMBERS = ["1", "0", "2", "-3", "4.5", "1e3", "+7", " 8 ", "9.", ".5", "-0", "1e-300", "3e38"]
ODD = [
    *(
        "",
        " ",
        "nan",
        "NaN",
        "NA",
        "None",
        "inf",
        "-inf",
        "1e400",
        "1e39",
        "1,5",
        "1.234,5",
        "1_000",
    ),
    *(
        "0x10",
        "yes",
        "no",
        "true",
        "False",
        "TRUE",
        "?",
        "−5",
        "١٢",
        "5 kg",
        "'1",
        '"',
        "\x00",
        "½",
    ),
]
CELLS = ["1", "0", "1.0", "0.0", "true", "false", " 1", "", "", "nan"]
NAMES = ["sun", "rain", "Sun", "é", "e\u0301", "a,b", "1", "_hidden", "target:sun"]
ODD_NAMES = [
    *("a|b", "predicted", "p(sun)", "low(sun)", "class_1", "label", "split", "group", "key"),
    *("path", "text", "", " x ", "nowhere"),
]
SPLITS = ["train", "train", "val", "test", "", "", "", "Train", "validation"]
MAX_REFUSED = [0.1, 0.5, 1.0]


class Drawn(NamedTuple):
    """A table, and what is asked of it."""

    header: list[str]
    rows: list[list[str]]
    ingest: dict[str, Any]


def drawn(number: int) -> Drawn:
    """The table of that number."""
    chance = random.Random(number)  # noqa: S311
    task = chance.choice(TASKS)
    usual = {"classification": LABELS, "multilabel": LABELS + JOINED, "regression": NUMBERS}[task]
    odd = chance.choice([0.0, 0.0, 0.02, 0.1, 1.0])  # share of cells of another kind
    pool = chance.sample(usual, chance.randint(1, min(5, len(usual))))
    columns = chance.sample(NAMES, chance.randint(0, 4))
    if chance.random() < 0.2:
        columns.append(chance.choice(ODD_NAMES))
    header = ["text", *columns]
    if chance.random() < 0.9 and "label" not in header:
        header.append("label")
    if chance.random() < 0.6 and "split" not in header:
        header.append("split")
    if chance.random() < 0.05:
        header.append(chance.choice(header))
    count = chance.choice([0, 1, 2, 5, 60, 60, 60, 60, 60, 60, 60, 60])
    binary = task == "multilabel" and chance.random() < 0.7

    def cell(name: str, row: int) -> str:
        if name == "text":
            return f"text {row if chance.random() > 0.03 else 0}"
        if name == "split":
            return chance.choice(SPLITS[: 7 if odd < 0.2 else None])
        if chance.random() < odd:
            return chance.choice(ODD + JOINED + NUMBERS)
        if name == "label" or name not in columns:
            return chance.choice(pool)
        return chance.choice(CELLS[: 2 if odd == 0 else None] if binary else pool)

    rows = []
    for row in range(count):
        cells = [cell(name, row) for name in header]
        if chance.random() < odd / 10:
            cells = cells[:-1] if chance.random() < 0.5 else [*cells, "more"]
        rows.append(cells)
    asked: list[str] | None = None
    if chance.random() < (0.05 if task == "classification" else 0.6):
        asked = [name for name in columns if chance.random() < 0.7] or columns[:1] or ["sun"]
        if chance.random() < 0.1:
            asked.append(chance.choice(ODD_NAMES))
    settings = {"task": task, "targets": asked, "max_refused": chance.choice(MAX_REFUSED)}
    return Drawn(header, rows, settings)


def outcome(found: Drawn) -> str:
    """`taken`, or the first words of the line that the run ended with; anything else is wrong."""
    document = yaml.safe_load((ROOT / PARAMS).read_text())
    document["ingest"] |= {"kind": "text", "source": "csv", "path": str(TABLE)} | found.ingest
    document["augment"] = {"views": 0}
    document["extract"]["backbone"] = "tf_idf"
    PARAMS.write_text(yaml.safe_dump(document))
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([found.header, *found.rows])
    for old in (MANIFEST, REFUSED):
        old.unlink(missing_ok=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            ingest()
    except HeadstartError as error:
        said = str(error)
        assert len(said.splitlines()) == 1, f"{len(said.splitlines())} lines"
        assert not MANIFEST.exists(), "a manifest is left"
        return type(error).__name__
    manifest = read_manifest(MANIFEST)
    with REFUSED.open(newline="", encoding="utf-8") as file:
        refused = [row["path"] for row in csv.DictReader(file)]
    assert manifest["path"].is_unique, "a row is taken twice"
    assert len(manifest) + len(refused) == len(found.rows), "a row is lost"
    _learnable(manifest, found.ingest["task"])
    return "taken"


def _learnable(manifest: Any, task: str) -> None:
    """What `train` asks of the labels holds."""
    assert task_in(MANIFEST) == task
    names = targets.names(manifest)
    values = targets.of(manifest[manifest["split"] == "train"], names)
    assert len(set(names)) == len(names)
    if task == "classification":
        assert set(values) == set(range(len(names)))
        return
    assert values.shape[1] == len(names)
    if task == "regression":
        assert np.isfinite(values).all()
        assert (np.ptp(values, axis=0) > 0).all()
        return
    assert ((values == 1).any(axis=0) & (values == 0).any(axis=0)).all()


def wrong(number: int) -> tuple[str, str]:
    """What came of the table of that number, and the mistake where there is one."""
    try:
        return outcome(drawn(number)), ""
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"[:200]


def measure(scratch: Path, count: int = 2000) -> str:
    os.environ["HEADSTART_STORE"] = str(scratch / "store")
    Project(scratch)
    counts: Counter[tuple[str, str]] = Counter()
    mistakes = []
    with contextlib.chdir(scratch):
        for number in range(count):
            word, mistake = wrong(number)
            counts[drawn(number).ingest["task"], word] += 1
            if mistake:
                mistakes.append((number, mistake))
                print(number, mistake, flush=True)
    words = sorted({word for _, word in counts})
    rows = [(task, *(counts[task, word] for word in words)) for task in TASKS]
    listed = table("number | mistake", mistakes) if mistakes else "No run ended otherwise."
    return f"""# Odd tables of labels and numbers through ingest

{count:,} tables, each drawn from its own number. "taken": a manifest was written, each row of the
table is in it or in `data/refused.csv`, and what `train` asks of the labels holds. The errors are
one line each, and leave no manifest.

{table("task | " + " | ".join(f"{word} {{:,}}" for word in words), rows)}

{listed}
"""

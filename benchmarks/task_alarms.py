"""Label issues of several labels and of numbers: what is found of what was planted, false alarms.

The data are those of `benchmarks/tasks.py`. Planted are labels that are turned round, each with the
same probability; numbers of which the decimal point is one place off; and numbers that changed
places among themselves.

    python -m benchmarks task_alarms
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.harness import table
from benchmarks.tasks import NAMES, SETS, Data, data
from pipeline.core.params import ChecksParams
from pipeline.heads.head import one_thread
from pipeline.tables.features import Split, view_0
from pipeline.tasks.multilabel.issues import label_issues_of_several
from pipeline.tasks.regression.issues import number_issues

Array = npt.NDArray[np.float64]
Cells = set[tuple[str, str]]  # path and name


def turned(values: Array, share: float, random: np.random.Generator) -> Array:
    """Some known labels are the opposite."""
    return np.where(random.random(values.shape) < share, 1 - values, values)


def tenfold(values: Array, share: float, random: np.random.Generator) -> Array:
    """Some numbers are ten times as large."""
    return np.where(random.random(values.shape) < share, 10 * values, values)


def swapped(values: Array, share: float, random: np.random.Generator) -> Array:
    """Some examples have the numbers of others."""
    some = np.flatnonzero(random.random(len(values)) < share)
    changed = values.copy()
    changed[some] = values[random.permutation(some)]
    return changed


Change = Callable[[Array, float, np.random.Generator], Array]
CASES: dict[str, list[tuple[str, Change, float]]] = {
    "multilabel": [
        ("none", turned, 0),
        ("1 % of the labels", turned, 0.01),
        ("5 % of the labels", turned, 0.05),
    ],
    "regression": [
        ("none", tenfold, 0),
        ("2 %, tenfold", tenfold, 0.02),
        ("2 %, changed places", swapped, 0.02),
    ],
}


def issues(rows: Split, values: Array, found: Data, seed: int) -> Cells:
    """What the check reports."""
    manifest = pd.DataFrame({"path": rows.paths, "digest": rows.digests, "group": ""})
    manifest["split"] = "train"
    check = label_issues_of_several if found.task == "multilabel" else number_issues
    with one_thread():
        said = check(manifest, rows.features, values, found.names, ChecksParams(seed=seed))
    names = said["label"].str.removeprefix("not ") if len(said) else said["label"]
    if found.task != "multilabel":
        several = len(found.names) > 1
        names = [label.split("=")[0] if several else found.names[0] for label in said["label"]]
    return set(zip(said["path"], names, strict=True))


def lines(found: Data, seeds: int) -> Iterator[tuple[object, ...]]:
    """A line a case."""
    rows = view_0(found.splits)
    for title, change, share in CASES[found.task]:
        count: Counter[str] = Counter()
        for seed in range(seeds):
            values = change(rows.labels, share, np.random.default_rng(seed))
            known = ~np.isnan(rows.labels)
            wrong = np.argwhere(known & (values != rows.labels))
            planted = {(str(rows.paths[row]), found.names[column]) for row, column in wrong}
            said = issues(rows, values, found, seed)
            count += Counter(
                planted=len(planted),
                found=len(said & planted),
                false=len(said - planted),
                cells=int(known.sum()),
            )
        alarms = count["found"] + count["false"]
        yield (
            *(found.name, title, f"{count['found']} / {count['planted']}"),
            f"{count['found'] / alarms:.2f}" if alarms and share else "–",
            f"{1000 * count['false'] / count['cells']:.2f}",
        )


def measure(scratch: Path, seeds: int = 5) -> str:
    """The page."""
    rows: list[tuple[object, ...]] = []
    for task, variants in SETS.items():
        for variant in variants:
            try:
                found = data(task, variant, scratch)
            except SystemExit as error:
                rows.append((NAMES[task, variant], f"not to be had: {error}", "", "", ""))
                continue
            rows += lines(found, seeds)
    head = "set | planted | found | precision | false alarms in a thousand labels or numbers"
    return f"""# Label issues of several labels, and of numbers

View 0 of all examples; {seeds} draws of what is planted and of the folds. The penalties and limits
of the checks were chosen on other composites of surfaces, on diabetes and on made-up data. Labels
that are wrong in a set as it comes count as false alarms.

{table(head, rows)}
"""

"""Tasks: what is learned from examples, such as a class, several labels or regression targets.

`ingest.task` in `params.yaml` names the task. `ingest` writes the name to the manifest, `train` to
the head, and `bundle` to the bundle. A task is a folder of this subpackage with a record of plain
values, `TASK`, and a line in `NAMES`. The records import no other subpackage, so any subpackage may
use them.

The rest of a task is in modules of its folder: how targets are read and checked (`targets`), how
predictions are measured (`measuring`), label issues (`issues`), the form of a prediction (`answer`,
`reply`), and its part of the report (`page`). Each module has an object `PART` that implements a
`Protocol`, which is defined where it is used: in `tables/targets.py`, `evaluation/`, `quality/`,
`serving/answering.py` and `pages/`. These modules are imported only when they are needed, so they
may import the subpackages that use them.
"""

import importlib
from typing import Any

from .record import SEPARATOR, Measure, Task

__all__ = ["SEPARATOR", "TASKS", "UNNAMED", "Measure", "Task", "noted", "part"]

# The name of a task in params.yaml is the name of its folder beside this file.
NAMES = (
    "classification",
    "multilabel",
    "regression",
)  # fmt: skip
TASKS: dict[str, Task] = {
    name: importlib.import_module(f".{name}", __name__).TASK for name in NAMES
}
UNNAMED = NAMES[0]  # the task of a manifest, a head or a bundle that names none


def noted(name: str) -> str | None:
    """Return the name to write to a file; None for the default task, which files omit."""
    return None if name == UNNAMED else name


def part(name: str, what: str) -> Any:
    """Return the `PART` of a module in the task's folder."""
    return importlib.import_module(f".{name}.{what}", __name__).PART

"""What is learned from examples: one label, several labels, or regression targets.

`ingest.task` in `params.yaml` names the task; `ingest` notes it in the manifest, `train` in the
head, and `bundle` in the bundle. A task is a folder of this subpackage with a record, `TASK`, of
plain values, and a line in `TASKS`. The records import nothing, so that any subpackage may ask
them.

What a task brings besides lies in modules of its folder: how targets are read and checked
(`targets`), how answers are measured (`measuring`), doubtful labels (`issues`), what an answer
looks like (`answer`, `reply`), and its part of the report (`page`). Each has an object `PART` that
implements a `Protocol`, which is defined where it is used: in `tables/targets.py`,
`evaluation/`, `quality/`, `serving/answering.py` and `pages/`. It is imported when it is needed, so
such a module may import the subpackages that use it.
"""

import importlib
from typing import Any

from .record import SEPARATOR, Measure, Task

__all__ = ["SEPARATOR", "TASKS", "UNNAMED", "Measure", "Task", "noted", "part"]

# The name of a task in params.yaml is that of its folder beside this file.
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
    """The task as files name it; None for the one that they do not name."""
    return None if name == UNNAMED else name


def part(name: str, what: str) -> Any:
    """The `PART` of a module in the folder of the task of that name."""
    return importlib.import_module(f".{name}.{what}", __name__).PART

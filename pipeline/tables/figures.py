"""Metrics in JSON that one stage writes for another."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ..core.errors import DataError

LEAST_LEAD = 0.05  # a backbone that surely leads its floor by less is hardly better


@dataclass(frozen=True)
class Metrics:
    """The metrics on the test examples, as in `reports/metrics.json`.

    `test` has each metric, the number of examples (`pictures`) and, if there are any, of `groups`.
    `interval` has the `low` and `high` end of each metric's interval, if it is known.
    `baselines` is what `evaluation.floor.baselines` returns.
    """

    test: dict[str, float]
    interval: dict[str, dict[str, float]]
    baselines: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the metrics that `evaluate` wrote; raise the errors of `read_figures`."""
        found = read_figures(file, "evaluate", "test", "interval")
        return cls(found["test"], found["interval"], found.get("baselines", {}))

    def as_written(self) -> dict[str, Any]:
        """Return the content of the file; metrics without baselines have no key for them."""
        return {name: one for name, one in vars(self).items() if one or name != "baselines"}

    def write(self, file: Path) -> None:
        """Write the metrics as JSON."""
        file.write_text(json.dumps(self.as_written(), indent=2) + "\n", encoding="utf-8")


def read_figures(file: Path, stage: str, *has: str) -> dict[str, Any]:
    """Read the metrics that a stage wrote, and check that all names in `has` are there.

    Raises:
        DataError: the file does not exist or is not readable, or a name is missing.
    """
    try:
        figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file} does not exist; run the {stage} stage first") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not readable: {error}; run {stage} again") from None
    if not isinstance(figures, dict) or not figures.keys() >= {*has}:
        lacks = f"it lacks {' or '.join(has)}" if has else "it has no names"
        raise DataError(f"{file} is not readable: {lacks}; run {stage} again")
    return figures

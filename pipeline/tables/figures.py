"""Metrics in JSON that one stage writes for another."""

import json
from pathlib import Path
from typing import Any

from ..core.errors import DataError


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
        lacks = f"it lacks {' or '.join(has)}" if has else "it holds no names"
        raise DataError(f"{file} is not readable: {lacks}; run {stage} again")
    return figures

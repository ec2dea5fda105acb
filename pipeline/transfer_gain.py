"""Optional stage, transfer_gain: was transfer worth it, by what other stages measured.

It trains nothing. It puts side by side what `rank`, `learning_curve`, `finetune` and `from_scratch`
wrote, and says where transfer was negative.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from . import kinds
from .core import command, params
from .core.errors import DataError
from .core.paths import (
    FINETUNE,
    FROM_SCRATCH,
    LEARNING_CURVE,
    MANIFEST,
    RANK,
    TRANSFER_GAIN,
    TRANSFER_GAIN_PAGE,
)
from .evaluation import comparing
from .tables.manifest import read_manifest, task_in
from .transfer import gain


def transfer_gain() -> None:
    """Write the table and its page; say what follows."""
    settings = params.load(kinds.schema)
    if settings.transfer_gain.run:
        params.stop_if_not_compared(settings)
    backbone = settings.extract.backbone
    manifest, measure = read_manifest(MANIFEST), comparing.measure(task_in(MANIFEST))
    told = gain.Told(
        backbone,
        measure,
        {name: int((manifest["split"] == name).sum()) for name in ("train", "val", "test")},
        curve=_read(LEARNING_CURVE, "learning_curve", pd.read_csv, measure),
        ranked=_read(RANK, "rank", pd.read_csv, f"val_{measure}"),
        finetuned=_read(FINETUNE, "finetune", _json, "validation"),
        scratch=_read(FROM_SCRATCH, "from_scratch", _json, "from_scratch")["from_scratch"],
    )
    found = gain.rows(told)
    said = gain.verdicts(found, backbone, measure)
    TRANSFER_GAIN.parent.mkdir(parents=True, exist_ok=True)
    table = gain.table(found, measure)
    table.to_csv(TRANSFER_GAIN, index=False, float_format="%.6g", lineterminator="\n")
    TRANSFER_GAIN_PAGE.write_text(gain.page(found, said, measure), encoding="utf-8")
    for sentence in said:
        warning = "warning: " if sentence.startswith("Negative") else ""
        print(f"transfer_gain: {warning}{sentence}")


def _json(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _read(file: Path, stage: str, read: Callable[[Path], Any], has: str) -> Any:
    """What a stage wrote.

    Raises:
        DataError: it is not there, is not readable, or is of another task.
    """
    try:
        found = read(file)
    except FileNotFoundError:
        raise DataError(f"{file} is not here; run the {stage} stage first") from None
    except (ValueError, OSError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{file} is not readable ({said}); run the {stage} stage again") from None
    if has not in found:
        raise DataError(f"{file} has no {has}; run the {stage} stage again")
    return found


if __name__ == "__main__":
    command.run(transfer_gain)

"""The data of the report's map, which `map.js` draws."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import DataError
from ..kinds import Shown
from ..tables.manifest import SPLITS
from .embed import Thumbnails

COLUMNS = ("digest", "x", "y", "novelty", "suggested", "right", "doubt")
SIDE = 64  # pixels of a thumbnail


def read(file: Path, manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the table that `checks` writes, with `path`, `label` and `split` of each example.

    Raises:
        DataError: the file does not exist or is damaged, or has examples that the manifest lacks.
    """
    try:
        table: pd.DataFrame = pq.read_table(file).to_pandas()
    except FileNotFoundError:
        raise DataError(f"{file} does not exist; run the checks stage first") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"{file} is not readable ({reason}); run the checks stage again") from None
    if lacking := [name for name in COLUMNS if name not in table]:
        raise DataError(f"{file} has no column {lacking[0]}; run the checks stage again")
    joined = table.merge(manifest[["digest", "path", "label", "split"]], on="digest", how="left")
    if joined["path"].isna().any():
        raise DataError(f"{file} and the manifest differ; run the checks stage again")
    return joined


def points(
    table: pd.DataFrame,
    answers: pd.DataFrame | None,
    shown: Thumbnails,
    small: Mapping[str, Shown],
    flaws: Mapping[str, str],
) -> dict[str, Any]:
    """Return the columns of the map for `map.js`.

    Args:
        table: as returned by `read`.
        answers: the predictions of the test examples, with `path`, `predicted` and `correct`; they
            take the place of those of the out-of-fold heads; None if they are of another form.
        shown: how examples are named.
        small: thumbnails by path.
        flaws: the problem of each example that is hardly usable, by path.
    """
    if answers is None:
        answers = pd.DataFrame(columns=["path", "predicted", "correct"])
    own = answers.set_index("path").reindex(table["path"])
    known = own["predicted"].notna().to_numpy()
    answer = table["suggested"].where(~known, own["predicted"].to_numpy())
    right = table["right"].where(~known, own["correct"].astype(float).to_numpy())
    number = {digest: place for place, digest in enumerate(table["digest"])}
    columns = [name for name in table if name.startswith("near_")]
    near = [
        [number[digest] for digest in row if digest in number]
        for row in table[columns].itertuples(index=False)
    ]
    return {
        "splits": list(SPLITS),
        "x": table["x"].tolist(),
        "y": table["y"].tolist(),
        "name": [shown.name(path) for path in table["path"]],
        "label": table["label"].tolist(),
        "split": [SPLITS.index(split) for split in table["split"]],
        "answer": answer.tolist(),
        "unseen": known.astype(int).tolist(),
        "right": [None if pd.isna(value) else int(value) for value in right],
        "doubt": [None if pd.isna(value) else float(f"{value:.3g}") for value in table["doubt"]],
        "novelty": [float(f"{value:.3g}") for value in table["novelty"]],
        "problem": [flaws.get(path, "") for path in table["path"]],
        "near": near,
        "marks": [shown.attributes(path) for path in table["path"]],
        "shown": [_inline(small.get(path)) for path in table["path"]],
    }


def _inline(one: Shown | None) -> str:
    """Return a picture as a data URL, or a text after a space; empty if there is none."""
    if one is None:
        return ""
    if one.media_type.startswith("text/"):
        return " " + one.data.decode(errors="replace")
    return f"data:{one.media_type};base64,{base64.b64encode(one.data).decode()}"

"""The data of the report's map, which `map.js` draws."""

import base64
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.errors import DataError
from ..kinds import Shown
from ..tables import parquet
from ..tables.manifest import SPLITS
from .embed import Thumbnails

COLUMNS = ("digest", "x", "y", "novelty", "suggested", "right", "doubt")
SIDE = 64  # pixels of a thumbnail
INLINE = 2000  # examples; if there are more, their thumbnails are in sheets beside the page
ACROSS = 16  # thumbnails in a row of a sheet
LONGEST = 100  # characters of a text, if there are more examples than `INLINE`


def read(file: Path, manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the table that `checks` writes, with `path`, `label` and `split` of each example.

    Raises:
        DataError: the file does not exist or is damaged, or has examples that the manifest lacks.
    """
    table = parquet.read(file, COLUMNS, "checks")
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
        answers: the predictions of the test examples, with `path`, `predicted` and `correct`, which
            replace those of the out-of-fold heads; None if the task is not classification.
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
    words = sorted({*table["label"], *answer.fillna("")})
    place = pd.Series(range(len(words)), index=words)
    names = [shown.name(path) for path in table["path"]]
    start = "" if shown.hidden else os.path.commonprefix(names)  # noqa: RUF071 (of characters)
    fields = [] if shown.hidden else [shown.fields(path) for path in table["path"]]
    return {
        "splits": list(SPLITS),
        "words": words,
        "start": start,
        "x": table["x"].tolist(),
        "y": table["y"].tolist(),
        "name": [name.removeprefix(start) for name in names],
        "label": place[table["label"]].tolist(),
        "split": [SPLITS.index(split) for split in table["split"]],
        "answer": place[answer.fillna("")].tolist(),
        "unseen": known.astype(int).tolist(),
        "right": [None if pd.isna(value) else int(value) for value in right],
        "doubt": [None if pd.isna(value) else float(f"{value:.3g}") for value in table["doubt"]],
        "novelty": [float(f"{value:.3g}") for value in table["novelty"]],
        "problem": [flaws.get(path, "") for path in table["path"]] if flaws else [],
        "near": near,
        "digest": [] if shown.hidden else table["digest"].tolist(),
        "fields": fields if any(fields) else [],
        "shown": _shown(table, small),
    }


def sheets(table: pd.DataFrame, small: Mapping[str, Shown]) -> dict[str, str]:
    """Return SVG files of the thumbnails by name, for a map of more than `INLINE` examples.

    From files beside a page on disk, a browser loads pictures but no data. A file is named after
    the first two digits of its examples' digests, so a new example changes only one file.
    """
    tiles: dict[str, list[str]] = defaultdict(list)
    for digest, path in _on_sheets(table, small):
        sheet = tiles[digest[:2]]
        left, top = (SIDE * at for at in divmod(len(sheet), ACROSS)[::-1])
        sheet.append(
            f'<image x="{left}" y="{top}" width="{SIDE}" height="{SIDE}"'
            f' href="{_inline(small[path])}"/>\n'
        )
    size = f'width="{SIDE * ACROSS}" height="{SIDE * ACROSS}"'
    begin = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n'
    return {f"{name}.svg": f"{begin}{''.join(some)}</svg>\n" for name, some in tiles.items()}


def _on_sheets(table: pd.DataFrame, small: Mapping[str, Shown]) -> list[tuple[str, str]]:
    """Return the digest and path of each example whose thumbnail is on a sheet."""
    if len(table) <= INLINE:
        return []
    examples = zip(table["digest"], table["path"], strict=True)
    return [one for one in examples if one[1] in small and _is_picture(small[one[1]])]


def _shown(table: pd.DataFrame, small: Mapping[str, Shown]) -> list[str | int]:
    """Return for each example its thumbnail, or the position of the thumbnail on its sheet."""
    counts: dict[str, int] = defaultdict(int)
    at: dict[str, int] = {}
    for digest, path in _on_sheets(table, small):
        at[path] = counts[digest[:2]]
        counts[digest[:2]] += 1
    longest = LONGEST if len(table) > INLINE else None
    return [at[path] if path in at else _inline(small.get(path), longest) for path in table["path"]]


def _is_picture(one: Shown) -> bool:
    return not one.media_type.startswith("text/")


def _inline(one: Shown | None, longest: int | None = None) -> str:
    """Return a picture as a data URL, or a text after a space; empty if there is none."""
    if one is None:
        return ""
    if not _is_picture(one):
        return " " + one.data.decode(errors="replace")[:longest]
    return f"data:{one.media_type};base64,{base64.b64encode(one.data).decode()}"

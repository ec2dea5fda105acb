"""The contact sheet: training pictures beside their augmented views."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from ...examples import lettering
from ...examples.files import read
from .. import Pixels
from . import preprocess, views
from .reading import PLAIN, Reading
from .views import View

TILE = 128  # side of a tile in pixels
GAP = 6
MAX_ROWS = 12
MAX_VIEWS = 6
SHEET = Pixels(TILE, TILE, "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def contact_sheet(
    training: pd.DataFrame, table: pd.DataFrame, file: Path, reading: Reading = PLAIN
) -> None:
    """Draw some pictures, each followed by its views, whose parameters are written below them.

    The sheet has at most `MAX_ROWS` pictures, from as many classes as possible. They are picked by
    digest, so that the sheet does not depend on names or order.
    """
    chosen = training.sort_values(["label", "digest"])
    chosen = chosen.assign(turn=chosen.groupby("label").cumcount())
    chosen = chosen.sort_values(["turn", "label"]).head(MAX_ROWS).sort_values(["label", "digest"])
    planned_of = table[table["digest"].isin(chosen["digest"])].groupby("digest")
    # All training pictures have the same number of views.
    by_digest = {digest: rows.head(MAX_VIEWS) for digest, rows in planned_of}
    columns = 1 + max((len(rows) for rows in by_digest.values()), default=0)

    caption = 18
    cell_width, cell_height = TILE + GAP, TILE + caption + GAP
    size = (columns * cell_width + GAP, max(1, len(chosen)) * cell_height + GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    font = lettering.font(11)
    for row, picture in enumerate(chosen.itertuples(index=False)):
        data = read(Path(picture.path), picture.digest)
        base = preprocess.base(data, SHEET, reading)
        tiles: list[tuple[str, np.ndarray]] = [(picture.label, base)]
        if picture.digest in by_digest:
            for planned in by_digest[picture.digest].itertuples(index=False):
                view = View(planned.angle, planned.scale, planned.hflip, planned.vflip)
                tiles.append((_words(view), views.apply(base, view)))
        for column, (words, tile) in enumerate(tiles):
            corner = (GAP + column * cell_width, GAP + row * cell_height)
            sheet.paste(Image.fromarray(preprocess.crop(tile, TILE)), corner)
            below = (corner[0], corner[1] + TILE + 2)
            pen.text(below, lettering.fitted(words, pen, font, TILE), fill="black", font=font)
    sheet.save(file, optimize=False)


def _words(view: View) -> str:
    flips = [mark for mark, on in (("↔", view.hflip), ("↕", view.vflip)) if on]
    return " ".join([f"{view.angle:+.0f}°", f"×{view.scale:.2f}", *flips])

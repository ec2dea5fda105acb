"""The contact sheet: training sounds beside their augmented views, as spectrograms."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from ...examples import lettering
from ...examples.files import read
from . import QUIET
from .decode import decode
from .show import RATE, picture
from .views import ORIGINAL, View, heard

TILE = 168  # side of a tile in pixels; the longest caption fits
GAP = 6
CAPTION = 18
MAX_ROWS = 12
MAX_VIEWS = 6


def contact_sheet(training: pd.DataFrame, table: pd.DataFrame, file: Path) -> None:
    """Draw some sounds, each followed by its views, whose parameters are written below them.

    All spectrograms of a row have the same time scale, so that shifts are visible. The sheet has at
    most `MAX_ROWS` sounds, from as many classes as possible. They are picked by digest, so that the
    sheet does not depend on names or order.
    """
    chosen = training.sort_values(["label", "digest"])
    chosen = chosen.assign(turn=chosen.groupby("label").cumcount())
    chosen = chosen.sort_values(["turn", "label"]).head(MAX_ROWS).sort_values(["label", "digest"])
    planned_of = table[table["digest"].isin(chosen["digest"])].groupby("digest")
    by_digest = {digest: rows.head(MAX_VIEWS) for digest, rows in planned_of}
    columns = 1 + max((len(rows) for rows in by_digest.values()), default=0)

    width, height = TILE + GAP, TILE + CAPTION + GAP
    size = (columns * width + GAP, max(1, len(chosen)) * height + GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    font = lettering.font(9)
    for row, example in enumerate(chosen.itertuples(index=False)):
        sound = decode(read(Path(example.path), example.digest))
        wanted = [(example.label, ORIGINAL)]
        if example.digest in by_digest:
            planned = by_digest[example.digest][list(View._fields)]
            views = [View(*values) for values in planned.itertuples(index=False, name=None)]
            wanted += [(words(view), view) for view in views]
        samples = [heard(sound, RATE, view) for _, view in wanted]
        longest = max(map(len, samples))
        for column, ((text, _), heard_one) in enumerate(zip(wanted, samples, strict=True)):
            corner = (GAP + column * width, GAP + row * height)
            filled = np.pad(heard_one, (0, longest - len(heard_one)))
            sheet.paste(Image.fromarray(picture(filled, TILE, TILE)), corner)
            pen.rectangle((*corner, corner[0] + TILE - 1, corner[1] + TILE - 1), outline="#bbbbbb")
            below = (corner[0], corner[1] + TILE + 2)
            pen.text(below, lettering.fitted(text, pen, font, TILE), fill="black", font=font)
    sheet.save(file, optimize=False)


def words(view: View) -> str:
    """Describe a view, such as "×0.97 +0.12s +4dB noise −31dB"."""
    noise = [] if view.snr == QUIET else [f"noise −{view.snr:.0f}dB"]
    return " ".join([f"×{view.speed:.2f}", f"{view.shift:+.2f}s", f"{view.gain:+.0f}dB", *noise])

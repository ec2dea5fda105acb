"""The contact sheet: some training texts of each class."""

import textwrap
from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw

from ...examples import lettering
from ...examples.files import read
from .reading import text_of

WIDTH, MARGIN, LINE = 900, 16, 20  # pixels
MOST_CLASSES = 12
MOST_TEXTS = 24  # on the sheet
LINES = 2  # per text
CHARACTERS = 100  # in a line, at most


def contact_sheet(training: pd.DataFrame, file: Path) -> None:
    """Draw the beginnings of some texts under their classes.

    Texts are picked by digest, so that the sheet does not depend on names or order.
    """
    classes = sorted(training["label"].unique())
    shown = classes[:MOST_CLASSES]
    each = max(1, MOST_TEXTS // max(1, len(shown)))
    lines: list[tuple[str, bool]] = []
    for name in shown:
        rows = training[training["label"] == name].sort_values("digest")
        lines.append((f"{name} ({len(rows):,})", True))
        for row in rows.head(each).itertuples(index=False):
            words = " ".join(text_of(read(Path(row.path), row.digest))[:2000].split())
            lines += [
                (line, False)
                for line in textwrap.wrap(
                    words, CHARACTERS, max_lines=LINES, placeholder=" …", initial_indent="• "
                )
            ]
    if len(classes) > len(shown):
        lines.append((f"and {len(classes) - len(shown):,} more classes", True))

    sheet = Image.new("RGB", (WIDTH, 2 * MARGIN + LINE * max(1, len(lines))), "white")
    pen = ImageDraw.Draw(sheet)
    plain, bold = lettering.font(14), lettering.font(14, bold=True)
    for number, (line, is_class) in enumerate(lines):
        indent = 0 if is_class else MARGIN
        font = bold if is_class else plain
        line = lettering.fitted(line, pen, font, WIDTH - 2 * MARGIN - indent)
        pen.text((MARGIN + indent, MARGIN + LINE * number), line, fill="black", font=font)
    sheet.save(file, optimize=False)

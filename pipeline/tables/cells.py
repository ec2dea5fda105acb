"""Names from data, as cells of a table that may be opened as a spreadsheet.

A class may be called `=HYPERLINK("http://…"&A1)`, and a spreadsheet takes a cell that begins so for
a formula. An apostrophe before it makes it a text, as OWASP advises ("CSV injection"). A number
stays one, such as -0.5. Whatever reads such a table back takes the apostrophe away again.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `predict` does without
    import pandas as pd

FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


def as_text(cell: str) -> str:
    """The cell with an apostrophe before what would be a formula; other cells as they are."""
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def as_named(cell: str) -> str:
    """What `as_text` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def to_open(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with `as_text` applied to every text."""
    return _with_texts(table, as_text)


def as_written(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table that `to_open` was given."""
    return _with_texts(table, as_named)


def _with_texts(table: "pd.DataFrame", change: Callable[[str], str]) -> "pd.DataFrame":
    changed = {}
    for name, column in table.items():
        if column.dtype.kind in "biufc":
            continue
        before = column.tolist()
        after = [change(cell) if isinstance(cell, str) else cell for cell in before]
        if any(new is not old for new, old in zip(after, before, strict=True)):
            changed[str(name)] = after
    return table.assign(**changed)

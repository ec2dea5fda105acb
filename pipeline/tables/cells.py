"""Escaping of names from data, for tables that may be opened as spreadsheets.

A class may be called `=HYPERLINK("http://…"&A1)`, and a spreadsheet treats a cell that begins like
this as a formula. A leading apostrophe makes it text, as OWASP advises ("CSV injection"). Numbers
such as -0.5 are not changed. Code that reads such a table back removes the apostrophe.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `predict` works without pandas
    import pandas as pd

FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


def as_text(cell: str) -> str:
    """Put an apostrophe before a cell that would be a formula; return other cells unchanged."""
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def as_named(cell: str) -> str:
    """Undo `as_text`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def to_open(table: "pd.DataFrame") -> "pd.DataFrame":
    """Apply `as_text` to every text of a table."""
    return _with_texts(table, as_text)


def as_written(table: "pd.DataFrame") -> "pd.DataFrame":
    """Undo `to_open`."""
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

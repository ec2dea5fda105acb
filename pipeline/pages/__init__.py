"""What people read: the report's template and charts; it lays out and computes nothing.

What a task shows is the part `page` of its folder, and `page.html` beside it.
"""

from typing import TYPE_CHECKING, Protocol, cast

from ..tasks import part

if TYPE_CHECKING:  # slow to import
    import pandas as pd

    from .embed import Row
    from .mistakes import Mistake


class Page(Protocol):
    """What the report shows for a task beside what it shows for every task."""

    def mistakes(self, predictions: "pd.DataFrame") -> "list[Mistake]":
        """The wrong answers that are shown, the worst first."""

    def parts(self, predictions: "pd.DataFrame", names: list[str]) -> "Row":
        """The values that fill the task's `page.html`.

        `widest` is the width of a chart in the page's units, and `reliability` a chart or None.

        Args:
            predictions: as `evaluate` writes them.
            names: of the outputs.
        """


def of_task(task: str) -> Page:
    """The task's own part of the page."""
    return cast(Page, part(task, "page"))

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
    """What the report shows of a task beside what it shows of all."""

    def mistakes(self, predictions: "pd.DataFrame") -> "list[Mistake]":
        """The wrong answers that are shown, the worst first."""

    def parts(self, predictions: "pd.DataFrame", names: list[str]) -> "Row":
        """What the task's `page.html` is filled with.

        `widest` is the width of a chart in the page's units, and `reliability` a chart or None.

        Args:
            predictions: as `evaluate` writes them.
            names: of the outputs.
        """


def of_task(task: str) -> Page:
    """What the task of that name brings for its page."""
    return cast(Page, part(task, "page"))

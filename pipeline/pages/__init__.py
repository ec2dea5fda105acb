"""The template and charts of the report; this subpackage only formats results of other stages.

Each task has its own part of the report in its `page.py` and `page.html`.
"""

from typing import TYPE_CHECKING, Protocol, cast

from ..tasks import part

if TYPE_CHECKING:  # slow to import
    import pandas as pd

    from .embed import Row
    from .mistakes import Mistake


class Page(Protocol):
    """The part of the report that is specific to a task.

    `columns` names the columns of the predictions that this part reads.
    """

    columns: str

    def mistakes(self, predictions: "pd.DataFrame") -> "list[Mistake]":
        """Return the wrong predictions for the report, the worst first."""

    def parts(self, predictions: "pd.DataFrame", names: list[str]) -> "Row":
        """Return the values for the task's `page.html`.

        `widest` is the largest width of a chart in rem; `reliability` is a chart or None.
        """


def of_task(task: str) -> Page:
    """Return the task's implementation of `Page`."""
    return cast(Page, part(task, "page"))

"""Label issues of a task: the interface of its module `issues`."""

from typing import NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.params import ChecksParams
from ..tasks import part


class Doubts(NamedTuple):
    """Label issues, and the answers of heads that had not seen the examples.

    `issues` has one row per issue, the most doubtful first: `path`, `split`, `label` etc. `why_not`
    says why no label could be checked; it is empty if they were checked. `answers` has a row for
    each of n examples: `suggested`, the predicted label; `right`, whether that is the label;
    `doubt`, the probability that the label is wrong. Without an answer, `suggested` is empty, and
    the others are NaN.
    """

    issues: pd.DataFrame
    why_not: str
    answers: pd.DataFrame


def unanswered(examples: int) -> pd.DataFrame:
    """Return `Doubts.answers` without an answer."""
    columns = {"suggested": "", "right": np.nan, "doubt": np.nan}
    return pd.DataFrame(columns, index=range(examples))


class Issues(Protocol):
    """A task's search for labels, or regression targets, that are probably wrong."""

    def require_memory(self, manifest: pd.DataFrame) -> None:
        """Check that the machine has the memory to look for label issues.

        Raises:
            DataError: there is too little memory.
        """

    def find(
        self, rows: pd.DataFrame, features: npt.NDArray[np.float32], settings: ChecksParams
    ) -> Doubts:
        """Return the label issues of n examples, and answers.

        Args:
            rows: n rows, as `originals` returns them.
            features: [n, d].
            settings: the threshold for issues, and the seed of the folds.
        """


def of_task(task: str) -> Issues:
    """Return the task's implementation of `Issues`."""
    return cast(Issues, part(task, "issues"))

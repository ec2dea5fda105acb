"""Label issues of a task: the interface of its module `issues`."""

from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..core.params import ChecksParams
from ..tasks import part


class Issues(Protocol):
    """A task's search for labels, or regression targets, that are probably wrong."""

    def require_memory(self, manifest: pd.DataFrame) -> None:
        """Check that the machine has the memory to look for label issues.

        Raises:
            DataError: there is too little memory.
        """

    def find(
        self, rows: pd.DataFrame, features: npt.NDArray[np.float32], settings: ChecksParams
    ) -> tuple[pd.DataFrame, str]:
        """Return one row per issue, the most doubtful first: `path`, `split`, `label` etc.

        Also return why no label could be checked; empty if they were checked.

        Args:
            rows: n rows, as `originals` returns them.
            features: [n, d].
            settings: the threshold for issues, and the seed of the folds.
        """


def of_task(task: str) -> Issues:
    """Return the task's implementation of `Issues`."""
    return cast(Issues, part(task, "issues"))
